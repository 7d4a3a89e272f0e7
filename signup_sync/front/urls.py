"""The pages of the front."""

from django.urls import path

from signup_sync.front import views

app_name = "front"
urlpatterns = [
    path("", views.sign_up, name="signup"),
    path("confirm/<str:token>/", views.confirm, name="confirm"),
    path("status/<str:ticket>/", views.status, name="status"),
]
