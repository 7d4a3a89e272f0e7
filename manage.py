#!/usr/bin/env python
"""The project's command line: `python manage.py help` lists what it can do."""

import os
import sys

from runtime.untrusted import refusal_of_arguments


def main() -> None:
    if refusal := refusal_of_arguments(sys.argv[1:]):
        sys.stderr.write(f"{refusal}\n")
        sys.exit(2)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "signup_sync.settings")
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line

    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as problem:
        # Its line names the setting and what is wrong with it; the way there is nobody's concern.
        sys.exit(f"{problem}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
