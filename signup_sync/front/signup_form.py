"""The sign-up form. Its view holds neither a thread nor a database connection while auth works."""

import logging
from dataclasses import replace
from http import HTTPStatus
from uuid import UUID

from django.core.exceptions import NON_FIELD_ERRORS
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.middleware.csrf import get_token
from django.shortcuts import render
from django.urls import reverse
from django.views.csrf import csrf_failure
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods
from structlog.contextvars import bind_contextvars

from livesettings.values import live
from runtime.language import in_other_language
from runtime.security_log import address_of
from runtime.tracing import trace_id_in
from signup_sync.front import wording
from signup_sync.front.forms import TYPED, SignUpForm
from signup_sync.front.gateway import CLOSED, GatewayError, SubmittedUser
from signup_sync.front.lights_page import Page, is_script, render_with_lights
from signup_sync.front.page_messages import page_message, state_message
from signup_sync.front.relay_pool import relays
from signup_sync.front.states import LightsState
from signup_sync.front.tickets import (
    TicketError,
    browser_of,
    new_browser,
    new_signup_id,
    remember_browser,
    remember_user_id,
    signup_id_of,
    signup_ids_of,
    successor_of,
)

logger = logging.getLogger(__name__)


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
@sensitive_post_parameters("userPw", "userPw2")
async def sign_up(request: HttpRequest) -> HttpResponse:
    """Show the form (GET), or sign up (POST). A POST returns when auth has given its verdict: with a redirect to the
    lights, or with the form and its errors. A script (`Accept: application/json`) gets either as JSON."""
    known = browser_of(request.COOKIES)
    browser = known or new_browser()
    if request.method == "POST" and "language" in request.POST:
        response = in_other_language(request, lambda: _form_as_typed(request, browser))
    elif request.method == "POST":
        response = await _submit(request, browser)
    elif not live.SIGNUP_OPEN:
        response = render(request, "front/not_open.html", {"text": wording.NOTICES["closed"]})
    else:
        response = _form_page(request, SignUpForm(), Page.of(new_signup_id(), browser))
    if known is None:
        remember_browser(response, browser)
    return response


async def _submit(request: HttpRequest, browser: str) -> HttpResponse:
    if is_script(request) and request.POST.get("ticket") and not _is_ticket_of(request, browser):
        return _renewed(request, browser)
    form = SignUpForm(request.POST)
    # The form keeps its first sign-up id: the search for an unused id starts there, whatever content is posted.
    first = Page.of(_posted_signup_id(request, browser), browser)
    if not form.is_valid():
        return _form_again(request, form, first, None, HTTPStatus.UNPROCESSABLE_ENTITY)
    user = replace(form.new_user, address=address_of(request))
    signup_id, answer = await _post(first.signup_id, user, browser)
    _note_browsers_trace(request, signup_id)
    page = Page.of(signup_id, browser)
    if isinstance(answer, GatewayError):
        form.show_problem(answer)
        response = _form_again(request, form, first, page, _status_of(answer))
        if answer.retry_after is not None:
            response["Retry-After"] = str(answer.retry_after)
        return response
    if answer.refusal is not None:
        form.show_refusal(answer.refusal)
        # The next post will have other content, and thus another sign-up.
        expected = Page.of(successor_of(signup_id, browser), browser)
        return _form_again(request, form, first, expected, HTTPStatus.UNPROCESSABLE_ENTITY)
    taken: HttpResponse
    if is_script(request):
        taken = JsonResponse(
            page.for_script() | {"formTicket": first.ticket, "state": state_message(page.signup_id, answer)}
        )
    else:
        taken = HttpResponseRedirect(page.status_path)
        taken.status_code = HTTPStatus.SEE_OTHER
    remember_user_id(taken, user.user_id)
    return taken


def handle_outdated_token(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Handle an outdated CSRF token. The cause may be a login in another tab, or two first visits at once, so the
    input of our own sign-up form is kept: a script gets a new token and posts again; without a script, the form is
    shown as it was typed. A form from another site is never shown, because that site could fill in anything."""
    if request.path != reverse("front:signup") or not _is_own_page(request):
        return csrf_failure(request, reason)
    logger.info("a form has an outdated token: %s", reason)
    known = browser_of(request.COOKIES)
    browser = known or new_browser()
    if is_script(request):
        response: HttpResponse = _renewed(request, browser)
    else:
        response = _form_as_typed(request, browser, status=HTTPStatus.FORBIDDEN)
    if known is None:
        remember_browser(response, browser)
    return response


def _is_own_page(request: HttpRequest) -> bool:
    """Whether the form came from this origin, according to headers that a page can't forge."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    return request.headers.get("Origin") == f"{request.scheme}://{request.get_host()}"


def _renewed(request: HttpRequest, browser: str) -> JsonResponse:
    """Return a CSRF token and a sign-up for this browser, with which the script posts the same form again."""
    page = Page.of(_posted_signup_id(request, browser), browser)
    renewed = page.for_script() | {"formTicket": page.ticket, "csrfToken": get_token(request)}
    return JsonResponse(renewed, status=HTTPStatus.FORBIDDEN)


def _form_as_typed(request: HttpRequest, browser: str, status: HTTPStatus = HTTPStatus.OK) -> HttpResponse:
    """Show the form as it was typed, without validating it."""
    typed = {name: request.POST.get(name, "") for name in TYPED}
    page = Page.of(_posted_signup_id(request, browser), browser)
    return _form_page(request, SignUpForm(initial=typed), page, status=status)


def _is_ticket_of(request: HttpRequest, browser: str) -> bool:
    try:
        signup_id_of(request.POST["ticket"], browser)
    except TicketError:
        return False
    return True


def _posted_signup_id(request: HttpRequest, browser: str) -> UUID:
    """Return the form's sign-up id, however old its ticket, or a new one if the form is not this browser's."""
    try:
        return signup_id_of(request.POST.get("ticket", ""), browser)
    except TicketError:
        return new_signup_id()


async def _post(first: UUID, user: SubmittedUser, browser: str) -> tuple[UUID, LightsState | GatewayError]:
    """Sign up with the first of the form's ids that was not used for other content. Return the id and auth's answer."""
    for signup_id in signup_ids_of(first, browser):
        answer = await _post_as(signup_id, user)
        if not isinstance(answer, GatewayError) or answer.status != HTTPStatus.CONFLICT:
            break
    return signup_id, answer


async def _post_as(signup_id: UUID, user: SubmittedUser) -> LightsState | GatewayError:
    bind_contextvars(signup_id=str(signup_id))
    try:
        return await relays().sign_up(signup_id, user)
    except GatewayError as problem:
        logger.info("sign-up %s was not accepted: %s", signup_id, problem)
        return problem


def _note_browsers_trace(request: HttpRequest, signup_id: UUID) -> None:
    """Log the trace that the page's script sent, the trace of the sign-up on the page. Changed content becomes another
    sign-up; this line connects the two."""
    trace_id = trace_id_in(request.headers.get("traceparent", "").encode())
    if trace_id not in (None, signup_id.hex):
        logger.info("the browser's trace is %s", trace_id)


def _status_of(problem: GatewayError) -> HTTPStatus:
    """Map a problem of the gateway to the status of the front's response."""
    if problem.errors:
        return HTTPStatus.UNPROCESSABLE_ENTITY
    if problem.kind == CLOSED:
        return HTTPStatus.FORBIDDEN
    if problem.status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.CONFLICT):
        return HTTPStatus(problem.status)
    return HTTPStatus.SERVICE_UNAVAILABLE if problem.may_pass else HTTPStatus.BAD_GATEWAY


def _form_again(
    request: HttpRequest, form: SignUpForm, first: Page, page: Page | None, status: HTTPStatus
) -> HttpResponse:
    """Return the form of the sign-up `first` with its errors. A script also gets `page`, if given: the sign-up to show
    with its next post."""
    if not is_script(request):
        return _form_page(request, form, first, status=status)
    errors = {"" if name == NON_FIELD_ERRORS else name: list(texts) for name, texts in form.errors.items()}
    expected = page.for_script() if page else {}
    return JsonResponse(expected | {"formTicket": first.ticket, "errors": errors}, status=status)


def _form_page(request: HttpRequest, form: SignUpForm, page: Page, status: HTTPStatus = HTTPStatus.OK) -> HttpResponse:
    context = {"form": form, "is_outdated": status == HTTPStatus.FORBIDDEN and not form.is_bound}
    message = page_message(page.signup_id, "pending", None, version=0)
    return render_with_lights(request, "front/signup.html", page, message, context=context, status=status)
