"""URLs of the front's pages."""

from django.urls import path

from signup_sync.front.confirmation_page import confirm_sign_up
from signup_sync.front.lights_page import status
from signup_sync.front.signup_form import sign_up

app_name = "front"
urlpatterns = [
    path("", sign_up, name="signup"),
    path("confirm/<str:token>/", confirm_sign_up, name="confirm"),
    path("status/<str:ticket>/", status, name="status"),
]
