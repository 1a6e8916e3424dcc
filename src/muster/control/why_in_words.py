"""An explanation as lines of text: one wording for everybody who shows it to people."""

from __future__ import annotations

from collections.abc import Iterator

from muster.cluster.breakdown import Breakdown
from muster.kube.timestamps import human_duration
from muster.scheduling.explaining import Ahead, Eta, Explanation, FutureStart, Quota

AHEAD_SHOWN = 5

_GROUPS = (
    ("not_ready", "not ready", ""),
    ("cordoned", "cordoned", ""),
    ("selector", "do not match its node selector", "selector_labels"),
    ("affinity", "do not match its node affinity", "affinity_requirements"),
    ("taint", "have a taint that it does not tolerate", "taints"),
    ("too_small", "are too small, even when empty", "too_small_in"),
    ("too_full", "are too full now", "too_full_in"),
    ("fit", "have room now", ""),
)


def in_words(explanation: Explanation, name: str, *, wide: bool = False) -> list[str]:
    """What is known, in the order in which it matters. ``wide``: more of those ahead, with their queues."""
    one = explanation
    lines = [f"{name}: {one.state}" + (f", {one.reason}" if one.reason else ""), f"  {one.sentence}"]
    if one.waits_for is None:
        return lines
    lines += ["", *_place(one, wide)]
    if one.quota is not None:
        lines += ["", *_quota(one.quota)]
    else:
        if one.minimum and one.position is not None:
            lines += ["", f"Of its {one.minimum} executors, {one.executors_fit_now} would fit now."]
        for who, nodes in (("driver", one.driver_nodes), ("executor", one.executor_nodes)):
            if nodes is not None and one.position is not None:
                lines += ["", f"Nodes for its {who}: {nodes.fit} of {nodes.nodes}", *_nodes(nodes)]
    coming = [*_coming(one)]
    if coming:
        lines += ["", *coming]
    if one.position is not None:
        lines += ["", *_proposals(one)]
    return lines


def _place(one: Explanation, wide: bool) -> Iterator[str]:
    if one.queue:
        yield f"Queue {' / '.join(one.queue)}, " + (
            f"node pool {one.pool}." if one.pool else "no node pool of its own."
        )
    if one.position is None:
        return
    pool = f"node pool {one.pool}" if one.pool else "those that name no node pool"
    yield f"Place {one.position} among all that wait in {pool}." + ("" if one.ahead else " Nobody is ahead.")
    shown = one.ahead if wide else one.ahead[:AHEAD_SHOWN]
    for other in shown:
        yield _ahead(other, wide)
    more = len(one.ahead) - len(shown) + one.ahead_more
    if more:
        yield f"  and {more} more"


def _ahead(other: Ahead, wide: bool) -> str:
    queue = f" in queue {other.queue}" if wide and other.queue else ""
    text = f"  behind {other.key}{queue}, {human_duration(other.age)} old: {other.why}"
    text += ", and must start first" if other.blocks else ""
    return text + (f" ({other.reason})" if other.reason else "")


def _quota(quota: Quota) -> Iterator[str]:
    yield "It waits for quota, not for nodes:"
    yield f"  {quota.message}"


def _nodes(nodes: Breakdown) -> list[str]:
    """One line per group that has nodes, with what is most responsible."""
    lines = []
    for group, words, details in _GROUPS:
        count = getattr(nodes, group)
        if count:
            responsible = ", ".join(
                f"{name} on {number}" for name, number in (getattr(nodes, details) if details else ())
            )
            lines.append(f"  {count:>6} {words}" + (f": {responsible}" if responsible else ""))
    return lines


def _coming(one: Explanation) -> Iterator[str]:
    if one.future is not None:
        yield _future(one.future, one.application, one.at)
    if one.called_back is not None:
        lenders = ", ".join(one.called_back.applications[:AHEAD_SHOWN])
        more = len(one.called_back.applications) - AHEAD_SHOWN
        yield f"Called back for it: {one.called_back.pods} pod(s) of {lenders}" + (
            f" and {more} more" if more > 0 else ""
        )
    if one.eta is not None:
        yield _eta(one.eta, one.at)


def _future(future: FutureStart, application: str, now: float) -> str:
    own = future.application == application
    if future.at is None:
        who = "it" if own else future.application
        return f"When {who} will start cannot be told: of too few that run an end is expected."
    who, soon = "It" if own else future.application, human_duration(max(0.0, future.at - now))
    return f"{who} starts in {soon} at the latest, if what runs ends as expected ({future.ends} expected end(s))."


def _eta(eta: Eta, now: float) -> str:
    known = f"from {eta.estimated} known run time(s)" + (f", {eta.unknown} unknown" if eta.unknown else "")
    error = f"; such estimates were off by {eta.error:.0%}" if eta.error is not None else ""
    if eta.expected is None:
        return f"When it starts cannot be told from earlier runs ({known})."
    text = f"It should start in about {human_duration(max(0.0, eta.expected - now))}"
    if eta.early is not None and eta.late is not None:
        text += f", between {human_duration(max(0.0, eta.early - now))} and {human_duration(max(0.0, eta.late - now))}"
    return f"{text} ({known}{error})."


def _proposals(one: Explanation) -> Iterator[str]:
    if not one.proposals:
        yield "No single change that was tried would start it now."
        return
    yield "It would start now"
    for proposal in one.proposals:
        yield f"  - {proposal.text}"
