"""The smallest changes that would start a waiting application at once, each tried out on a copy of the state.

A change is only proposed when the scheduler's own code, run on a copy to which it was made, starts the application in
that very round; and a smaller one of its kind would not. What waits for quota is never told to add nodes, what waits
for nodes never to raise a limit. Where only several changes together would do, nothing is proposed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import StrEnum

import msgspec
import numpy as np

from muster.cluster.breakdown import Breakdown
from muster.cluster.capacity import capacities
from muster.cluster.constraints import PodConstraints, Taint, Term, Toleration, pool_of
from muster.cluster.nodes import ZONE_LABELS, Node
from muster.cluster.resources import PODS, Resources
from muster.scheduling import gangs, quota, turns
from muster.scheduling.limits import LimitChange, raise_limits
from muster.scheduling.model import Application, ApplicationKey, Phase, PodShape
from muster.scheduling.records import Gang
from muster.scheduling.state import State
from muster.scheduling.trial import on_trial, resize

HOSTNAME = "kubernetes.io/hostname"
INSTANCE_TYPES = ("node.kubernetes.io/instance-type", "beta.kubernetes.io/instance-type")
MOST_NODES = 1000
"""More are not proposed."""
_KINDS_SHOWN, _KINDS_TRIED = 2, 3
_CONSTRAINTS_TRIED = 4
_TRIES = 10
"""Trials of one search, at most."""


class Change(StrEnum):
    FEWER_EXECUTORS = "FewerExecutors"
    CONSTRAINT = "Constraint"
    MORE_NODES = "MoreNodes"
    HIGHER_LIMITS = "HigherLimits"
    AHEAD = "Ahead"


class MoreNodes(msgspec.Struct, frozen=True, rename="camel"):
    count: int
    like: str
    """A node that is there, and of the same kind."""
    instance_type: str
    """"" when its nodes carry no such label."""
    pool: str
    zone: str
    """Only where a packer keeps gangs within one zone, else ""."""
    allocatable: dict[str, str]


class ConstraintChange(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One of these is taken out of, or added to, what driver and executors ask of their nodes."""

    without_label: str = ""
    """``key=value`` of the node selector."""
    without_requirement: str = ""
    """Of the required node affinity."""
    toleration: str = ""
    """For this taint."""
    zones: tuple[str, ...] = ()
    """Where it would go then."""


class Proposal(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A change that starts the application now; what changes is in the one field that its kind needs."""

    kind: Change
    text: str
    """For people, after "It would start now "."""
    executors: int | None = None
    """As its minimum, instead of what it asks for."""
    constraint: ConstraintChange | None = None
    nodes: MoreNodes | None = None
    limits: tuple[LimitChange, ...] = ()
    ahead: ApplicationKey = ""
    """Who would have to be out of its way: started elsewhere, or withdrawn."""


def proposals(state: State, gang: Gang, nodes: Breakdown | None) -> tuple[Proposal, ...]:
    """What would start it; nothing for one that does not wait, or may not wait where it does.

    ``nodes``: those of its executors, by what keeps them away.
    """
    if not state.synced or not gangs.is_ready(gang) or gang.key not in state.queues:
        return ()
    return tuple(_search(state, gang, nodes))


def _search(state: State, gang: Gang, nodes: Breakdown | None) -> Iterator[Proposal]:
    if quota.configured(state, gang) is not None:
        return
    holder = quota.closed_by(state, gang)
    if holder is not None:
        yield from _without(state, gang, holder[1])
        return
    yield from _fewer(state, gang)
    if quota.refusal(state, gang) is not None:
        yield from _higher_limits(state, gang)
        return
    if nodes is not None:
        yield from _other_constraints(state, gang, nodes)
    blocker = state.blockers.get(gang.pool)
    if blocker is None or blocker.key == gang.key:
        yield from _more_nodes(state, gang)
    else:  # new nodes would be for those ahead first: what they need is told to them
        yield from _without(state, gang, blocker.key)


# Fewer executors


def _fewer(state: State, gang: Gang) -> Iterator[Proposal]:
    application = _application(gang)
    vector = state.table.vector(application.executor.requests)
    fit = state.table.total_capacity(vector, application.executor.constraints)
    most = min(application.minimum - 1, fit + gang.placed_in_gang)
    allowed = _largest(1, most, lambda count: quota.refusal_with(state, gang, count) is None)
    count = _largest(1, allowed, lambda count: _starts_as(state, gang, _sized(application, count)))
    if count:
        yield Proposal(
            Change.FEWER_EXECUTORS, f"with {count} executor(s) instead of {application.minimum}", executors=count
        )


def _sized(application: Application, executors: int) -> Application:
    most = application.maximum
    most = executors if most == application.minimum else most
    return msgspec.structs.replace(application, minimum=executors, maximum=most)


def _starts_as(state: State, gang: Gang, application: Application) -> bool:
    with on_trial(state) as trial:
        resize(trial, application)
        return turns.would_start(trial, gang.key)


# Other constraints


def _other_constraints(state: State, gang: Gang, nodes: Breakdown) -> Iterator[Proposal]:
    application = _application(gang)
    candidates = list(_candidates(application.executor.constraints, nodes))
    for _, change, what in sorted(candidates, key=lambda one: -one[0])[:_CONSTRAINTS_TRIED]:
        changed = _changed(state, gang, application, what)
        with on_trial(state) as trial:
            resize(trial, changed)
            if not turns.would_start(trial, gang.key):
                continue
            zones = _zones_of(trial, trial.gangs[gang.key])
        yield Proposal(
            Change.CONSTRAINT, _in_words(change, zones), constraint=msgspec.structs.replace(change, zones=zones)
        )


_Rewrite = Callable[[PodConstraints], PodConstraints]


def _candidates(constraints: PodConstraints, nodes: Breakdown) -> Iterator[tuple[int, ConstraintChange, _Rewrite]]:
    """How many nodes something rules out, and what would be without it."""
    for label, count in nodes.selector_labels:
        yield count, ConstraintChange(without_label=label), lambda c, label=label: _without_label(c, label)  # type: ignore[misc]
    for text, count in nodes.affinity_requirements:
        yield count, ConstraintChange(without_requirement=text), lambda c, text=text: _without_requirement(c, text)  # type: ignore[misc]
    for taint, count in nodes.taints:
        yield count, ConstraintChange(toleration=taint), lambda c, taint=taint: _tolerating(c, taint)  # type: ignore[misc]


def _without_label(constraints: PodConstraints, label: str) -> PodConstraints:
    kept = tuple([(key, value) for key, value in constraints.node_selector if f"{key}={value}" != label])
    return msgspec.structs.replace(constraints, node_selector=kept)


def _without_requirement(constraints: PodConstraints, text: str) -> PodConstraints:
    terms = [
        Term(
            tuple([one for one in term.expressions if str(one) != text]),
            tuple([one for one in term.fields if str(one) != text]),
        )
        for term in constraints.terms or ()
    ]
    anywhere = any(not (term.expressions or term.fields) for term in terms)
    return msgspec.structs.replace(constraints, terms=None if anywhere else tuple(terms))


def _tolerating(constraints: PodConstraints, text: str) -> PodConstraints:
    named, _, effect = text.rpartition(":")
    key, _, value = named.partition("=")
    taint = Taint(key, effect, value)
    added = Toleration(taint.key, "Equal" if taint.value else "Exists", taint.value, taint.effect)
    return msgspec.structs.replace(constraints, tolerations=(*constraints.tolerations, added))


def _changed(state: State, gang: Gang, application: Application, what: _Rewrite) -> Application:
    """Executors and driver alike; that may be another node pool."""
    executor = _rewritten(application.executor, what)
    driver = gangs.driver_shape(gang)
    pool = pool_of(executor.constraints, state.config.pool_label) if application.pool else ""
    return msgspec.structs.replace(
        application, executor=executor, driver=None if driver is None else _rewritten(driver, what), pool=pool
    )


def _rewritten(shape: PodShape, what: _Rewrite) -> PodShape:
    return PodShape(shape.requests, what(shape.constraints))


def _zones_of(trial: State, gang: Gang) -> tuple[str, ...]:
    rows = {trial.table.index[node] for node in (*gang.free, gang.driver_slot) if node}
    return tuple(sorted({trial.table.zone_names[trial.table.zones[row]] for row in rows}))


def _in_words(change: ConstraintChange, zones: tuple[str, ...]) -> str:
    if change.toleration:
        return f"if driver and executors tolerated the taint {change.toleration}"
    what = change.without_label or change.without_requirement
    by = "node selector" if change.without_label else "node affinity"
    key = what.partition("=")[0] if change.without_label else what.partition(" ")[0]
    where = f", in zone {', '.join(zones)}" if key in ZONE_LABELS else ""
    return f"without {what} in its {by}{where}"


# More nodes


def _more_nodes(state: State, gang: Gang) -> Iterator[Proposal]:
    shown = 0
    for least, kind in list(_kinds(state, gang))[:_KINDS_TRIED]:
        count = _smallest(least, MOST_NODES, lambda count, kind=kind: _starts_with(state, gang, kind, count))  # type: ignore[misc]
        if count is None:
            continue
        shown += 1
        nodes = _described(state, kind, count)
        size = ", ".join(f"{name} {amount}" for name, amount in nodes.allocatable.items())
        named = f"{nodes.instance_type} node(s)" if nodes.instance_type else f"node(s) like {nodes.like}"
        zone = f" in zone {nodes.zone}" if nodes.zone else ""
        yield Proposal(Change.MORE_NODES, f"with {count} more {named} ({size}){zone}", nodes=nodes)
        if shown == _KINDS_SHOWN:
            return


def _kinds(state: State, gang: Gang) -> list[tuple[int, Node]]:
    """Kinds of nodes that it could use: how many of them it lacks at least, and one of each; the least of all first."""
    table, application = state.table, _application(gang)
    shape = application.executor if application.minimum or gang.client else gangs.driver_shape(gang)
    assert shape is not None
    vector = table.vector(shape.requests)
    lacking = max(1, application.minimum - gang.placed_in_gang) - table.total_capacity(vector, shape.constraints)
    usable = table.matching(shape.constraints) & table.labels.tolerated(shape.constraints, np.arange(len(table.names)))
    rows = usable.nonzero()[0]
    each = capacities(table.allocatable.take(rows, axis=1), vector)
    rows, each = rows[each > 0], each[each > 0]
    if not len(rows):
        return []
    columns = [table.allocatable.take(rows, axis=1)]
    typed = next((column for label in INSTANCE_TYPES if (column := table.labels.label(label)) is not None), None)
    if typed is not None:
        codes = typed.codes.take(rows)
        columns = [np.where(codes > 0, codes, -rows)[None, :]]  # those of a type are alike, however little they differ
    if state.packer.single_zone:
        columns.append(table.zones.take(rows)[None, :])
    _, first = np.unique(np.concatenate(columns), axis=1, return_index=True)
    total = np.maximum(1, table.allocatable[:2].sum(axis=1))
    found = []
    for position in first.tolist():
        row, holds = int(rows[position]), int(each[position])
        least = max(1, -(-lacking // holds))
        share = float((least * table.allocatable[:2, row] / total).max())
        node = table.nodes[row]
        assert node is not None
        found.append((share, node.name, least, node))
    return [(least, node) for _, _, least, node in sorted(found, key=lambda one: one[:2])]


def _starts_with(state: State, gang: Gang, kind: Node, count: int) -> bool:
    with on_trial(state, more_nodes=True) as trial:
        for number in range(count):
            name = f"{kind.name}.new-{number}"
            labels = {**kind.labels, HOSTNAME: name} if HOSTNAME in kind.labels else kind.labels
            node = Node(name, kind.allocatable, labels, kind.taints)
            trial.table.upsert(node)
        return turns.would_start(trial, gang.key)


def _described(state: State, kind: Node, count: int) -> MoreNodes:
    allocatable = Resources.of(**{name: amount for name, amount in kind.allocatable.amounts if name != PODS})
    return MoreNodes(
        count,
        kind.name,
        next((kind.labels[label] for label in INSTANCE_TYPES if label in kind.labels), ""),
        kind.labels.get(state.config.pool_label, ""),
        kind.zone if state.packer.single_zone else "",
        dict(allocatable.quantities()),
    )


# Higher limits


def _higher_limits(state: State, gang: Gang) -> Iterator[Proposal]:
    used, driver = quota.claim_of(gang, gang.minimum)
    raised = raise_limits(state.queues.usage, _application(gang), used, driver, state.total)
    if raised is None:
        return
    limits, changes = raised
    with on_trial(state, limits=limits) as trial:
        if not turns.would_start(trial, gang.key):
            return
    text = " and ".join(f"{change.who()} {change.current} → {change.needed}" for change in changes)
    yield Proposal(Change.HIGHER_LIMITS, f"with {text}", limits=changes)


# Out of its way


def _without(state: State, gang: Gang, ahead: ApplicationKey) -> Iterator[Proposal]:
    """Not for running applications that get back what they lost: they will not go."""
    other = state.gangs.get(ahead)
    if other is None or other.phase is not Phase.PENDING:
        return
    with on_trial(state) as trial:
        gone = trial.gangs[ahead]
        trial.leave_queue(gone)
        gone.phase = Phase.FINISHED
        if not turns.would_start(trial, gang.key):
            return
    yield Proposal(
        Change.AHEAD, f"as soon as {ahead} is out of its way: started on other room, or withdrawn", ahead=ahead
    )


# Searches


def _largest(low: int, high: int, works: Callable[[int], bool]) -> int:
    """The largest number that works, of those for which all smaller ones do; 0 when ``low`` does not."""
    if high < low:
        return 0
    if works(high):
        return high
    high -= 1
    found = 0
    while low <= high:
        middle = (low + high + 1) // 2
        if works(middle):
            found, low = middle, middle + 1
        else:
            high = middle - 1
    return found


def _smallest(least: int, most: int, works: Callable[[int], bool]) -> int | None:
    """The smallest number that works: further and further from the least, then by halving."""
    short, step, tries = least - 1, 1, 0
    while True:
        number = short + step
        if number > most or tries == _TRIES:
            return None
        tries += 1
        if works(number):
            break
        short, step = number, 2 * step
    while number - short > 1:
        middle = (short + number) // 2
        short, number = (short, middle) if works(middle) else (middle, number)
    return number


def _application(gang: Gang) -> Application:
    assert gang.application is not None
    return gang.application
