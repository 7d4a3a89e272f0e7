"""The project's command line, as `python -m signup_sync` or, installed as a package, `signup-sync`."""

import sys


def main() -> int:
    try:
        from signup_sync.management import command_line

        return command_line.main(sys.argv)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
