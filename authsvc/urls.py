"""Login, logout and the account page."""

from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path

from authsvc import views

urlpatterns = [
    path("login/", LoginView.as_view(template_name="authsvc/login.html"), name="login"),
    path("logout/", LogoutView.as_view(), name="logout"),
    path("account/", views.AccountView.as_view(), name="account"),
]
