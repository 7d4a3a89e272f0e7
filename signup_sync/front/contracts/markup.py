"""The little Markdown that the descriptions in docs/ use, as HTML: paragraphs, lists, code and emphasis."""

import re
from typing import Final

from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe

_CODE: Final = re.compile(r"`([^`]+)`")
_STRONG: Final = re.compile(r"\*\*([^*]+)\*\*")


def inline(text: str) -> SafeString:
    """Return one line of text with its code and emphasis; everything else is escaped."""
    marked = _STRONG.sub(r"<strong>\1</strong>", _CODE.sub(r"<code>\1</code>", str(escape(text))))
    return mark_safe(marked)  # noqa: S308 - escaped above


def blocks(text: str) -> SafeString:
    """Return the paragraphs and lists of a text. A list item begins with `- `, and its next lines are indented."""
    html = []
    for block in re.split(r"\n\s*\n", text.strip()):
        items = re.split(r"(?:^|\n)- ", block)
        if items[0].strip():
            html.append(f"<p>{inline(' '.join(items[0].split()))}</p>")
        if items[1:]:
            html.append("<ul>" + "".join(f"<li>{inline(' '.join(item.split()))}</li>" for item in items[1:]) + "</ul>")
    return mark_safe("".join(html))  # noqa: S308 - escaped by inline()
