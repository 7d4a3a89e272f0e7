"""The report of a run: a table, the histories of the first faulty sign-ups, and the summary line."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from uuid import UUID

from tests.chaos.judge import WRONGS
from tests.chaos.noise import ANSWERS, LATER, REQUESTS
from tests.chaos.run import TOLD, Outcome


def report(outcome: Outcome) -> str:
    return "\n".join(["", *_table(outcome), *_stories(outcome), "", last_line(outcome)])


def last_line(outcome: Outcome) -> str:
    """Each offending sign-up counts once under each of its offences' names."""
    wrong = Counter(name for name, _ in {(each.wrong, each.signup_id or each.what) for each in outcome.offences})
    counts = " ".join(f"{name}={wrong[name]}" for name in WRONGS)
    return f"chaos: signups={outcome.signups} kills={outcome.counts['kill']} {counts}"


def _table(outcome: Outcome) -> Iterator[str]:
    stories, noise, counts = outcome.stories, outcome.noise, outcome.counts
    kinds = Counter(story.person.kind for story in stories)
    took = sorted(story.ended - story.began for story in stories if story.ended is not None)
    rows: list[tuple[str, object]] = [
        ("seed", outcome.seed),
        ("seconds", f"{outcome.seconds:.0f}"),
        ("seconds from the last fault until all was healed", f"{outcome.healed_after:.1f}"),
        *((f"sign-ups: {kind}", count) for kind, count in kinds.most_common()),
        ("faults: kill -9", counts["kill"]),
        ("faults: Redis FLUSHALL", counts["flush"]),
        ("faults: frozen past the session timeout", counts["freeze"]),
        ("faults: a second consumer joined and left", counts["join"]),
        ("roles that ended by themselves and were started again", dict(outcome.crashes) or 0),
        ("requests seen, and sent again by force", _pair(noise, REQUESTS)),
        ("answers seen, and sent again by force", _pair(noise, ANSWERS)),
        ("changes and removals seen, and sent again by force", _pairs(noise, LATER)),
        ("poisonous messages", outcome.poison),
        ("dead letters", sum(map(len, outcome.evidence.dead.values())) if outcome.evidence else 0),
        ("posts, and streams resumed", f"{sum(s.posts for s in stories)}, {sum(s.resumes for s in stories)}"),
        ("seconds to the end of the stream: p50, p95, p99, most", _percentiles(took)),
    ]
    width = max(len(name) for name, _ in rows)
    yield from (f"{name:<{width}}  {value}" for name, value in rows)


def _pair(noise: Counter[str], topic: str) -> str:
    return f"{noise[topic]}, {noise[f'{topic} again']}"


def _pairs(noise: Counter[str], topics: Sequence[str]) -> str:
    return f"{sum(noise[topic] for topic in topics)}, {sum(noise[f'{topic} again'] for topic in topics)}"


def _percentiles(values: Sequence[float]) -> str:
    if not values:
        return "none ended"
    return ", ".join(f"{values[min(len(values) - 1, int(len(values) * share))]:.2f}" for share in (0.5, 0.95, 0.99, 1))


def _stories(outcome: Outcome) -> Iterator[str]:
    """Everything known about the first offenders, and the number of the others."""
    by_signup: dict[UUID | None, list[str]] = {}
    for offence in outcome.offences:
        by_signup.setdefault(offence.signup_id, []).append(f"{offence.wrong}: {offence.what}")
    for signup_id, whats in islice(by_signup.items(), TOLD):
        yield f"\n--- sign-up {signup_id}" if signup_id else "\n--- of no one sign-up"
        yield from whats[:20]
        yield from _seen(outcome, signup_id)
        yield from outcome.traffic.get(signup_id, []) if signup_id else []
    if by_signup:
        yield f"\n{len(by_signup)} offenders. seed {outcome.seed}; the logs are in {outcome.logs}"


def _seen(outcome: Outcome, signup_id: UUID | None) -> Iterator[str]:
    evidence = outcome.evidence
    if evidence is None or signup_id is None:
        return
    owners = {signup_id}
    for row in evidence.signups:
        if row.id == signup_id:
            owners.add(row.owner)
            yield f"auth's sign-up: {row}"
    if story := evidence.stories.get(signup_id):
        yield f"{story.person}"
        yield from (f"{at:8.2f} s  {what}" for at, what in story.log)
    for name, rows in {"auth": evidence.users, **evidence.copies}.items():
        yield from (f"{name}: {row}" for row in rows if row.owner in owners or row.made_for == signup_id)
