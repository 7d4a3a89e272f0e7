"""The pages under /docs/: the contracts for developers who use the API or read the events, and the files themselves."""

from functools import cache
from typing import Final

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.template.loader import render_to_string
from django.utils.safestring import SafeString
from django.utils.translation import get_language
from django.views.decorators.http import require_safe

from signup_sync.front.contracts import asyncapi_page, openapi_page
from signup_sync.front.contracts.contract_files import ASYNCAPI, OPENAPI, document, file_text, schema_names
from signup_sync.front.contracts.markup import blocks

# The media type of YAML is defined by RFC 9512, that of JSON Schema by its draft 2020-12.
YAML_TYPE: Final = "application/yaml"
SCHEMA_TYPE: Final = "application/schema+json"


@require_safe
async def index(request: HttpRequest) -> HttpResponse:
    """Link the pages and all files."""
    return render(request, "front/docs/index.html", {"documents": [OPENAPI, ASYNCAPI], "schemas": schema_names()})


@require_safe
async def api_page(request: HttpRequest) -> HttpResponse:
    return _page(request, OPENAPI)


@require_safe
async def events_page(request: HttpRequest) -> HttpResponse:
    return _page(request, ASYNCAPI)


def _page(request: HttpRequest, file: str) -> HttpResponse:
    info, body = document(file)["info"], _body(file, get_language() or "en")
    context = {"file": file, "info": info, "introduction": blocks(info["description"]), "body": body}
    return render(request, "front/docs/document.html", context)


@cache
def _body(file: str, language: str) -> SafeString:
    """Return a document as HTML. It is rendered once per language, because that takes tens of milliseconds."""
    if file == OPENAPI:
        operations = list(openapi_page.operations())
        context = {"operations": operations, "schemas": openapi_page.schemas(operations)}
        return render_to_string("front/docs/_api.html", context)
    return render_to_string("front/docs/_events.html", {"channels": list(asyncapi_page.channels())})


@require_safe
async def yaml_file(request: HttpRequest, name: str) -> HttpResponse:
    """Send openapi.yaml or asyncapi.yaml; their references are the paths of schema_file()."""
    if name not in (OPENAPI, ASYNCAPI):
        raise Http404
    return HttpResponse(file_text(name), content_type=YAML_TYPE)


@require_safe
async def schema_file(request: HttpRequest, name: str) -> HttpResponse:
    if name not in schema_names():
        raise Http404
    return HttpResponse(file_text(f"schemas/{name}"), content_type=SCHEMA_TYPE)
