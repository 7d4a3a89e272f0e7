"""The life of a sign-up: registration, its event, the participants' answers, retries, replay and purge."""
