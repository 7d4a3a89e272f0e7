#!/usr/bin/env python
"""The project's command line. `python manage.py help` lists the commands."""

import sys

if __name__ == "__main__":
    try:
        from signup_sync.management.command_line import main

        code = main(sys.argv)
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)
