"""Sign a person up with the generated client and wait for the lights; then send an invalid form.

    python example.py http://127.0.0.1:8000 mina.k mina@example.org

Prints the last state of the sign-up and the problem of the invalid form, each as a line of JSON.
"""

import json
import sys
import time

from signup_sync_client import AuthenticatedClient, Client
from signup_sync_client.api.sign_ups import read_sign_up, sign_up
from signup_sync_client.models import NewUser, Problem, SignupState


def main(base_url: str, user_id: str, email: str) -> None:
    client = Client(base_url)
    form = NewUser(user_id=user_id, user_pw="correct horse battery", email=email, user_name="Mina Kim")
    accepted = sign_up.sync_detailed(client=client, body=form)
    state = accepted.parsed
    assert isinstance(state, SignupState), state
    ticket = AuthenticatedClient(
        base_url, token=accepted.headers["Signup-Ticket"], prefix="", auth_header_name="Signup-Ticket"
    )
    while not state.complete:
        time.sleep(0.2)
        read = read_sign_up.sync(state.signup_id, client=ticket)
        assert isinstance(read, SignupState), read
        state = read
    print(json.dumps(state.to_dict()))

    form.email = "nowhere"
    problem = sign_up.sync(client=client, body=form)
    assert isinstance(problem, Problem)
    print(json.dumps({"status": problem.status, "pointers": [each.pointer for each in problem.errors or []]}))


if __name__ == "__main__":
    main(*sys.argv[1:])
