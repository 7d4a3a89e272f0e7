"""Owns users and sign-ups: the API, its streams, the projection, the relay, replay, login and account pages."""
