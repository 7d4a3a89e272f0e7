"""Pages for administrators and operators: a sign-up's timeline, replays, filters and traffic."""
