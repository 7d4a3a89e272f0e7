"""URLs of the contracts under /docs/."""

from django.urls import path

from signup_sync.front.contracts import views

app_name = "docs"
urlpatterns = [
    path("", views.index, name="index"),
    path("api/", views.api_page, name="api"),
    path("events/", views.events_page, name="events"),
    path("schemas/<str:name>", views.schema_file, name="schema"),
    path("<str:name>", views.yaml_file, name="file"),
]
