"""The values that administrators have set, in auth's database."""

from typing import Any, Final

from django.db import models
from django.utils.translation import gettext_lazy as _

# The only row.
ROW: Final = 1


class Overrides(models.Model):
    """The only row: overrides of defaults in settings.py, by name. `version` counts the changes."""

    values = models.JSONField(_("values"), default=dict, blank=True)
    version = models.PositiveIntegerField(_("version"), default=0)

    class Meta:
        verbose_name = _("live settings")
        verbose_name_plural = _("live settings")

    def __str__(self) -> str:
        return str(_("Live settings"))

    @classmethod
    def read(cls) -> dict[str, Any]:
        """Return the overrides; empty if nothing has ever been set."""
        values: dict[str, Any] | None = cls.objects.filter(pk=ROW).values_list("values", flat=True).first()
        return values or {}
