"""The edits of files that name every participant."""

from itertools import groupby
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.utils.translation import gettext, override

from runtime.light_wording import name_of
from signup_sync.management.commands import startservice
from signup_sync.new_service import shared_files
from signup_sync.new_service.catalogue import CATALOGUE, add_texts, remove_texts
from signup_sync.new_service.files import own_files
from signup_sync.new_service.names import Names, RefusedNameError, check_name
from signup_sync.new_service.shared_files import SharedFileError, add, remove
from signup_sync.participants import PARTICIPANTS
from tests.servers.process import ROOT

LIKE = PARTICIPANTS[-1]
BEFORE = """\
# customer is described here
x-customer: &customer postgres://customer:${CUSTOMER_PASSWORD}@db/customer
services:
  customer:
    command: consume_events customer
    mem_limit: 1g

  scim:
    env:
      - name: CUSTOMER_PASSWORD
        value: secret
      - name: SCIM_PASSWORD
    customers: 3
"""
AFTER = """\
# customer is described here
x-customer: &customer postgres://customer:${CUSTOMER_PASSWORD}@db/customer
x-mail: &mail postgres://mail:${MAIL_PASSWORD}@db/mail
services:
  customer:
    command: consume_events customer
    mem_limit: 1g

  mail:
    command: consume_events mail
    mem_limit: 1g

  scim:
    env:
      - name: CUSTOMER_PASSWORD
        value: secret
      - name: MAIL_PASSWORD
        value: secret
      - name: SCIM_PASSWORD
    customers: 3
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one shared file, file.yaml."""
    for name in ("_ADD", "_REMOVE"):
        monkeypatch.setattr(shared_files, name, {"file.yaml": getattr(shared_files, name)["compose.yaml"]})
    (tmp_path / "file.yaml").write_text(BEFORE)
    return tmp_path


def test_lines_and_blocks_are_copied_but_neither_prose_nor_other_words(project: Path):
    assert add(project, "mail", like="customer") == {"file.yaml": AFTER}


def test_only_copies_are_removed_and_a_block_even_if_it_was_changed(project: Path):
    other = "  # the mail server\n  EMAIL_URL: mail://\n  MAIL_QUEUE: 3\n"
    (project / "file.yaml").write_text(AFTER.replace("consume_events mail\n    mem_limit: 1g", "mine") + other)
    assert remove(project, "mail", like="customer") == {"file.yaml": BEFORE + other}


@pytest.mark.parametrize(("service", "said"), [("scim", "scim:"), ("kafka", "x-kafka")])
def test_a_name_that_the_file_uses_already_is_refused(project: Path, service: str, said: str):
    (project / "file.yaml").write_text(BEFORE + "x-kafka: &kafka postgres://kafka:${KAFKA_PASSWORD}@db/kafka\n")
    with pytest.raises(SharedFileError, match=f"file.yaml has “{said}"):
        add(project, service, like="customer")


def test_a_file_without_the_existing_participant_is_named(project: Path):
    (project / "file.yaml").write_text("nothing\n")
    with pytest.raises(SharedFileError, match=r"file\.yaml has no line about customer"):
        add(project, "mail", like="customer")


# Unlikely names, so that the test also passes in a project with further services.
@pytest.mark.parametrize("service", ["mailers", "eventbus", "participants"])
def test_a_service_added_to_the_project_can_be_removed_again(service: str):
    """The names have other meanings in some of the files, but none that conflicts."""
    added = add(ROOT, service, like=LIKE)
    before = {path: (ROOT / path).read_text() for path in added}
    assert len(added) > 8
    for path, text in added.items():
        assert shared_files._REMOVE[path](text, service, LIKE) == before[path], path
        assert text.lower().count(service) > before[path].lower().count(service), path


@pytest.mark.parametrize("service", ["aa", "o2" * 10, "zz"])
def test_generated_code_has_sorted_imports_and_no_long_lines_whatever_the_name(service: str):
    for path, text in own_files(ROOT, Names(service), like=LIKE).items():
        if path.endswith(".py"):
            lines = text.splitlines()
            assert [line for line in lines if len(line) > 120] == [], path
            runs = [[*run] for key, run in groupby(lines, key=lambda line: line.startswith("from ")) if key]
            assert runs == [sorted(run) for run in runs], path


@pytest.mark.parametrize("service", ["mailers", "home", "sidebar"])
def test_the_catalogue_is_as_it_was_after_a_removal(service: str):
    """The product has a text “Home” of its own, and Django has “Sidebar”."""
    before = (ROOT / CATALOGUE).read_text()
    added = add_texts(before, service, "메일")
    assert f'msgctxt "service"\nmsgid "{service.capitalize()}"\nmsgstr "메일"\n' in added
    assert remove_texts(added.replace('msgstr "메일 서비스"', 'msgstr "우편"'), service) == before
    with pytest.raises(RefusedNameError, match=f"“{service.capitalize()}” is in .* already"):
        add_texts(added, service, "메일")


def test_a_service_is_not_translated_like_an_equal_word_of_the_product_or_of_django():
    with override("ko"):
        assert [gettext(word) for word in ("Home", "Sidebar")] == ["홈", "사이드바"]
        assert [name_of(service) for service in ("home", "sidebar", "chat")] == ["Home", "Sidebar", "채팅"]


@pytest.mark.parametrize(
    "korean", ["", " 메일", "메일 ", '메"일', "메\\일", "메%일", "메\n일", "메\x0b일", "메\u2028일", "메\u200b일"]
)
def test_a_korean_name_that_cannot_stand_in_the_catalogue_is_refused_before_anything_is_written(
    korean: str, monkeypatch: pytest.MonkeyPatch
):
    written: list[Path] = []
    monkeypatch.setattr(startservice, "write_files", lambda root, texts: written.append(root))
    monkeypatch.setattr(startservice, "compile_catalogue", lambda root: True)
    monkeypatch.setattr(startservice, "make_migration", lambda root, names: None)
    with pytest.raises(CommandError, match="Can't add mailers"):
        call_command("startservice", "mailers", korean=korean)
    assert not written
    call_command("startservice", "mailers", korean="메일 2")
    assert written


@pytest.mark.parametrize(
    "service",
    [
        *("auth", "scim", "inspection", "no", "admin", LIKE),
        *("viewer", "participant", "gateway", "purge", "opensearch", "inside", "operators", "postgres", "localhost"),
        *("public", "template0", "template1", "user"),
        *("a", "m" * 21, "Mail", "mail-2", "ma_il", "2mail", "../x", "", "kım", "straẞe", "ſcim", "mail\n"),
    ],
)
def test_unsuitable_names_of_services_are_refused(service: str):
    with pytest.raises(RefusedNameError):
        check_name(service)


@pytest.mark.parametrize("service", ["mailers", "crmbox2", "class", "m" * 20])
def test_suitable_names_of_services_are_accepted(service: str):
    check_name(service)
