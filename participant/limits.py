"""Maximum lengths of a user's texts, in characters. No limit is stricter than auth's."""

from typing import Final

USER_ID_MAX: Final = 64
# Case folding turns one character into at most three.
USER_ID_KEY_MAX: Final = 3 * USER_ID_MAX
EMAIL_MAX: Final = 254
USER_NAME_MAX: Final = 150
ROLE_MAX: Final = 32
# Largest number of a PositiveIntegerField.
VERSION_MAX: Final = 2**31 - 1
