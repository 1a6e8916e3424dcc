"""What is given back when an application that is entitled to room waits for it: a plan, with a reason for each pod.

Extras (executors above the minimum of their application) go first, of the queue that is furthest over its fair share;
of one queue, those that lose least. Whole applications go only where their queue's policy is ``applications``: those of
lower priority in the claimant's own queue, or of queues over their fair share. A plan makes the claimant fit or is
empty, and no victim of it can be spared.

Sources: YARN's ``ProportionalCapacityPreemptionPolicy`` (guarantees, a limit per round, whose excess goes first);
kube-scheduler's preemption (victims are reprieved one by one while the preemptor still fits).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Protocol

import msgspec

from muster.cluster.resources import CPU, Resources
from muster.queueing.config import Preemption


class ExecutorLoss(msgspec.Struct, frozen=True, gc=False):
    """What is lost when a pod goes."""

    core_seconds: float
    """Work that has to be done again, at most."""
    has_shuffle: bool | None = None
    """Whether it keeps shuffle data that others may read; ``None`` when nobody knows."""


def loss_by_age(seconds: float, requests: Resources) -> ExecutorLoss:
    """What is known without asking anybody: no pod can lose more than its cores have done since it got them."""
    return ExecutorLoss(max(0.0, seconds) * requests.get(CPU) / 1000)


class Candidate(msgspec.Struct, frozen=True):
    """A pod that holds room."""

    key: str
    """Identity, and the last tie-break."""
    node: str
    amounts: Resources
    loss: ExecutorLoss
    age: float
    """Seconds since it got its room."""
    grace: float
    """Seconds it is given to end."""
    profile: int = 0
    driver: bool = False
    helps: bool = True
    """Its room alone, or with that of others on its node, is of use to the claimant: only such extras are taken."""


class Room(msgspec.Struct, frozen=True):
    """What becomes free: ``count`` times ``amounts`` on one node."""

    application: str
    node: str
    amounts: Resources
    count: int = 1


class Holder(msgspec.Struct, frozen=True):
    """An application that holds room."""

    key: str
    queue: str
    pods: tuple[Candidate, ...]
    spare: tuple[tuple[int, int], ...] = ()
    """Executors above the minimum, as (resource profile, count): any of that profile may go, so many at most."""
    slots: tuple[Room, ...] = ()
    """Room kept for executors yet to come; free only when the whole application goes."""
    priority: int = 0
    seconds: float = 0.0
    """How long it has run."""


class Standing(msgspec.Struct, frozen=True):
    """Where a queue stands."""

    used: Resources
    fair_share: float
    """The part of the whole (0 to 1, of its dominant resource) that is due to it as things are."""
    guaranteed: Resources = Resources()
    parent: str = ""
    """"" below the root; parents have a standing too, if they have a guarantee."""
    preemption: Preemption = Preemption.EXTRAS
    min_runtime_seconds: float = 0.0


class Claimant(msgspec.Struct, frozen=True):
    """Who waits, and for how much in all."""

    key: str
    queue: str
    asked: Resources
    priority: int = 0


class Trial(Protocol):
    """Whether the claimant would fit if more were free; what is freed adds up until it is taken back."""

    def free(self, rooms: Sequence[Room]) -> None: ...

    def take_back(self, rooms: Sequence[Room]) -> None: ...

    def fits(self) -> bool:
        """Freeing more must never turn this from true to false."""


class Victim(msgspec.Struct, frozen=True):
    """One pod that goes."""

    pod: str
    application: str
    driver: bool
    whole: bool
    """Its whole application goes; otherwise it is an executor above the minimum."""
    grace: float
    core_seconds: float
    reason: str
    """One sentence."""


class PreemptionPlan(msgspec.Struct, frozen=True):
    """Either makes the claimant fit, or is empty and says why."""

    claimant: str
    victims: tuple[Victim, ...] = ()
    core_seconds: float = 0.0
    """Lost in all, at most."""
    reason: str = ""


class _Unit(msgspec.Struct, frozen=True):
    """What goes together: one extra, or a whole application."""

    holder: Holder
    pods: tuple[Candidate, ...]
    whole: bool
    share: float
    """What its queue held when it was chosen, of the whole."""

    @property
    def rooms(self) -> tuple[Room, ...]:
        pods = tuple([Room(self.holder.key, pod.node, pod.amounts) for pod in self.pods])
        return (*pods, *self.holder.slots) if self.whole else pods


def plan(
    claimant: Claimant,
    holders: Iterable[Holder],
    queues: Mapping[str, Standing],
    total: Resources,
    trial: Trial,
    *,
    round_limit: int = 1,
) -> PreemptionPlan:
    """Who gives back what, so that the claimant fits. ``trial`` is left as it was found.

    Args:
        holders: Everybody who could give room back, in any order.
        queues: The standing of every queue that is named, and of their parents.
        total: What the cluster has; shares are parts of it.
        round_limit: The most whole applications that go at once.
    """
    if trial.fits():
        return PreemptionPlan(claimant.key, reason="it fits without taking anything back")
    others = sorted((holder for holder in holders if holder.key != claimant.key), key=lambda holder: holder.key)
    chosen: list[_Unit] = []
    for line in (_cheapest_first, _node_by_node):
        chosen = _shortest_prefix(_extras(_Books(claimant, queues, total), others, line), trial)
        if chosen:
            break
    else:
        books = _Books(claimant, queues, total)
        chosen = _with_applications(books, list(_extras(books, others, _cheapest_first)), others, trial, round_limit)
    if not chosen:
        return PreemptionPlan(claimant.key, reason="what may be taken back would not make room for it")
    chosen = _without_the_needless(chosen, trial)
    victims = tuple(
        [
            Victim(pod.key, unit.holder.key, pod.driver, unit.whole, pod.grace, pod.loss.core_seconds, reason)
            for unit, reason in [(unit, _why(claimant, queues, unit)) for unit in chosen]
            for pod in unit.pods
        ]
    )
    return PreemptionPlan(claimant.key, victims, sum(victim.core_seconds for victim in victims))


def dominant_share(amounts: Resources, total: Resources) -> float:
    """The largest part that ``amounts`` are of any resource there is (Ghodsi et al., NSDI 2011)."""
    return max((amounts.get(name) / whole for name, whole in total.amounts if whole > 0), default=0.0)


class _Books:
    """What each queue holds while victims are chosen."""

    def __init__(self, claimant: Claimant, queues: Mapping[str, Standing], total: Resources) -> None:
        self.claimant = claimant
        self.queues = queues
        self.total = total
        self._used = {name: standing.used for name, standing in queues.items()}
        self._own = frozenset(self._up(claimant.queue))

    def excess(self, queue: str) -> float:
        """By how much a queue is over its fair share now; negative when it is under."""
        return self.share(queue) - self.queues[queue].fair_share

    def share(self, queue: str) -> float:
        return dominant_share(self._used[queue], self.total)

    def may_take(self, queue: str, amounts: Resources) -> bool:
        """Whether all guarantees on the way up still hold then; within a queue room may move freely."""
        for name in self._up(queue):
            if name in self._own:
                break
            used, guaranteed = self._used[name], self.queues[name].guaranteed
            if any(amount > 0 and used.get(r) - amount < guaranteed.get(r) > 0 for r, amount in amounts.amounts):
                return False
        return True

    def take(self, queue: str, amounts: Resources) -> None:
        for name in self._up(queue):
            self._used[name] -= amounts

    def claimant_stays_within_its_share(self) -> bool:
        """Whether the claimant's queue is not over its fair share once the claimant has started."""
        queue = self.claimant.queue
        grown = dominant_share(self.queues[queue].used + self.claimant.asked, self.total)
        return grown <= self.queues[queue].fair_share

    def _up(self, queue: str) -> Iterator[str]:
        while queue in self.queues:
            yield queue
            queue = self.queues[queue].parent


_Line = Callable[[list[tuple[Holder, Candidate]]], list[tuple[Holder, Candidate]]]


def _loses_least(candidate: Candidate) -> tuple[bool, float, float, str]:
    loss = candidate.loss
    return (loss.has_shuffle is not False, loss.core_seconds, candidate.age, candidate.key)


def _cheapest_first(some: list[tuple[Holder, Candidate]]) -> list[tuple[Holder, Candidate]]:
    return sorted(some, key=lambda pair: _loses_least(pair[1]))


def _node_by_node(some: list[tuple[Holder, Candidate]]) -> list[tuple[Holder, Candidate]]:
    """Nodes with the most candidates first: where one pod needs the room of several, they must be neighbours."""
    on_node: dict[str, int] = {}
    for _, candidate in some:
        on_node[candidate.node] = on_node.get(candidate.node, 0) + 1
    return sorted(some, key=lambda pair: (-on_node[pair[1].node], pair[1].node, _loses_least(pair[1])))


def _extras(books: _Books, holders: Sequence[Holder], line: _Line) -> Iterator[_Unit]:
    """Executors above a minimum, of the queue that is furthest over its fair share at each moment."""
    by_queue: dict[str, list[tuple[Holder, Candidate]]] = {}
    spare: dict[tuple[str, int], int] = {}
    for holder in holders:
        if books.queues[holder.queue].preemption is Preemption.NEVER:
            continue
        for profile, count in holder.spare:
            spare[holder.key, profile] = count
        pairs = [
            (holder, pod)
            for pod in holder.pods
            if pod.helps and not pod.driver and spare.get((holder.key, pod.profile), 0) > 0
        ]
        by_queue.setdefault(holder.queue, []).extend(pairs)
    lines = {queue: iter(line(pairs)) for queue, pairs in by_queue.items()}
    heap = [(-books.excess(queue), queue) for queue in lines]
    heapq.heapify(heap)
    while heap:
        _, queue = heapq.heappop(heap)
        for holder, pod in lines[queue]:
            if spare[holder.key, pod.profile] > 0 and books.may_take(queue, pod.amounts):
                yield _Unit(holder, (pod,), whole=False, share=books.share(queue))
                spare[holder.key, pod.profile] -= 1
                books.take(queue, pod.amounts)
                heapq.heappush(heap, (-books.excess(queue), queue))
                break


def _shortest_prefix(units: Iterator[_Unit], trial: Trial) -> list[_Unit]:
    """The fewest units from the front that make the claimant fit; none when all together do not.

    Twice as many each time, then halving: no more units are made than twice those that are needed.
    """
    taken: list[_Unit] = []
    short, step = 0, 1
    try:
        while True:
            more = list(islice(units, step))
            if not more:
                return []
            taken += more
            _free(trial, more)
            if trial.fits():
                break
            short, step = len(taken), 2 * step
        enough = at = len(taken)  # the first `short` do not suffice, the first `enough` do; `at` are free
        while enough - short > 1:
            middle = (short + enough) // 2
            if middle < at:
                _take_back(trial, taken[middle:at])
            else:
                _free(trial, taken[at:middle])
            at = middle
            short, enough = (short, middle) if trial.fits() else (middle, enough)
        _free(trial, taken[at:])
        return taken[:enough]
    finally:
        _take_back(trial, taken)


def _free(trial: Trial, units: Iterable[_Unit]) -> None:
    trial.free([room for unit in units for room in unit.rooms])


def _take_back(trial: Trial, units: Iterable[_Unit]) -> None:
    trial.take_back([room for unit in units for room in unit.rooms])


def _with_applications(
    books: _Books, extras: list[_Unit], holders: Sequence[Holder], trial: Trial, limit: int
) -> list[_Unit]:
    """All extras and as many whole applications as it takes; none when even the limit is not enough."""
    chosen = extras
    freed = [room for unit in extras for room in unit.rooms]
    taken: dict[str, set[str]] = {holder.key: set() for holder in holders}
    for unit in extras:
        taken[unit.holder.key].update(pod.key for pod in unit.pods)
    left = list(holders)
    trial.free(freed)
    try:
        for _ in range(limit):
            holder = _next_application(books, left, taken)
            if holder is None:
                return []
            left.remove(holder)
            whole = _Unit(holder, holder.pods, whole=True, share=books.share(holder.queue))
            chosen = [*(unit for unit in chosen if unit.holder is not holder), whole]
            books.take(holder.queue, _rest(holder, taken[holder.key]))
            gone = taken[holder.key]
            rest = _Unit(holder, tuple([pod for pod in holder.pods if pod.key not in gone]), whole=True, share=0.0)
            freed += rest.rooms
            trial.free(rest.rooms)
            if trial.fits():
                return chosen
        return []
    finally:
        trial.take_back(freed)


def _next_application(books: _Books, holders: Sequence[Holder], taken: Mapping[str, Collection[str]]) -> Holder | None:
    """The application that should go next, whole, if any may; ``taken`` of its pods go already."""
    claimant = books.claimant
    within_share = books.claimant_stays_within_its_share()

    def may_go(holder: Holder) -> bool:
        standing = books.queues[holder.queue]
        if standing.preemption is not Preemption.APPLICATIONS or holder.seconds < standing.min_runtime_seconds:
            return False
        if holder.queue == claimant.queue:
            return holder.priority < claimant.priority
        over = books.excess(holder.queue) > 0
        return over and within_share and books.may_take(holder.queue, _rest(holder, taken[holder.key]))

    def order(holder: Holder) -> tuple[float, int, float, float, str]:
        lost = sum(pod.loss.core_seconds for pod in holder.pods)
        return (-books.excess(holder.queue), holder.priority, lost, holder.seconds, holder.key)

    return min(filter(may_go, holders), key=order, default=None)


def _rest(holder: Holder, taken: Collection[str]) -> Resources:
    """What goes with an application, its unfilled slots included, beside the pods that are ``taken`` already."""
    total = Resources()
    for pod in holder.pods:
        if pod.key not in taken:
            total += pod.amounts
    for slot in holder.slots:
        total += slot.amounts.times(slot.count)
    return total


def _without_the_needless(chosen: list[_Unit], trial: Trial) -> list[_Unit]:
    """Spare whoever can be spared, the last choices first, so that whole applications are spared before extras."""
    kept: list[_Unit] = []
    _free(trial, chosen)
    try:
        for unit in reversed(chosen):
            trial.take_back(unit.rooms)
            if not trial.fits():
                trial.free(unit.rooms)
                kept.append(unit)
        kept.reverse()
        return kept
    finally:
        _take_back(trial, kept)


def _why(claimant: Claimant, queues: Mapping[str, Standing], unit: _Unit) -> str:
    holder, queue = unit.holder, unit.holder.queue
    stands = f"whose queue {queue} holds {unit.share:.1%} of the cluster of a fair {queues[queue].fair_share:.1%}"
    lost = f"at most {sum(pod.loss.core_seconds for pod in unit.pods):.0f} core-seconds are lost"
    if not unit.whole:
        [pod] = unit.pods
        extra = f"{pod.key} is an executor above the minimum of {holder.key}"
        return f"{extra}, {stands}; {_SHUFFLE[pod.loss.has_shuffle]}, {lost}"
    if queue == claimant.queue:
        stands = f"whose priority {holder.priority} is below {claimant.priority}"
    ran = f"it has run for {holder.seconds:.0f} s and its queue allows preemption of applications"
    return f"the whole application {holder.key} goes, {stands}: {ran}; {lost}"


_SHUFFLE = {False: "it keeps no shuffle data", True: "it keeps shuffle data", None: "its shuffle data is not known"}
