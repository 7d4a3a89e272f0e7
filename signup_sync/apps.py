# The module and not the class: Django would take a class that stands here for this app's own.
from django.contrib.admin import apps


class AdministrationConfig(apps.AdminConfig):
    """Stands for django.contrib.admin in INSTALLED_APPS."""

    default = False
    default_site = "signup_sync.administration.Administration"
