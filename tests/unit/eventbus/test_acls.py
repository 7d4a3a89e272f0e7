"""The file with Kafka's rights; a cluster enforces them in tests/security/test_kafka_rights.py."""

from pathlib import Path

import pytest

from eventbus.acls import read_rights


@pytest.mark.parametrize("tables", ['["{participant}"]\n[viewer]\n', '[viewer]\n["{participant}"]\n'])
def test_two_tables_of_the_same_user_are_refused(settings, tmp_path: Path, tables: str):
    settings.PARTICIPANTS = ("chat", "viewer")
    (tmp_path / "acls.toml").write_text(tables)
    with pytest.raises(ValueError, match="viewer"):
        read_rights(tmp_path / "acls.toml")


def test_every_participant_has_the_rights_of_the_common_table(settings, tmp_path: Path):
    settings.PARTICIPANTS = ("chat", "mail")
    (tmp_path / "acls.toml").write_text('["{participant}"]\njoin = ["{participant}"]\n[viewer]\n')
    rights = read_rights(tmp_path / "acls.toml")
    assert {user: each.join for user, each in rights.items()} == {"chat": ["chat"], "mail": ["mail"], "viewer": []}
