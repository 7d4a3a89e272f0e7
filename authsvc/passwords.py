"""Hashing of passwords: argon2id at OWASP's parameters."""

from django.conf import settings
from django.contrib.auth.hashers import Argon2PasswordHasher


class Argon2idHasher(Argon2PasswordHasher):
    """Django's argon2id with the parameters of OWASP's password storage cheat sheet (19 MiB, t=2, p=1)."""

    memory_cost = settings.ARGON2_MEMORY_KIB
    time_cost = settings.ARGON2_TIME_COST
    parallelism = 1
