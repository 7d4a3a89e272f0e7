"""The instances page: every running process of every role."""

from collections import Counter
from http import HTTPStatus

import redis
from django.conf import settings
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, pgettext_lazy

from eventbus.models import Instance as InstancesPage
from runtime.admin_toolkit.page_admin import PageAdmin
from runtime.light_wording import SIGNS
from runtime.processes.instances import CONSUMER, GONE_AFTER, REMEMBERED, RunningInstance, Standing, read_instances

WORDS = {
    Standing.STARTING: pgettext_lazy("a process is", "starting"),
    Standing.IN_ROTATION: pgettext_lazy("a process is", "in rotation"),
    Standing.STUCK: pgettext_lazy("a process is", "stuck"),
    Standing.DRAINING: pgettext_lazy("a process is", "draining"),
    Standing.GONE: pgettext_lazy("a process is", "gone"),
}
# The CSS class that gives the colour, and the sign; WORDS has the text.
COLOURS = {
    Standing.STARTING: ("pending", SIGNS["PENDING"]),
    Standing.IN_ROTATION: ("success", SIGNS["SUCCESS"]),
    Standing.STUCK: ("fail", SIGNS["FAIL"]),
    Standing.DRAINING: ("pending", "↓"),
    Standing.GONE: ("fail", SIGNS["FAIL"]),
}
HINTS = {
    Standing.STUCK: gettext_lazy("Its main loop has not run for 30 s. See its log, and restart it."),
    Standing.GONE: gettext_lazy("It stopped without notice: it was killed, or it cannot reach Redis. See its log."),
}


# Names of the roles as processes register them; a consumer's name also contains its service.
ROLES = {
    "web": gettext_lazy("web"),
    "relay": gettext_lazy("relay"),
    "collector of dead letters": gettext_lazy("collector of dead letters"),
}


def words_of(role: str) -> str:
    """Return the role's name in the reader's language."""
    if role.startswith(CONSUMER):
        return _("consumer of %(service)s") % {"service": role.removeprefix(CONSUMER)}
    return str(ROLES.get(role, role))


def expected_roles() -> list[str]:
    """Return the registered names of the roles that this installation needs."""
    consumers = [f"{CONSUMER}{name}" for name in (*settings.EVENT_CONSUMERS, *settings.EVENT_READERS)]
    web, *others = ROLES
    return [web, *consumers, *others]


@admin.register(InstancesPage)
class InstancesAdmin(PageAdmin):
    def page(self, request: HttpRequest) -> HttpResponse:
        try:
            instances = read_instances()
        except (redis.RedisError, OSError) as error:
            away, status = {"problem": str(error)}, HTTPStatus.SERVICE_UNAVAILABLE
            return self.render(request, "administration/redis_away.html", _("Instances"), away, status=status)
        counts = Counter(each.standing for each in instances)
        at_work = {each.status.role for each in instances if each.standing is not Standing.GONE}
        context = {
            "instances": [_row(each) for each in instances],
            "counts": [(counts[standing], word) for standing, word in WORDS.items() if counts[standing]],
            "absent": [words_of(role) for role in expected_roles() if role not in at_work],
            "gone_after": int(GONE_AFTER),
            "remembered": REMEMBERED // 60,
        }
        return self.render(request, "administration/instances.html", _("Instances"), context)


def _row(seen: RunningInstance) -> dict[str, object]:
    colour, sign = COLOURS[seen.standing]
    return {
        "status": seen.status,
        "role": words_of(seen.status.role),
        "light": colour,
        "sign": sign,
        "word": WORDS[seen.standing],
        "hint": HINTS.get(seen.standing, ""),
        "beat_age": seen.beat_age,
    }
