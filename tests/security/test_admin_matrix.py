"""Every URL and every action of the administration, for five kinds of people.

A URL or an action that is missing from the tables fails the run until somebody has decided who may use it.
"""

import re
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote
from uuid import uuid4

import pytest
from django.contrib.admin import site
from django.contrib.admin.models import LogEntry
from django.http import HttpResponseBase
from django.test import RequestFactory
from django.urls import URLResolver, get_resolver
from django_otp.plugins.otp_totp.models import TOTPDevice

from authsvc.models import User
from authsvc.signups.events import NEW_USER_REQUESTED
from eventbus.models import DeadLetterAction
from eventbus.topics import ensure_topics
from runtime.admin_toolkit.page_admin import PageAdmin
from tests.contract.kafka_messages import is_meant
from tests.participants import ADMIN_PATHS
from tests.security.staff import KINDS, person_of, rows
from tests.users import client_of

pytestmark = [
    pytest.mark.django_db(databases="__all__"),
    pytest.mark.needs("broker", "redis"),
]

# Models whose pages and actions answer alike, by the name that stands for each of them in the tables.
ALIKE: Final = {
    "PARTICIPANT": tuple(ADMIN_PATHS.values()),
    "READ_ONLY": ("authsvc/eventtransaction", "eventbus/deadletter"),
}

# The answer to each kind of person: a status, or `login` for a redirect to the login page. A post has no fields, which
# suffices for a refusal; a permitted person gets the form's errors (200) or the question again (a delete page). A row
# other than the plain one follows an @. The columns are KINDS: anonymous, staff without any permission, with those to
# view, with those to change too, superusers; first for GET, then for POST.
PAGES: Final = """
/                                                  login 200   200   200   200   | login 200   200   200   200
login/                                             200   302   302   302   302   | 200   200   200   200   200
logout/                                            302   405   405   405   405   | 302   302   302   302   302
password_change/                                   login 302   302   302   302   | login 302   302   302   302
password_change/done/                              login 200   200   200   200   | login 405   405   405   405
autocomplete/                                      login 403   200   200   200   | login 405   405   405   405
jsi18n/                                            login 200   200   200   200   | login 405   405   405   405
auth/group/                                        login 403   200   200   200   | login 403   200   200   200
auth/group/add/                                    login 403   403   403   200   | login 403   403   403   200
auth/group/<path:object_id>/history/               login 403   200   200   200   | login 403   200   200   200
auth/group/<path:object_id>/delete/                login 403   403   403   200   | login 403   403   403   200
auth/group/<path:object_id>/change/                login 403   200   200   200   | login 403   403   403   200
auth/group/<path:object_id>/                       login 302   302   302   302   | login 302   302   302   302
authsvc/user/<id>/password/                        login 403   403   200   200   | login 403   403   200   200
authsvc/user/<id>/password/@staff                  login 403   403   403   200   | login 403   403   403   200
authsvc/user/<id>/password/@superuser              login 403   403   403   200   | login 403   403   403   200
authsvc/user/<id>/password/@administrator          login 403   403   403   200   | login 403   403   403   200
authsvc/user/                                      login 403   200   200   200   | login 403   200   200   200
authsvc/user/add/                                  login 403   403   200   200   | login 403   403   200   200
authsvc/user/<path:object_id>/history/             login 403   200   200   200   | login 403   200   200   200
authsvc/user/<path:object_id>/delete/              login 403   403   200   200   | login 403   403   200   200
authsvc/user/<path:object_id>/delete/@staff        login 403   403   403   200   | login 403   403   403   200
authsvc/user/<path:object_id>/delete/@superuser    login 403   403   403   200   | login 403   403   403   200
authsvc/user/<path:object_id>/delete/@administrator login 403   403   403   200   | login 403   403   403   200
authsvc/user/<path:object_id>/change/              login 403   200   200   200   | login 403   403   200   200
authsvc/user/<path:object_id>/change/@staff        login 403   200   200   200   | login 403   403   403   200
authsvc/user/<path:object_id>/change/@superuser    login 403   200   200   200   | login 403   403   403   200
authsvc/user/<path:object_id>/change/@administrator login 403   200   200   200   | login 403   403   403   200
authsvc/user/<path:object_id>/                     login 302   302   302   302   | login 302   302   302   302
authsvc/trafficminute/                             login 403   200   200   200   | login 405   405   405   405
authsvc/trafficminute/stream/                      403   403   400   400   400   | 405   405   405   405   405
authsvc/unconfirmedsignup/                         login 403   200   200   200   | login 403   200   200   200
authsvc/unconfirmedsignup/add/                     login 403   403   403   403   | login 403   403   403   403
authsvc/unconfirmedsignup/<path:object_id>/history/ login 403   200   200   200   | login 403   200   200   200
authsvc/unconfirmedsignup/<path:object_id>/delete/ login 403   403   403   403   | login 403   403   403   403
authsvc/unconfirmedsignup/<path:object_id>/change/ login 403   200   200   200   | login 403   403   403   403
authsvc/unconfirmedsignup/<path:object_id>/        login 302   302   302   302   | login 302   302   302   302
READ_ONLY/                                         login 403   200   200   200   | login 403   200   200   200
READ_ONLY/add/                                     login 403   403   403   403   | login 403   403   403   403
READ_ONLY/<path:object_id>/history/                login 302   302   302   302   | login 302   302   302   302
READ_ONLY/<path:object_id>/delete/                 login 403   403   403   403   | login 403   403   403   403
READ_ONLY/<path:object_id>/change/                 login 403   200   200   200   | login 403   403   403   403
READ_ONLY/<path:object_id>/                        login 302   302   302   302   | login 302   302   302   302
PARTICIPANT/                                       login 403   200   200   200   | login 403   200   200   200
PARTICIPANT/add/                                   login 403   403   200   200   | login 403   403   200   200
PARTICIPANT/<path:object_id>/history/              login 403   200   200   200   | login 403   200   200   200
PARTICIPANT/<path:object_id>/delete/               login 403   403   200   200   | login 403   403   200   200
PARTICIPANT/<path:object_id>/change/               login 403   200   200   200   | login 403   403   200   200
PARTICIPANT/<path:object_id>/                      login 302   302   302   302   | login 302   302   302   302
scimsvc/scimaccount/                               login 403   200   200   200   | login 403   200   200   200
scimsvc/scimaccount/add/                           login 403   403   403   403   | login 403   403   403   403
scimsvc/scimaccount/<path:object_id>/history/      login 403   200   200   200   | login 403   200   200   200
scimsvc/scimaccount/<path:object_id>/delete/       login 403   403   403   403   | login 403   403   403   403
scimsvc/scimaccount/<path:object_id>/change/       login 403   200   200   200   | login 403   403   403   403
scimsvc/scimaccount/<path:object_id>/              login 302   302   302   302   | login 302   302   302   302
eventbus/instance/                                 login 403   200   200   200   | login 405   405   405   405
eventbus/topic/                                    login 403   200   200   200   | login 405   405   405   405
eventbus/topic/<str:name>/                         login 403   200   200   200   | login 405   405   405   405
livesettings/overrides/                            login 403   302   302   302   | login 403   302   302   302
livesettings/overrides/add/                        login 403   403   403   403   | login 403   403   403   403
livesettings/overrides/<path:object_id>/history/   login 403   200   200   200   | login 403   200   200   200
livesettings/overrides/<path:object_id>/delete/    login 403   403   403   403   | login 403   403   403   403
livesettings/overrides/<path:object_id>/change/    login 403   200   200   200   | login 403   403   200   200
livesettings/overrides/<path:object_id>/           login 302   302   302   302   | login 302   302   302   302
<app_label>/                                       login 404   200   200   200   | login 404   200   200   200
<url>                                              login 404   404   404   404   | login 404   404   404   404
"""

# The same for each action. A refused action has no effect.
ACTIONS: Final = """
auth/group/                delete_selected login 403   403   403   302
authsvc/user/              delete_selected login 403   403   302   302
authsvc/user/@staff        delete_selected login 403   403   403   302
authsvc/user/@superuser    delete_selected login 403   403   403   302
authsvc/user/@administrator delete_selected login 403  403   403   302
authsvc/user/              reset_two_factor login 403  403   403   302
authsvc/user/              activate        login 403   403   302   302
authsvc/user/              deactivate      login 403   403   302   302
authsvc/eventtransaction/            replay_chosen   login 403   403   302   302
PARTICIPANT/               activate        login 403   403   302   302
PARTICIPANT/               deactivate      login 403   403   302   302
PARTICIPANT/               delete_selected login 403   403   302   302
eventbus/deadletter/       replay_chosen   login 403   403   302   302
eventbus/deadletter/       discard_chosen  login 403   403   302   302
"""

# Parameters of the pages that need some.
QUERIES: Final = {
    "autocomplete/": {"app_label": "admin", "model_name": "logentry", "field_name": "user"},
    # Ask for an unknown range, so that people who may see the stream get an error: an open stream would not end.
    "authsvc/trafficminute/stream/": {"span": "none"},
}


def patterns() -> Iterator[str]:
    """The URLs below /admin/, as they are written."""

    def walk(found: list[Any], above: str) -> Iterator[str]:
        for each in found:
            path = above + str(each.pattern)
            if isinstance(each, URLResolver):
                yield from walk(each.url_patterns, path)
            else:
                yield path

    for path in walk(get_resolver().url_patterns, ""):
        if path.startswith("admin/"):
            yield re.sub(r"\^?\(\?P<(\w+)>.*?\)(/?)\$", r"<\1>\2", path.removeprefix("admin/"))


def lines(text: str) -> list[list[str]]:
    """Yield the words of each line, once for each model that the line stands for."""
    found = (line.partition("/") for line in text.strip().splitlines())
    return [(model + slash + rest).split() for name, slash, rest in found for model in ALIKE.get(name, [name])]


def table(text: str) -> dict[str, tuple[list[str], list[str]]]:
    """By page, the answers to GET and to POST."""
    return {page: (answers[:5], answers[6:]) for page, *answers in lines(text)}


def answer_of(response: HttpResponseBase) -> str:
    if response.status_code == 302 and response.headers["Location"].startswith("/admin/login/"):
        return "login"
    return str(response.status_code)


class Everything:
    """One row of each model, a topic, and five people."""

    def __init__(self, topic: str) -> None:
        self.rows = rows()
        self.topic = topic
        self.people = [person_of(kind) for kind in KINDS]

    def path(self, page: str) -> str:
        pattern, _, which = page.removeprefix("/").partition("@")
        words = {"app_label": "authsvc", "url": "nowhere/", "name": self.topic}
        if match := re.match(r"(\w+)/(\w+)/<", pattern):
            row = self.rows.get("_".join(match.groups()) + (f"@{which}" if which else ""))
            words |= {"object_id": str(row.pk), "id": str(row.pk)} if row else {}
        return "/admin/" + re.sub(r"<(?:\w+:)?(\w+)>", lambda found: quote(words[found[1]]), pattern)

    def fingerprint(self) -> list[Any]:
        """All that an action may change."""
        models = [*{type(row) for row in self.rows.values()}, LogEntry, DeadLetterAction, TOTPDevice]
        return [list(model.objects.order_by("pk").values()) for model in models]

    def answers(self, page: str, method: str) -> list[str]:
        path, query = self.path(page), QUERIES.get(page, {})
        clients = [client_of(person) for person in self.people]
        if method == "GET":
            return [answer_of(client.get(path, query)) for client in clients]
        return [answer_of(client.post(path)) for client in clients]


@pytest.fixture
def everything(settings) -> Everything:
    settings.KAFKA_PREFIX = f"matrix-{uuid4()}-"
    ensure_topics([NEW_USER_REQUESTED])
    # The dead letter has no value, and an action replays it.
    is_meant(NEW_USER_REQUESTED, None)
    return Everything(NEW_USER_REQUESTED)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_each_page_answers_each_kind_of_person_as_the_table_says(everything, method):
    number = ("GET", "POST").index(method)
    expected = {page: answers[number] for page, answers in table(PAGES).items()}
    assert {page: everything.answers(page, method) for page in expected} == expected


def test_no_page_is_missing_from_the_table():
    assert {page.partition("@")[0] for page in table(PAGES)} == {page or "/" for page in patterns()}


@pytest.mark.parametrize("line", lines(ACTIONS), ids=" ".join)
def test_each_action_works_only_for_the_people_that_the_table_names(everything, line):
    page, action, *expected = line
    path, _, which = page.partition("@")
    row = everything.rows[path.strip("/").replace("/", "_") + (f"@{which}" if which else "")]
    if action == "activate":
        type(row)._base_manager.filter(pk=row.pk).update(is_active=False)
    if action == "reset_two_factor":
        TOTPDevice.objects.create(user=row, name="authenticator")
    clients = [client_of(person) for person in everything.people]
    before = everything.fingerprint()
    for client, answer in zip(clients, expected, strict=True):
        form = {"action": action, "_selected_action": [row.pk], "post": "yes", "reason": "for a test"}
        assert answer_of(client.post(f"/admin/{path}", form)) == answer
        assert (everything.fingerprint() == before) == (answer in ("login", "403"))
        if answer == "302":
            break  # the row may be gone
    assert expected[-1] == "302"


def test_no_action_is_missing_from_the_table():
    request = RequestFactory().get("/")
    request.user = User(is_superuser=True, is_staff=True)
    offered = set()
    for model, its_admin in site._registry.items():
        if not isinstance(its_admin, PageAdmin):
            name = f"{model._meta.app_label}/{model._meta.model_name}/"
            offered |= {(name, action) for action in its_admin.get_actions(request)}
    listed = {(page, action) for page, action, *_ in lines(ACTIONS) if "@" not in page}
    assert listed == offered
