"""The topics page of the admin: a read-only view of Kafka's topics, messages and consumer groups."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Final

from confluent_kafka import KafkaException
from django import forms
from django.conf import settings
from django.contrib import admin
from django.core.exceptions import ImproperlyConfigured
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import URLPattern, path
from django.utils.decorators import method_decorator
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_safe

from eventbus.inspection.groups import Group, can_list_groups, read_groups
from eventbus.inspection.inspector import InspectedTopic, Inspector, NoSuchTopicError, Reading
from eventbus.messages import Incoming, moment_of
from eventbus.models import Topic as TopicsPage
from eventbus.models import readable, readable_json
from runtime.admin_toolkit.page_admin import PageAdmin
from runtime.times import to_the_millisecond

# Characters shown of a value, and of its one-line preview.
VALUE_SHOWN: Final = 20_000
BEGINNING_SHOWN: Final = 120
# Largest value, in bytes, that is shown as indented JSON. Of a longer one the beginning is shown unformatted.
INDENTED_MAX: Final = 64 * 1024
# Messages per page: the choices, and the default.
LIMITS: Final = (10, 50, 100)
LIMIT: Final = 50


class MessagesForm(forms.Form):
    """Choice of a topic's messages: from an offset on, or by key and time. By default the newest ones, newest first."""

    partition = forms.TypedChoiceField(label=_("Partition"), required=False, coerce=int, empty_value=None)
    offset = forms.IntegerField(label=_("From offset"), required=False, min_value=0, max_value=2**63 - 1)
    key = forms.CharField(label=_("Key"), required=False, strip=False, max_length=1000)
    since = forms.DateTimeField(
        label=_("From time"),
        required=False,
        widget=forms.DateTimeInput(attrs={"type": "datetime-local", "step": 1}, format="%Y-%m-%dT%H:%M:%S"),
    )
    limit = forms.TypedChoiceField(
        label=_("Limit"), required=False, coerce=int, choices=[(each, str(each)) for each in LIMITS]
    )

    def __init__(self, data: Any, *, topic: InspectedTopic) -> None:
        super().__init__({"limit": LIMIT} | data.dict(), use_required_attribute=False)
        numbers = [(each.number, str(each.number)) for each in topic.partitions]
        self.fields["partition"].choices = [("", _("any")), *numbers]  # type: ignore[attr-defined]

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if cleaned.get("offset") is not None:
            if cleaned.get("partition") is None:
                self.add_error("partition", _("Choose the partition of the offset."))
            if cleaned.get("key") or cleaned.get("since"):
                self.add_error("offset", _("An offset cannot be combined with a key or a time."))
        return cleaned

    def read(self, inspector: Inspector, topic: str) -> Reading:
        """Read the messages that the form asks for. Raises KafkaException."""
        wish = self.cleaned_data
        where = {"partition": wish["partition"], "limit": wish["limit"] or LIMIT}
        if wish["offset"] is not None:
            return inspector.from_offset(topic, offset=wish["offset"], **where)
        if wish["key"]:
            return inspector.messages_about(topic, key=wish["key"], since=wish["since"], **where)
        if wish["since"]:
            return inspector.from_time(topic, since=wish["since"], **where)
        newest = inspector.newest(topic, **where)
        return replace(newest, messages=newest.messages[::-1])


@dataclass(frozen=True)
class ShownMessage:
    """A message as the page shows it. The template escapes all of it."""

    message: Incoming

    @property
    def at(self) -> str:
        """The timestamp to the millisecond, in TIME_ZONE; the bare number if it is no valid date, empty if missing."""
        milliseconds = self.message.timestamp_ms
        if milliseconds is None:
            return ""
        if (at := moment_of(milliseconds)) is None:
            return f"{milliseconds} ms"
        return to_the_millisecond(at)

    @property
    def key(self) -> str | None:
        return None if self.message.key is None else readable(self.message.key)

    @property
    def headers(self) -> list[tuple[str, str | None]]:
        return [(name, None if value is None else readable(value)) for name, value in self.message.headers]

    @property
    def beginning(self) -> str:
        return " ".join(readable((self.message.value or b"")[: 4 * BEGINNING_SHOWN]).split())[:BEGINNING_SHOWN]

    @property
    def value(self) -> str | None:
        """Indented JSON, or the value as it is; only the beginning of a long value."""
        if self.message.value is None:
            return None
        if self.size > INDENTED_MAX:
            return readable(self.message.value[: 4 * VALUE_SHOWN])[:VALUE_SHOWN]
        return readable_json(self.message.value)[:VALUE_SHOWN]

    @property
    def size(self) -> int:
        return len(self.message.value or b"")

    @property
    def is_cut(self) -> bool:
        return len(self.value or "") >= VALUE_SHOWN


@admin.register(TopicsPage)
class TopicsAdmin(PageAdmin):
    def page(self, request: HttpRequest) -> HttpResponse:
        def show(inspector: Inspector) -> HttpResponse:
            topics = inspector.topics()
            groups = read_groups(topics)
            context = {"topics": topics, "groups": groups, "can_list_groups": can_list_groups()}
            return self.render(request, "eventbus/topics.html", gettext("Topics"), context)

        return self._looking_into_kafka(request, show)

    def more_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.topic_view)
        return [path("<str:name>/", view, name="eventbus_topic_messages")]

    @method_decorator(require_safe)
    def topic_view(self, request: HttpRequest, name: str) -> HttpResponse:
        """Show one topic: its partitions, the groups that read it, and the chosen messages."""
        self.require_permission(request)

        def show(inspector: Inspector) -> HttpResponse:
            topic = inspector.topic(name)
            form = MessagesForm(request.GET, topic=topic)
            reading = form.read(inspector, name) if form.is_valid() else None
            context = {
                "topic": topic,
                "form": form,
                "reading": reading,
                "messages_shown": [ShownMessage(each) for each in reading.messages] if reading else [],
                "next_offset": _next_offset(form, reading),
                "readers": _readers(read_groups([topic]), topic),
                "can_list_groups": can_list_groups(),
                "time_zone": settings.TIME_ZONE,
            }
            status = HTTPStatus.OK if reading else HTTPStatus.BAD_REQUEST
            return self.render(request, "eventbus/topic.html", name, context, status=status)

        return self._looking_into_kafka(request, show)

    def _looking_into_kafka(self, request: HttpRequest, show: Callable[[Inspector], HttpResponse]) -> HttpResponse:
        """Return the response of `show`, or if Kafka doesn't answer a page that says so and what to do."""
        try:
            with Inspector() as inspector:
                return show(inspector)
        except NoSuchTopicError as error:
            raise Http404(gettext("There is no such topic or partition: %s") % error) from error
        except ImproperlyConfigured as error:
            problem = str(error)
        except TimeoutError:
            problem = gettext("no answer in time")
        except KafkaException as error:
            problem = error.args[0].str()
        context = {"problem": problem, "kafka": settings.KAFKA_BOOTSTRAP_SERVERS}
        away = HTTPStatus.SERVICE_UNAVAILABLE
        return self.render(request, "eventbus/kafka_away.html", gettext("Topics"), context, status=away)


def _next_offset(form: MessagesForm, reading: Reading | None) -> int | None:
    """Return the offset of the next page if one partition is read from an offset on and has more; otherwise None."""
    if reading is None or reading.is_whole or not reading.messages or form.cleaned_data["offset"] is None:
        return None
    return reading.messages[-1].offset + 1


def _readers(groups: list[Group], topic: InspectedTopic) -> list[Group]:
    """Return the groups that read this topic."""
    return [group for group in groups if any(each.topic == topic.name for each in group.progress)]
