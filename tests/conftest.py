"""What tests of every level share."""

import secrets
from dataclasses import dataclass

import pytest

from tests.plugin import backing_key
from tests.servers import KafkaServer, PostgresqlServer


@dataclass(frozen=True)
class Person:
    """Somebody whom no service knows yet."""

    user_id: str
    email: str
    user_name: str
    password: str

    @property
    def form(self) -> dict[str, str]:
        """What `POST /user` takes."""
        return {"userId": self.user_id, "userPw": self.password, "email": self.email, "userName": self.user_name}


def new_person() -> Person:
    unique = secrets.token_hex(6)
    return Person(f"user-{unique}", f"{unique}@example.org", f"Name {unique}", secrets.token_urlsafe(12))


@pytest.fixture
def person() -> Person:
    return new_person()


@pytest.fixture(scope="session")
def postgresql(request: pytest.FixtureRequest) -> PostgresqlServer:
    """The one that runs for the whole run: don't take it away, start one of your own for that."""
    return request.config.stash[backing_key].servers["postgresql"]


@pytest.fixture(scope="session")
def kafka(request: pytest.FixtureRequest) -> KafkaServer:
    """The one that runs for the whole run: don't take it away, start one of your own for that."""
    return request.config.stash[backing_key].servers["kafka"]
