"""A request for a new password takes the same time whether or not an account has the address, and whatever the mail
server does; the link leads to the public address. These tests call a separate web process without a browser."""

import random
import re
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from statistics import median

import pytest
from scipy.stats import ks_2samp

from tests.client import sign_up
from tests.conftest import Person, new_person
from tests.security.mail_servers import mail_server, silent_mail_server
from tests.servers import free_port
from tests.servers.process import LOOPBACK
from tests.stack import RoleProcess, Stack
from tests.waiting import eventually

pytestmark = [pytest.mark.alone, pytest.mark.needs("application")]

PUBLIC_URL = "https://signup.example.org"
QUEUE = 320
SAMPLES = 150
# The mail server's delay in seconds, by which requests for known addresses used to take longer.
AWAY = 0.15
# One in a hundred pairs of samples of the same distribution differs more; three such pairs in a row occur once in a
# million.
ALIKE, ROUNDS = 0.01, 3


@dataclass
class Web:
    """A web process that mails through `smtp_port`, and a client of its pages."""

    role: RoleProcess
    smtp_port: int
    person: Person

    @contextmanager
    def client(self) -> Iterator["Client"]:
        with closing(HTTPConnection(LOOPBACK, self.role.port, timeout=30)) as connection:
            yield Client(connection)

    def waiting(self) -> int:
        with closing(HTTPConnection(LOOPBACK, self.role.port, timeout=30)) as connection:
            connection.request("GET", "/metrics")
            [count] = re.findall(
                r"^signup_mails_waiting (\S+)$", connection.getresponse().read().decode(), re.MULTILINE
            )
        return int(float(count))

    def threads(self) -> int:
        return len(list(Path(f"/proc/{self.role.pid}/task").iterdir()))


class Client:
    def __init__(self, connection: HTTPConnection) -> None:
        self._connection = connection
        connection.request("GET", "/password/")
        response = connection.getresponse()
        page = response.read().decode()
        self._cookie = (response.getheader("Set-Cookie") or "").partition(";")[0]
        # That of the language switch or that of the page's own form.
        self._token, *_ = re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', page)

    def ask(self, email: str, **headers: str) -> float:
        """Seconds until the answer, which is the same for every address."""
        body = f"csrfmiddlewaretoken={self._token}&email={email}"
        kind = {"Content-Type": "application/x-www-form-urlencoded", "Cookie": self._cookie}
        began = time.perf_counter()
        self._connection.request("POST", "/password/", body=body, headers=kind | headers)
        response = self._connection.getresponse()
        response.read()
        took = time.perf_counter() - began
        assert (response.status, response.getheader("Location")) == (302, "/password/sent/")
        return took


@pytest.fixture(scope="module")
def web(stack: Stack) -> Iterator[Web]:
    person, smtp_port, port = new_person(), free_port(), free_port()
    sign_up(stack, person.form)
    role = stack.add_web(
        "web-mail", port, EMAIL_URL=f"smtp://{LOOPBACK}:{smtp_port}", EMAIL_TIMEOUT="1", PUBLIC_URL=PUBLIC_URL,
        ALLOWED_HOSTS=f"{LOOPBACK},gateway", MAIL_QUEUE_LIMIT=str(QUEUE), RATE_LIMIT_CONFIRM="0",
    )  # fmt: skip
    role.start()
    yield Web(role, smtp_port, person)
    role.kill()
    del stack.roles["web-mail"]


@pytest.mark.parametrize("host", [None, "gateway", f"{LOOPBACK}:9999"])
def test_the_link_leads_to_the_public_address(web: Web, host: str | None):
    headers = {"X-Forwarded-Host": "evil.example"} | ({"Host": host} if host else {})
    with mail_server(web.smtp_port) as inbox, web.client() as client:
        client.ask(web.person.email, **headers)
        eventually(lambda: inbox.mails)
    [link] = re.findall(r"https?://\S+", inbox.text_of())
    assert link.startswith(f"{PUBLIC_URL}/password/")
    assert web.person.user_id not in inbox.text_of()
    assert web.person.user_name not in inbox.text_of()


def alike(web: Web) -> float:
    """The probability that the times of known and unknown addresses have one distribution."""
    known, unknown = [], []
    with web.client() as client:
        for is_known in random.sample([True, False], counts=[SAMPLES, SAMPLES], k=2 * SAMPLES):
            address = web.person.email if is_known else new_person().email
            (known if is_known else unknown).append(client.ask(address))
    assert median(known) < AWAY, "the answer waits for the mail server"
    return float(ks_2samp(known, unknown).pvalue)


def test_known_and_unknown_addresses_take_the_same_time(web: Web):
    with mail_server(web.smtp_port, delay=AWAY) as inbox, web.client() as client:
        client.ask(web.person.email)
        eventually(lambda: inbox.mails)
        assert any(alike(web) > ALIKE for _ in range(ROUNDS))


def test_a_mail_server_that_never_answers_slows_nothing_and_all_mails_are_sent_when_it_is_back(web: Web):
    with web.client() as client:
        with mail_server(web.smtp_port):
            eventually(lambda: web.waiting() == 0)
            usual = median(client.ask(web.person.email) for _ in range(20))
            eventually(lambda: web.waiting() == 0)
        with silent_mail_server(web.smtp_port):
            client.ask(web.person.email)
            threads = web.threads()
            times = [
                client.ask(web.person.email if number % 20 == 0 else new_person().email) for number in range(QUEUE)
            ]
            assert median(times) < 3 * usual
            # A few threads come and go with requests.
            eventually(lambda: web.threads() <= threads + 3)
            # Requests beyond the bound are logged, and answered like the others.
            client.ask(new_person().email)
            client.ask(new_person().email)
            assert web.waiting() <= QUEUE
            eventually(lambda: f"dropped a mail: the queue is full ({QUEUE} waiting)" in web.role.log())
    with mail_server(web.smtp_port) as inbox:
        eventually(lambda: web.waiting() == 0)
    assert set(inbox.recipients) == {web.person.email}
    assert len(inbox.mails) >= QUEUE // 20
    mail_lines = [line for line in web.role.log().splitlines() if "authsvc.mail" in line]
    assert mail_lines
    assert web.person.email not in "".join(mail_lines)
