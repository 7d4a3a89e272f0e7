"""`manage.py reconcile`, with the participants' consumers on the broker of the chosen stack."""

import json
import tracemalloc
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from io import StringIO
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.core.management import CommandError, call_command
from django.db.models import Value
from django.db.models.functions import Concat
from django.test import override_settings

from authsvc.lights import Kind, Status, Verdict
from authsvc.models import EventTransaction, RemovedAccount, SignUp, User
from authsvc.reconcile.events import RECONCILE_ANSWERED, RECONCILE_REQUESTED
from authsvc.reconcile.reconciliation import Reconciliation
from authsvc.reconcile.records import record_pages
from authsvc.signups import publisher
from authsvc.signups.changes import change_account, publish_again, remove_account
from authsvc.signups.events import REQUEST_TOPICS
from authsvc.signups.registration import register_users
from authsvc.signups.verdicts import ReportedVerdict, apply_verdicts
from chatsvc.models import ChatUser
from customersvc.models import Customer
from eventbus.subscriptions import subscriptions_of
from eventbus.topics import ensure_topics
from participant.reconcile import FINDINGS_MAX
from participant.user_table import write_tombstones
from tests.broker import consuming
from tests.signups import new_signup, save_signup, save_signups

pytestmark = [
    pytest.mark.django_db(databases=["default", "chat", "customer"], transaction=True),
    pytest.mark.needs("broker"),
]
NOTHING = dict.fromkeys(("missing", "different", "conflicting", "superfluous", "removed", "newer", "revived"), 0)


@pytest.fixture(autouse=True, scope="module")
def participants() -> Iterator[None]:
    """Chat and customer, each with its consumer of pages; joining their groups is the slow part, so once for all."""
    with override_settings(KAFKA_PREFIX=f"reconcile-{uuid4()}-"), ExitStack() as running:
        ensure_topics([RECONCILE_REQUESTED, RECONCILE_ANSWERED, *REQUEST_TOPICS.values()])
        for service in ("chat", "customer"):
            [_, pages] = subscriptions_of(service)
            running.enter_context(consuming(pages))
        yield
        publisher.close()


def save_everywhere(*names: str) -> list[UUID]:
    """Save users with complete sign-ups, and their copies at both participants."""
    batch = [new_signup(name) for name in names]
    register_users(batch)
    for new in batch:
        apply_verdicts([ReportedVerdict(new.signup_id, Verdict(name, Status.SUCCESS)) for name in ("chat", "customer")])
        for model in (ChatUser, Customer):
            model.objects.create(
                signup_id=new.signup_id, owner_signup_id=new.signup_id, user_id=new.user_id, email=new.email,
                user_name=new.user_name,
            )  # fmt: skip
    return [new.signup_id for new in batch]


def reconcile(*arguments: str) -> tuple[dict[str, Any], str]:
    """Return the services of the report, and the text on stderr, which is empty if the exit code is 0."""
    out = StringIO()
    try:
        call_command("reconcile", "--json", "--timeout=60", *arguments, stdout=out)
        problems = ""
    except CommandError as error:
        problems = str(error)
    return report_of(out.getvalue()), problems


def report_of(lines: str) -> dict[str, Any]:
    """The last line's services, each with the findings of the lines before."""
    *findings, last = map(json.loads, lines.splitlines())
    for report in last["services"].values():
        report["findings"] = []
    for finding in findings:
        last["services"][finding.pop("service")]["findings"].append(finding)
    return last["services"]


def found(report: dict[str, Any]) -> list[tuple[str, str]]:
    return sorted((finding["kind"], finding["userId"]) for finding in report["findings"])


def rows(model: type[ChatUser] | type[Customer]) -> set[tuple[Any, ...]]:
    return set(
        model.objects.values_list(
            "owner_signup_id", "user_id", "user_id_key", "email", "user_name", "role", "version", "is_account_active"
        )
    )


def records() -> set[tuple[Any, ...]]:
    return set(
        User.objects.values_list(
            "owner_signup_id", "user_id", "user_id_key", "email", "user_name", "role", "version", "is_active"
        )
    )


def change(known_as: str, **values: Any) -> EventTransaction:
    """Save a change of which no participant has got the event."""
    user = User.objects.get(user_id=known_as)
    for name, value in values.items():
        setattr(user, name, value)
    row = change_account(user)
    assert row is not None
    return row


def remove(user_id: str) -> EventTransaction:
    """Save a removal of which no participant has got the event."""
    return remove_account(User.objects.get(user_id=user_id))


def answered(*transactions: EventTransaction) -> None:
    """Record answers of both participants without changing their rows, as after a restored backup."""
    for row in transactions:
        apply_verdicts([ReportedVerdict(row.id, Verdict(name, Status.SUCCESS)) for name in ("chat", "customer")])


def test_equal_records_and_rows_have_no_findings():
    save_everywhere("kim", "lee")
    services, problems = reconcile()
    assert problems == ""
    for report in services.values():
        assert (report["counts"], report["answered"], report["findings"]) == (NOTHING, True, [])


def test_without_any_user_there_are_no_findings():
    assert reconcile()[1] == ""


def test_each_kind_of_finding_is_reported_and_nothing_is_changed():
    _kim, lee, _park = save_everywhere("kim", "lee", "park")
    ChatUser.objects.filter(user_id="kim").delete()
    ChatUser.objects.filter(user_id="lee").update(user_name="Somebody else", role="ROLE_ADMIN")
    ChatUser.objects.create(user_id="by-hand", email="by-hand@example.org")
    ChatUser.objects.create(user_id="lost", email="lost@example.org", owner_signup_id=uuid4())
    Customer.objects.filter(user_id="park").delete()
    Customer.objects.create(user_id="another", email="park@example.org")
    before = rows(ChatUser), rows(Customer)

    services, problems = reconcile()

    assert found(services["chat"]) == [
        ("different", "lee"), ("missing", "kim"), ("superfluous", "by-hand"), ("superfluous", "lost"),
    ]  # fmt: skip
    [different] = [each for each in services["chat"]["findings"] if each["kind"] == "different"]
    assert (different["fields"], different["ownerSignupId"]) == (["userName", "role"], str(lee))
    [conflict] = services["customer"]["findings"]
    assert (conflict["kind"], conflict["userId"]) == ("conflicting", "park")
    assert conflict["heldBy"] == [{"userId": "another", "email": "park@example.org"}]
    assert "2 can be healed" in problems
    assert "3 need a decision" in problems
    assert (rows(ChatUser), rows(Customer)) == before


def test_after_healing_a_second_run_finds_only_what_a_person_must_decide():
    save_everywhere("kim", "lee", "park")
    ChatUser.objects.filter(user_id="kim").delete()
    ChatUser.objects.filter(user_id="lee").update(email="elsewhere@example.org")
    ChatUser.objects.create(user_id="by-hand", email="by-hand@example.org")
    Customer.objects.all().delete()
    by_hand = {("superfluous", "by-hand")}

    services, problems = reconcile("--heal")
    assert (services["chat"]["healed"], services["customer"]["healed"]) == (2, 3)
    assert "1 need a decision" in problems
    assert "can be healed" not in problems

    services, problems = reconcile("--heal")
    assert set(found(services["chat"])) == by_hand
    assert services["chat"]["healed"] == 0
    assert found(services["customer"]) == []
    assert {row for row in rows(ChatUser) if row[0]} == rows(Customer) == records()


def test_a_deactivated_row_is_not_missing_and_stays_deactivated():
    save_everywhere("kim", "lee")
    ChatUser.objects.update(is_active=False)
    ChatUser.objects.filter(user_id="lee").update(user_name="Old")
    assert reconcile("--heal")[1] == ""
    assert set(ChatUser.objects.values_list("user_name", "is_active")) == {("kim", False), ("lee", False)}


def test_an_administrators_change_at_auth_is_healed_at_the_participants():
    save_everywhere("kim", "lee")
    change("kim", user_id="Kimberly", email="kimberly@example.org", user_name="Kimberly")
    services, problems = reconcile("--heal")
    assert problems == ""
    assert found(services["chat"]) == [("different", "Kimberly")]
    assert rows(ChatUser) == rows(Customer) == records()


def test_a_user_with_another_users_former_email_is_healed_after_that_user():
    save_everywhere("kim", "lee")
    User._base_manager.filter(user_id="kim").update(email="new@example.org")
    User._base_manager.filter(user_id="lee").update(email="kim@example.org")
    assert reconcile("--heal")[1] == ""
    assert rows(ChatUser) == rows(Customer) == records()


def pass_on_emails(users: int) -> list[str]:
    """Give each user the address of the previous one, and the first user that of the last one."""
    names = [f"user-{n:02}" for n in range(users)]
    save_everywhere(*names)
    User._base_manager.filter(user_id__in=names).update(email=Concat("email", Value(".old")))
    for n, name in enumerate(names):
        User._base_manager.filter(user_id=name).update(email=f"{names[n - 1]}@example.org")
    return names


@pytest.mark.parametrize("users", [2, 3, 30])
@pytest.mark.parametrize("page", [1, 250], ids=["on different pages", "on one page"])
def test_users_that_exchanged_keys_in_a_cycle_are_healed(monkeypatch, users, page):
    monkeypatch.setattr("authsvc.reconcile.records.PAGE", page)
    names = pass_on_emails(users)
    save_everywhere(*(f"bystander-{n}" for n in range(5)))
    different = [("different", name) for name in names]

    services, problems = reconcile()
    assert [found(report) for report in services.values()] == [different, different]
    assert f"{2 * users} can be healed" in problems

    services, problems = reconcile("--heal")
    assert problems == ""
    assert [found(report) for report in services.values()] == [different, different]
    assert rows(ChatUser) == rows(Customer) == records()


@pytest.mark.parametrize("page", [1, 4])
def test_a_cycle_that_is_too_long_for_one_page_is_reported_and_healed_once_it_is_broken(monkeypatch, page):
    monkeypatch.setattr("authsvc.reconcile.records.PAGE", page)
    for module in ("authsvc.reconcile.reconciliation", "authsvc.management.commands.reconcile"):
        monkeypatch.setattr(f"{module}.QUESTION_MAX", 5)
    names = pass_on_emails(7)
    for heal in ([], ["--heal"]):
        services, problems = reconcile(*heal)
        assert [found(report) for report in services.values()] == [[("conflicting", name) for name in names]] * 2
        assert "14 hold each other's user IDs or addresses" in problems
        assert "need a decision" not in problems
    assert "cycles of more than 5" in problems
    for model in (ChatUser, Customer):
        model.objects.filter(user_id=names[0]).delete()
    for _ in names:
        problems = reconcile("--heal")[1]
        if not problems:
            break
    assert problems == ""
    assert rows(ChatUser) == rows(Customer) == records()


def test_a_cycle_that_contains_an_administrators_row_is_not_changed():
    save_everywhere("kim", "lee", "park")
    ChatUser.objects.filter(user_id="park").delete()
    ChatUser.objects.create(user_id="by-hand", email="park@example.org")
    Customer.objects.all().delete()
    User._base_manager.filter(user_id="park").update(email="new@example.org")
    User._base_manager.filter(user_id="lee").update(email="park@example.org")
    User._base_manager.filter(user_id="kim").update(email="lee@example.org")
    services, problems = reconcile("--heal")
    assert found(services["chat"]) == [("conflicting", "kim"), ("conflicting", "lee"), ("missing", "park")]
    assert "2 need a decision" in problems
    assert rows(Customer) == records()


def test_a_row_without_a_record_passes_to_the_account_with_its_user_id():
    save_everywhere("kim")
    User.objects.all().delete()
    again = save_signup("kim", name="Kim again")
    services, _ = reconcile()
    assert found(services["chat"]) == [("different", "kim")]
    assert reconcile("--heal")[1] == ""
    assert rows(ChatUser) == rows(Customer) == records()
    assert ChatUser.objects.get().owner_signup_id == again.id


def test_pages_cover_every_user_whatever_their_number(monkeypatch):
    monkeypatch.setattr("authsvc.reconcile.records.PAGE", 3)
    names = [f"user-{n}" for n in range(10)]
    save_everywhere(*names)
    ChatUser.objects.filter(user_id__in=names[::2]).delete()
    Customer.objects.create(user_id="lost", email="lost@example.org", owner_signup_id=UUID(int=1))
    Customer.objects.create(user_id="later", email="later@example.org", owner_signup_id=UUID(int=2**128 - 1))
    services, _ = reconcile("--heal")
    assert found(services["chat"]) == [("missing", name) for name in names[::2]]
    assert found(services["customer"]) == [("superfluous", "later"), ("superfluous", "lost")]
    assert rows(ChatUser) == records()


def test_a_long_answer_comes_in_parts(monkeypatch):
    monkeypatch.setattr("participant.reconcile.FINDINGS_MAX", 2)
    names = [f"user-{n}" for n in range(7)]
    for name in names:
        ChatUser.objects.create(user_id=name, email=f"{name}@example.org")
    services, _ = reconcile()
    assert found(services["chat"]) == [("superfluous", name) for name in names]


@pytest.mark.parametrize("number", [249, 250, 251, 500])
def test_an_answer_ends_whatever_the_number_of_its_findings(number):
    assert FINDINGS_MAX == 250
    ChatUser.objects.bulk_create(
        ChatUser(user_id=f"u{n}", user_id_key=f"u{n}", email=f"u{n}@example.org") for n in range(number)
    )
    services, _ = reconcile("--service", "chat")
    assert services["chat"]["answered"]
    assert services["chat"]["counts"] == NOTHING | {"superfluous": number}


def test_memory_does_not_grow_with_the_number_of_findings():
    class Lines:
        """An output that only counts its lines."""

        number = 0

        def write(self, text: str) -> None:
            self.number += text.count("\n")

    def peak(users: int) -> int:
        there = User.objects.count()
        User.objects.bulk_create(
            User(user_id=f"u{n}", user_id_key=f"u{n}", email=f"u{n}@example.org", user_name="User")
            for n in range(there, users)
        )
        out = Lines()
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        with pytest.raises(CommandError, match=f"{users} can be healed"):
            call_command("reconcile", "--json", "--service=chat", stdout=out)
        assert out.number == users + 1
        return tracemalloc.get_traced_memory()[1] - before

    tracemalloc.start()
    try:
        peak(500)  # modules that are loaded on first use
        few, many = peak(5_000), peak(20_000)  # both are many more pages than are in flight at a time
    finally:
        tracemalloc.stop()
    assert many < 1.5 * few


def test_a_pending_sign_up_is_no_finding_but_a_stalled_one_is():
    save_signups("on-the-way", "stalled")
    SignUp.objects.filter(user_id="stalled").update(stalled_at=datetime.now(UTC), next_due_at=None)
    services, _ = reconcile()
    for report in services.values():
        assert (found(report), report["onTheWay"]) == ([("missing", "stalled")], 1)


def test_rows_of_removed_people_are_reported_as_such_and_deleted_for_good():
    save_everywhere("kim", "lee")
    answered(remove("kim"))
    for model in (ChatUser, Customer):
        model.objects.filter(user_id="lee").update(user_name="Somebody else")
    services, problems = reconcile()
    assert [found(report) for report in services.values()] == [[("different", "lee"), ("removed", "kim")]] * 2
    assert "4 can be healed" in problems
    services, problems = reconcile("--heal")
    assert (problems, services["chat"]["healed"], services["customer"]["healed"]) == ("", 2, 2)
    assert rows(ChatUser) == rows(Customer) == records()
    assert ChatUser.every.filter(removed_at__isnull=False).count() == 1
    services, problems = reconcile()
    assert [report["counts"] for report in services.values()] == [NOTHING, NOTHING]


@pytest.mark.parametrize("page", [1, 250], ids=["on different pages", "on one page"])
def test_a_new_person_gets_the_user_id_that_a_removed_persons_row_still_holds(monkeypatch, page):
    monkeypatch.setattr("authsvc.reconcile.records.PAGE", page)
    save_everywhere("kim", "lee")
    answered(remove("kim"))
    Customer.objects.filter(user_id="kim").delete()
    again = save_signup("kim", name="Another")
    answered(EventTransaction.objects.get(id=again.id))
    services, problems = reconcile()
    assert found(services["chat"]) == [("missing", "kim"), ("removed", "kim")]
    services, problems = reconcile("--heal")
    assert problems == ""
    assert found(services["chat"]) == [("missing", "kim"), ("removed", "kim")]
    assert found(services["customer"]) == [("missing", "kim")]
    assert rows(ChatUser) == rows(Customer) == records()


def test_pages_cover_every_removed_account_whatever_their_number(monkeypatch):
    monkeypatch.setattr("authsvc.reconcile.records.PAGE", 3)
    names = [f"user-{n}" for n in range(10)]
    save_everywhere(*names)
    # The owners of removed accounts come first, so a page of users extends beyond that of removed accounts.
    gone = list(User.objects.order_by("owner_signup_id").values_list("user_id", flat=True)[:5])
    answered(*(remove(name) for name in gone))
    assert [len(removed) for _, removed, _ in record_pages()][:2] == [3, 2]
    services, problems = reconcile("--heal")
    assert problems == ""
    assert [found(report) for report in services.values()] == [[("removed", name) for name in sorted(gone)]] * 2
    assert rows(ChatUser) == rows(Customer) == records()


def test_a_pending_change_or_removal_is_no_finding_unless_it_is_stalled():
    save_everywhere("kim", "lee", "park", "choi")
    waiting = [change("kim", user_name="Other"), remove("lee")]
    stalled = [change("park", is_active=False), remove("choi")]
    ids = [row.id for row in stalled]
    EventTransaction.objects.filter(id__in=ids).update(stalled_at=datetime.now(UTC), next_due_at=None)
    services, problems = reconcile()
    for report in services.values():
        assert (found(report), report["onTheWay"]) == ([("different", "park"), ("removed", "choi")], len(waiting))
    assert "4 can be healed" in problems
    services, problems = reconcile("--heal")
    assert problems == ""
    assert [report["healed"] for report in services.values()] == [4, 4]
    assert rows(ChatUser) == rows(Customer) == records()


def restored_from_backup() -> tuple[UUID, UUID, UUID]:
    """Participants have applied a change and a removal that auth, restored from a backup, no longer knows. Return the
    owners of the changed, the removed and an unchanged account."""
    kim, lee, park = save_everywhere("kim", "lee", "park")
    for model in (ChatUser, Customer):
        model.objects.filter(owner_signup_id=kim).update(user_name="Changed after the backup", version=3)
        write_tombstones(model, [(lee, 2)])
    return kim, lee, park


def test_rows_newer_than_a_restored_auths_records_are_reported_and_left_alone():
    restored_from_backup()
    before = records(), rows(ChatUser)
    for arguments in ((), ("--heal",)):
        services, problems = reconcile(*arguments)
        for report in services.values():
            assert found(report) == [("newer", "kim"), ("revived", "lee")]
        assert "2 copies are newer than auth's record, and 2 records are of accounts that were removed" in problems
        assert "--heal --auth-restored" in problems
    assert (records(), rows(ChatUser)) == before


def test_a_restored_auth_removes_removed_accounts_again_and_its_records_replace_newer_copies():
    kim, lee, park = restored_from_backup()
    services, problems = reconcile("--heal", "--auth-restored")
    assert problems == ""
    # Several services have newer rows; auth is repaired at the first such finding.
    assert sum(report["counts"]["newer"] for report in services.values()) == 1
    assert sum(report["counts"]["revived"] for report in services.values()) == 1
    assert {*User.objects.values_list("owner_signup_id", flat=True)} == {kim, park}
    assert RemovedAccount.objects.get().owner_signup_id == lee
    sent = {row.kind: row for row in EventTransaction.objects.exclude(kind=Kind.SIGNUP)}
    assert (sent["change"].owner_signup_id, sent["change"].record_version) == (kim, 4)
    assert sent["removal"].owner_signup_id == lee
    answered(*sent.values())
    services, problems = reconcile("--heal")
    assert [found(report) for report in services.values()] == [[("different", "kim")]] * 2
    assert (problems, rows(ChatUser), rows(Customer)) == ("", records(), records())


def test_an_account_that_changed_after_its_page_was_read_is_not_treated_as_restored():
    [kim] = save_everywhere("kim")
    ChatUser.objects.update(version=2)
    original = Reconciliation._take

    def take(run: Reconciliation, answer: Any) -> None:
        publish_again(User.objects.get(owner_signup_id=kim), above=1)
        original(run, answer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Reconciliation, "_take", take)
        services, _ = reconcile("--service=chat", "--heal", "--auth-restored")
    assert services["chat"]["counts"] == NOTHING
    assert User.objects.get().version == 2


def test_auth_restored_without_heal_is_refused():
    with pytest.raises(CommandError, match="needs --heal"):
        call_command("reconcile", "--auth-restored")


def test_users_who_exchanged_their_user_ids_and_addresses_are_healed_with_their_versions():
    save_everywhere("kim", "lee")
    changes = [
        change("kim", user_id="moment", email="moment@example.org"),
        change("lee", user_id="kim", email="kim@example.org"),
        change("moment", user_id="lee", email="lee@example.org"),
    ]
    answered(*changes)
    services, problems = reconcile("--heal")
    assert problems == ""
    assert [found(report) for report in services.values()] == [[("different", "kim"), ("different", "lee")]] * 2
    assert rows(ChatUser) == rows(Customer) == records()
    assert {row[-2] for row in rows(ChatUser)} == {2, 3}


def test_a_deactivation_in_auth_is_healed_everywhere_and_a_services_own_deactivation_stays():
    save_everywhere("kim", "lee")
    answered(change("kim", is_active=False))
    ChatUser.objects.filter(user_id="lee").update(is_active=False)
    services, problems = reconcile("--heal")
    assert problems == ""
    [finding] = services["chat"]["findings"]
    assert (finding["userId"], set(finding["fields"])) == ("kim", {"active", "version"})
    told = ChatUser.objects.values_list("user_id", "is_account_active", "is_active")
    assert set(told) == {("kim", False, True), ("lee", True, False)}


def test_with_the_service_option_no_other_service_is_asked():
    save_everywhere("kim")
    ChatUser.objects.all().delete()
    Customer.objects.all().delete()
    services, problems = reconcile("--heal", "--service", "chat")
    assert (list(services), problems) == (["chat"], "")
    assert rows(ChatUser) == records()
    assert rows(Customer) == set()


def test_a_participant_that_does_not_answer_is_reported(settings):
    settings.SIGNUP_SERVICES = ["auth", "chat", "nobody"]
    save_everywhere("kim")
    out = StringIO()
    with pytest.raises(CommandError, match=r"nobody did not answer within 1 s.*consume_events nobody") as raised:
        call_command("reconcile", "--timeout=1", stdout=out)
    assert "chat did not" not in str(raised.value)
    assert out.getvalue().splitlines()[1].split() == ["chat", *"000000000"]


def test_an_outage_of_kafka_is_reported(settings, monkeypatch):
    monkeypatch.setattr("eventbus.topics.ANSWERS_WITHIN", 0.2)
    settings.KAFKA_BOOTSTRAP_SERVERS = "127.0.0.1:1"
    with pytest.raises(CommandError, match="Are Kafka and auth's database running"):
        call_command("reconcile", stdout=StringIO())


def test_the_terminal_shows_counts_and_the_users_concerned():
    save_everywhere("kim")
    ChatUser.objects.all().delete()
    ChatUser.objects.create(user_id="KIM", email="kim2@example.org")
    Customer.objects.update(role="ROLE_ADMIN")
    out = StringIO()
    with pytest.raises(CommandError, match="need a decision"):
        call_command("reconcile", "--heal", "--timeout=60", stdout=out)
    lines = out.getvalue().splitlines()
    assert lines[0].split() == [
        "missing",
        "different",
        "conflicting",
        "superfluous",
        "removed",
        "newer",
        "revived",
        "healed",
        "on",
        "the",
        "way",
    ]
    assert lines[1].split() == ["chat", *"001000000"]
    assert lines[2].split() == ["customer", *"010000010"]
    assert lines[3:] == [
        "chat: conflicting kim kim@example.org (against the row KIM kim2@example.org that an administrator created)",
        "customer: different   kim kim@example.org (in role; healed)",
    ]


def test_names_that_a_service_holds_cannot_control_the_terminal():
    ChatUser.objects.create(user_id="kim\x1b[2J", email="kim@example.org")
    out = StringIO()
    with pytest.raises(CommandError, match="need a decision"):
        call_command("reconcile", "--timeout=60", stdout=out)
    superfluous = r"superfluous kim\x1b[2J kim@example.org (created by an administrator)"
    assert out.getvalue().splitlines()[3:] == [f"chat: {superfluous}"]


@pytest.mark.parametrize("timeout", ["0", "-1", "nan", "soon"])
def test_an_invalid_timeout_is_refused(timeout):
    with pytest.raises(CommandError, match="is not a number of seconds above 0"):
        call_command("reconcile", f"--timeout={timeout}")
