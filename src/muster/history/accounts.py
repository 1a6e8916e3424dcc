"""What an application holds and wastes, added up while it lives; a change costs the same however large it is. Pure.

An ``Account`` keeps the present rates (cores on nodes, slots without a pod, pairs over zones …) and adds *rate × time*
to its sums before any of them changes. Amounts are in millicores and bytes here.
"""

from __future__ import annotations

from muster.cluster.resources import CPU, MEMORY, Resources
from muster.history.records import Use


class PodShare:
    """One pod on a node, as its application's account has it."""

    __slots__ = ("bound", "cpu", "evicted", "executor", "in_gang", "memory", "ready", "since", "zone")

    def __init__(self, requests: Resources, *, executor: bool, in_gang: bool) -> None:
        self.cpu = requests.get(CPU)
        self.memory = requests.get(MEMORY)
        self.executor = executor
        self.in_gang = in_gang
        """An executor of the default resource profile: it fills a slot of the minimum, if one is unfilled."""
        self.bound = False
        self.since = 0.0
        """When it came to its node, seconds."""
        self.ready = False
        self.evicted = False
        """Something took it away: what it held until then may have to be done again."""
        self.zone = ""


class Account:
    """The sums of one application. ``at`` of the calls must not decrease."""

    __slots__ = (
        "_at",
        "_core",
        "_cpu",
        "_cross",
        "_driver_cpu",
        "_driver_memory",
        "_driver_reserved",
        "_executor_cpu",
        "_executor_memory",
        "_idle",
        "_idle_core",
        "_idle_cpu",
        "_idle_pods",
        "_in_gang",
        "_lost",
        "_memory",
        "_memory_seconds",
        "_pair_seconds",
        "_pods",
        "_slots",
        "_unbound",
        "_unbound_core",
        "_zone_pairs",
        "_zones",
        "executors",
        "most_cross_zone",
        "most_executors",
    )

    def __init__(self, at: float) -> None:
        self._at = at
        # rates
        self._cpu = self._memory = 0
        self._pods = 0
        self.executors = 0
        """On nodes now."""
        self._in_gang = 0
        self._idle_pods = self._idle_cpu = 0
        self._zones: dict[str, int] = {}
        self._cross = 0
        self._slots = 0
        self._driver_reserved = False
        self._driver_cpu = self._driver_memory = 0
        self._executor_cpu = self._executor_memory = 0
        # sums
        self._core = self._memory_seconds = 0.0
        self._unbound = self._unbound_core = 0.0
        self._idle = self._idle_core = 0.0
        self._pair_seconds = self._zone_pairs = 0.0
        self._lost = 0.0
        self.most_executors = 0
        self.most_cross_zone = (0, 0)
        """Most pairs in different zones at a time, and all pairs at that moment."""

    def advance(self, at: float) -> None:
        """Add what was held since the last change."""
        passed = at - self._at
        if passed <= 0.0:
            return
        self._at = at
        unfilled = max(0, self._slots - self._in_gang)
        unbound = unfilled + self._driver_reserved
        cpu, memory = self._cpu, self._memory
        if unbound:
            unbound_cpu = unfilled * self._executor_cpu + self._driver_reserved * self._driver_cpu
            cpu += unbound_cpu
            memory += unfilled * self._executor_memory + self._driver_reserved * self._driver_memory
            self._unbound += unbound * passed
            self._unbound_core += unbound_cpu * passed
        self._core += cpu * passed
        self._memory_seconds += memory * passed
        if self._idle_pods:
            self._idle += self._idle_pods * passed
            self._idle_core += self._idle_cpu * passed
        self._pair_seconds += _pairs(self._pods) * passed
        self._zone_pairs += self._cross * passed

    def sized(self, at: float, driver: Resources, executor: Resources) -> None:
        """What its reserved slots are made for, now known, or known better."""
        self.advance(at)
        self._driver_cpu, self._driver_memory = driver.get(CPU), driver.get(MEMORY)
        self._executor_cpu, self._executor_memory = executor.get(CPU), executor.get(MEMORY)

    def reserved(self, at: float, slots: int, *, driver: bool) -> None:
        """It holds ``slots`` of its minimum, filled or not, and perhaps one for a driver that is not bound yet."""
        self.advance(at)
        self._slots, self._driver_reserved = slots, driver

    def bound(self, at: float, pod: PodShare, zone: str, *, ready: bool, since: float | None = None) -> None:
        """A pod is on a node. ``since``: seen only now, but there since then."""
        self.advance(at)
        pod.bound, pod.zone, pod.since = True, zone, at
        if since is not None and since < at:
            pod.since = since
            self._core += pod.cpu * (at - since)
            self._memory_seconds += pod.memory * (at - since)
        self._cpu += pod.cpu
        self._memory += pod.memory
        if pod.executor:
            self.executors += 1
            self.most_executors = max(self.most_executors, self.executors)
            self._in_gang += pod.in_gang
        else:
            self._driver_reserved = False
        there = self._zones.get(zone, 0)
        self._cross += self._pods - there
        self._zones[zone] = there + 1
        self._pods += 1
        self.most_cross_zone = max(self.most_cross_zone, (self._cross, _pairs(self._pods)))
        pod.ready = True
        self.ready(at, pod, ready)

    def ready(self, at: float, pod: PodShare, ready: bool) -> None:
        """The containers of a bound pod began to be running and ready, or ceased to be."""
        if pod.ready is ready:
            return
        self.advance(at)
        pod.ready = ready
        if pod.executor:
            change = -1 if ready else 1
            self._idle_pods += change
            self._idle_cpu += change * pod.cpu

    def left(self, at: float, pod: PodShare) -> None:
        """A bound pod finished or is gone."""
        self.advance(at)
        self.ready(at, pod, True)
        pod.bound = False
        self._cpu -= pod.cpu
        self._memory -= pod.memory
        if pod.executor:
            self.executors -= 1
            self._in_gang -= pod.in_gang
            if pod.evicted:
                self._lost += pod.cpu * (at - pod.since)
        elif pod.evicted:
            self._lost = self._core  # nothing of a Spark application outlives its driver
        self._pods -= 1
        self._zones[pod.zone] -= 1
        self._cross -= self._pods - self._zones[pod.zone]

    def use(self, at: float) -> Use:
        """The sums until now, in cores and bytes."""
        self.advance(at)
        return Use(
            core_seconds=self._core / 1000,
            memory_byte_seconds=self._memory_seconds,
            unbound_slot_seconds=self._unbound,
            unbound_core_seconds=self._unbound_core / 1000,
            idle_pod_seconds=self._idle,
            idle_core_seconds=self._idle_core / 1000,
            pair_seconds=self._pair_seconds,
            cross_zone_pair_seconds=self._zone_pairs,
            lost_core_seconds=self._lost / 1000,
        )


def _pairs(count: int) -> int:
    return count * (count - 1) // 2
