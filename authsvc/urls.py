"""Login, logout, the account page, and passwords: Django's own views in the site's design."""

from django.contrib.auth import views as django_views
from django.urls import path
from django.utils.translation import gettext_lazy as _

from authsvc.accounts import views
from authsvc.accounts.closing import views as closing
from authsvc.accounts.export.views import ExportView
from authsvc.accounts.logout import LogoutView
from authsvc.accounts.profile.views import AccountView, AddressView
from authsvc.accounts.two_factor import login as second_step
from authsvc.accounts.two_factor import views as two_factor
from authsvc.api import field_check

urlpatterns = [
    path("login/", views.LoginView.as_view(), name="login"),
    path("login/code/", second_step.CodeView.as_view(), name="login_code"),
    path("logout/", LogoutView.as_view(), name="logout"),
    path("account/", AccountView.as_view(), name="account"),
    path("account/address/<str:token>/", AddressView.as_view(), name="address"),
    path("account/check/", field_check.check_fields, name="check"),
    path("account/password/", views.PasswordChangeView.as_view(), name="password_change"),
    path("account/close/", closing.CloseView.as_view(), name="close"),
    path("account/data/", ExportView.as_view(), name="export"),
    path("account/keep/", closing.KeepView.as_view(), name="keep"),
    path("account/two-factor/", two_factor.TwoFactorView.as_view(), name="two_factor"),
    path("account/two-factor/setup/", two_factor.SetupView.as_view(), name="two_factor_setup"),
    path("account/two-factor/codes/", two_factor.RecoveryCodesView.as_view(), name="two_factor_codes"),
    path("account/two-factor/off/", two_factor.TurnOffView.as_view(), name="two_factor_off"),
    path("password/", views.PasswordResetView.as_view(), name="password_reset"),
    path(
        "password/sent/",
        django_views.PasswordResetDoneView.as_view(
            template_name="authsvc/password_sent.html", title=_("Check your email")
        ),
        name="password_reset_done",
    ),
    path("password/<uidb64>/<token>/", views.PasswordResetConfirmView.as_view(), name="password_reset_confirm"),
]
