"""Auth owns users and sign-ups: the API, its streams, the projection, relay and replay, login and account pages."""
