"""A Django form and nothing more, to measure what posting one costs: settings, URLs and view in one module.

It runs as the web process does, with its server, Django's own middleware and its CSRF check (DJANGO_SETTINGS_MODULE=
bench.bare_form): what is left out is what the product does with the form.
"""

from django import forms
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.middleware.csrf import get_token
from django.urls import path
from django.utils.html import format_html

from signup_sync.settings import *  # noqa: F403 - that is how Django's settings are derived

ROOT_URLCONF = __name__
# What `startproject` puts there, and the page's languages.
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
PATH = "/bare/"


class BareForm(forms.Form):
    userId = forms.CharField(max_length=32)  # noqa: N815 - as the product's form has it
    userName = forms.CharField(max_length=100)  # noqa: N815
    email = forms.EmailField()
    userPw = forms.CharField(max_length=128)  # noqa: N815
    userPw2 = forms.CharField(max_length=128)  # noqa: N815


async def bare_form(request: HttpRequest) -> HttpResponse:
    if request.method == "POST":
        form = BareForm(request.POST)
        return JsonResponse({"errors": form.errors}, status=200 if form.is_valid() else 422)
    field = '<input type="hidden" name="csrfmiddlewaretoken" value="{}">'
    return HttpResponse(format_html(field, get_token(request)))


urlpatterns = [path(PATH.removeprefix("/"), bare_form)]
