"""The wording of exported records on the page."""

import pytest
from django.utils import timezone, translation

from authsvc.accounts.export.record_wording import LABELS, record_in_words
from participant import export
from participant.models import ParticipantUser
from scimsvc.models import ScimAccount

MORNING = ("2026-11-27T04:26:29+00:00", "2026-11-27 04:26:29.103654+00:00", "2026-11-27T04:26:29Z")


def test_labels_and_values_are_in_the_readers_language():
    record = {
        "kind": "signUp", "role": "ROLE_ADMIN", "changed": "email userName", "isAccountActive": True, "staff": False,
        "closes": None, "lastAnswer": "", "version": 3,
    }  # fmt: skip
    assert record_in_words(record) == [
        ("Kind", "Sign-up"), ("Role", "Administrator"), ("Changed", "email address, name"), ("Account active", "Yes"),
        ("Staff", "No"), ("Closes", "none"), ("Last answer", "none"), ("Version", "3"),
    ]  # fmt: skip
    with translation.override("ko"):
        assert record_in_words(record) == [
            ("종류", "가입"), ("역할", "관리자"), ("변경된 항목", "이메일 주소, 이름"), ("계정 활성", "예"),
            ("직원", "아니요"), ("닫히는 시각", "없음"), ("마지막 응답", "없음"), ("버전", "3"),
        ]  # fmt: skip


@pytest.mark.parametrize("time", MORNING)
def test_times_of_all_services_look_alike_in_the_readers_zone_and_language(time: str):
    with timezone.override("Asia/Seoul"):
        assert record_in_words({"createdAt": time}) == [("Created", "Nov. 27, 2026, 1:26 p.m.")]
        with translation.override("ko"):
            assert record_in_words({"createdAt": time}) == [("만든 시각", "2026년 11월 27일 1:26 오후")]


def test_a_field_of_another_service_keeps_its_own_name():
    record = {"spitzName": "Mina", "seenAt": MORNING[0], "isVip": False, "role": "guest", "changed": 3, "punkte": 1.5}
    assert record_in_words(record) == [
        ("spitzName", "Mina"), ("seenAt", "Nov. 27, 2026, 4:26 a.m."), ("isVip", "No"), ("Role", "guest"),
        ("Changed", "3"), ("punkte", "1.5"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text", ["2026-13-99T25:00:00+00:00", "9999-12-31T23:59:59Z", "20261127", "2026-11-27", "1999-01-01 10:00:00"]
)
def test_any_other_text_is_shown_as_it_is(text: str):
    with timezone.override("Asia/Seoul"):
        assert record_in_words({"userName": text}) == [("Name", text)]


def test_every_field_of_the_products_own_participants_has_a_label():
    names = {field.name for field in [*ParticipantUser._meta.local_fields, *ScimAccount._meta.concrete_fields]}
    exported = {export._camel(name) for name in names - export._TECHNICAL}
    assert exported - LABELS.keys() == set()
