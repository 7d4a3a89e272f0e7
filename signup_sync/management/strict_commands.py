"""Django's command line, which runs no command while the settings can't be read."""

from django.core.management import ManagementUtility
from django.core.management.base import BaseCommand


class StrictCommands(ManagementUtility):
    """Django keeps the settings' error, and runs its own commands (`shell`, `dbshell`, `test`, …) without settings."""

    def fetch_command(self, subcommand: str) -> BaseCommand:
        """Raises the error of the settings, if they have one."""
        if self.settings_exception is not None:
            raise self.settings_exception
        return super().fetch_command(subcommand)
