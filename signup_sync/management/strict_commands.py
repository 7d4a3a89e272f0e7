"""Django's command line, but it runs no command if the settings are invalid."""

from django.core.management import ManagementUtility
from django.core.management.base import BaseCommand


class StrictCommands(ManagementUtility):
    """Django ignores errors in the settings for its own commands (`shell`, `dbshell`, …); this class doesn't."""

    def fetch_command(self, subcommand: str) -> BaseCommand:
        """Raise the settings' error if there is one."""
        if self.settings_exception is not None:
            raise self.settings_exception
        return super().fetch_command(subcommand)
