"""URLs of the contracts under /docs/."""

from django.urls import path

from signup_sync.front.contracts import pages

app_name = "docs"
urlpatterns = [
    path("", pages.index, name="index"),
    path("api/", pages.api_page, name="api"),
    path("events/", pages.events_page, name="events"),
    path("schemas/<str:name>", pages.schema_file, name="schema"),
    path("<str:name>", pages.yaml_file, name="file"),
]
