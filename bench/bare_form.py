"""A bare Django form, to measure the cost of posting one. This module has its settings, URLs and view.

It runs like the web process, with the same server, Django's own middleware and CSRF check (`manage.py serve --settings
bench.bare_form`), but without the product's handling of the form.
"""

from django import forms
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.middleware.csrf import get_token
from django.urls import path
from django.utils.html import format_html

from signup_sync.settings import *  # noqa: F403 - the usual way to derive Django settings

ROOT_URLCONF = __name__
# The middleware of `startproject`, and that for languages.
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
    userId = forms.CharField(max_length=32)  # noqa: N815 - like the product's form
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
