"""Invalid values in an admin URL or list are refused without an error 500 (attack: `%00` in a filter)."""

import pytest

from tests.security.staff import SUPER, person_of, rows
from tests.users import client_of

pytestmark = pytest.mark.django_db(transaction=True, databases="__all__")


@pytest.mark.parametrize(
    "path",
    [
        "authsvc/user/?role__exact=%00", "authsvc/user/?%00=1", "authsvc/eventtransaction/?q=%00",
        "chatsvc/chatuser/?role=a%00",
        "eventbus/deadletter/?state__exact=%00", "eventbus/deadletter/?group=%00", "authsvc/user/?p=%00",
        "autocomplete/?app_label=authsvc&model_name=user&field_name=groups&term=%00",
    ],
)  # fmt: skip
def test_a_nul_in_the_query_is_400(path: str) -> None:
    rows()
    assert client_of(person_of(SUPER)).get(f"/admin/{path}").status_code == 400


@pytest.mark.parametrize("page", ["authsvc/eventtransaction", "eventbus/deadletter", "chatsvc/chatuser"])
def test_an_impossible_id_of_a_selected_row_is_400(page: str) -> None:
    rows()
    client = client_of(person_of(SUPER))
    for action in ("replay_chosen", "discard_chosen", "deactivate", "delete_selected"):
        for chosen in ("\0", "abc", "1\0", "", "1.5"):
            posted = {"action": action, "_selected_action": chosen, "reason": "x", "service": "chat", "post": "yes"}
            assert client.post(f"/admin/{page}/", posted).status_code == 400, (action, chosen)
