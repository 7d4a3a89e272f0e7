#!/usr/bin/env python
"""The project's command line. `python manage.py help` lists the commands."""

import sys

from signup_sync.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
