"""What a Spark driver does about its executors, as a state machine without I/O and with time as a parameter.

After Spark's ``ExecutorPodsAllocator`` (batches), ``ExecutorAllocationManager`` (dynamic allocation),
``KubernetesClusterSchedulerBackend`` (80 % registered or 30 s), ``ExecutorFailureTracker`` (exit code 11).
Differences: one resource profile, and work that is a number of executor-seconds instead of stages of tasks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum, auto

import msgspec

from muster.devcluster.virtual_application import EXIT_CODE, PARALLELISM, RUN_SECONDS, TAIL_SECONDS, minor
from muster.spark.gang import executor_counts

EXCEEDED_MAX_FAILURES = 11
"""``SparkExitCode.EXCEED_MAX_EXECUTOR_FAILURES``."""

_DURATIONS = {"ms": 0.001, "s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class AllocationSettings(msgspec.Struct, frozen=True):
    """The properties of a driver that matter here. Times in seconds."""

    initial: int
    """Executors wanted at start: the gang."""
    minimum: int
    maximum: float
    """``inf`` without a ceiling; equal to ``initial`` with static allocation."""
    dynamic: bool
    batch_size: int
    batch_delay: float = 1.0
    registered_ratio: float = 0.8
    registered_wait: float = 30.0
    idle_timeout: float = 60.0
    backlog_timeout: float = 1.0
    maximum_failures: int = 3
    failed_creations_count: bool = True
    """Since 4.2 an executor pod that the API refuses counts as a failed executor; before, it ends the batch."""
    run_seconds: float = 0.0
    tail_seconds: float = 0.0
    parallelism: int = 1
    exit_code: int = 0

    @classmethod
    def of(cls, properties: Mapping[str, str], annotations: Mapping[str, str], version: str) -> AllocationSettings:
        """From ``spark.properties`` and the annotations of the driver pod. Raises ``InvalidSizeError``."""
        counts = executor_counts(properties)
        initial, dynamic = counts.minimum, counts.dynamic
        minimum = int(properties.get("spark.dynamicAllocation.minExecutors", "0")) if dynamic else initial
        maximum = math.inf if counts.maximum is None else float(counts.maximum)
        bound = maximum if dynamic and math.isfinite(maximum) else initial
        failures = max(3, int(2 * bound))
        release = minor(version)
        return cls(
            initial=initial,
            minimum=minimum,
            maximum=maximum,
            dynamic=dynamic,
            batch_size=int(properties.get("spark.kubernetes.allocation.batch.size", batch_size(release))),
            batch_delay=_seconds(properties, "spark.kubernetes.allocation.batch.delay", 1.0),
            registered_ratio=float(properties.get("spark.scheduler.minRegisteredResourcesRatio", "0.8")),
            registered_wait=_seconds(properties, "spark.scheduler.maxRegisteredResourcesWaitingTime", 30.0),
            idle_timeout=_seconds(properties, "spark.dynamicAllocation.executorIdleTimeout", 60.0),
            backlog_timeout=_seconds(properties, "spark.dynamicAllocation.schedulerBacklogTimeout", 1.0),
            maximum_failures=int(properties.get("spark.executor.maxNumFailures", failures)),
            failed_creations_count=release >= (4, 2),
            run_seconds=float(annotations.get(RUN_SECONDS, "0")),
            tail_seconds=float(annotations.get(TAIL_SECONDS, "0")),
            parallelism=int(annotations.get(PARALLELISM, max(initial, 1))),
            exit_code=int(annotations.get(EXIT_CODE, "0")),
        )


def batch_size(version: tuple[int, int]) -> int:
    """Default of ``spark.kubernetes.allocation.batch.size``."""
    if version >= (4, 2):
        return 20
    return 10 if version >= (4, 0) else 5


class Create(msgspec.Struct, frozen=True):
    """Post these executors' pods, one after the other."""

    executors: tuple[int, ...]


class Release(msgspec.Struct, frozen=True):
    """Tell these idle executors to exit (RPC ``StopExecutor``)."""

    executors: tuple[int, ...]


class DeletePending(msgspec.Struct, frozen=True):
    """Delete these pods if they still are Pending."""

    executors: tuple[int, ...]


class Remove(msgspec.Struct, frozen=True):
    """Delete the pods of executors that have ended (``deleteOnTermination``)."""

    executors: tuple[int, ...]


class Stop(msgspec.Struct, frozen=True):
    """The application is over."""

    exit_code: int
    reason: str = ""


Instruction = Create | Release | DeletePending | Remove | Stop


class _Pod(Enum):
    UNSEEN = auto()
    """Posted, not in any snapshot yet (Spark's ``newlyCreatedExecutors``)."""
    PENDING = auto()
    RUNNING = auto()


class _Executor(msgspec.Struct):
    created: float
    pod: _Pod = _Pod.UNSEEN
    registered: bool = False
    idle_since: float | None = None
    released: bool = False


class ExecutorAllocation:
    """Tell it what happened (``pod_seen``, ``registered``, …), then call ``step``; not before ``next_step`` again."""

    def __init__(self, settings: AllocationSettings, now: float) -> None:
        self.settings = settings
        self.executors: dict[int, _Executor] = {}
        self.target = settings.initial
        self.failures = 0
        self.created = 0
        """Executors ever asked for: the id of the last one."""
        self.started: float | None = None
        """When the work began."""
        self.stopped = False
        self._begun = now
        self._advanced = now
        self._work = settings.run_seconds * max(settings.parallelism, 1)
        """Executor-seconds left."""
        self._tail = settings.tail_seconds
        self._next_pass = now
        self._ended: list[int] = []
        self._add = 1
        self._next_growth = math.inf
        self._pending_deleted: set[int] = set()

    @property
    def registered_count(self) -> int:
        return sum(executor.registered for executor in self.executors.values())

    # --- what happened ---------------------------------------------------------------------------------------------

    def pod_seen(self, executor: int, phase: str, deleting: bool, now: float) -> None:
        """A snapshot shows the pod in this phase (``ExecutorPodsSnapshot.toState``)."""
        self._advance(now)
        known = self.executors.get(executor)
        if known is None:
            return
        if phase == "Failed":
            self.failures += not known.released
            self._end(executor)
        elif phase == "Succeeded":
            self._end(executor)
        elif deleting and phase != "Running":
            self.executors.pop(executor)
        else:
            known.pod = _Pod.RUNNING if phase == "Running" else _Pod.PENDING

    def pod_gone(self, executor: int, now: float) -> None:
        """The pod was deleted; no failure of the application's."""
        self._advance(now)
        self.executors.pop(executor, None)

    def creation_failed(self, executors: tuple[int, ...], now: float) -> None:
        """The API refused the first of these pods; the rest were not tried (3.5) or are given one by one (4.x)."""
        self._advance(now)
        for executor in executors:
            self.executors.pop(executor, None)
            self.failures += self.settings.failed_creations_count

    def registered(self, executor: int, now: float) -> None:
        """The executor's own message to the driver."""
        self._advance(now)
        if known := self.executors.get(executor):
            known.registered = True
            known.idle_since = None

    def lost(self, executor: int, now: float) -> None:
        """The connection to the executor is gone; its pod's end is told separately."""
        self._advance(now)
        if known := self.executors.get(executor):
            known.registered = False

    # --- what to do ------------------------------------------------------------------------------------------------

    def step(self, now: float) -> list[Instruction]:
        self._advance(now)
        if self.stopped:
            return []
        instructions: list[Instruction] = []
        if self._ended:
            instructions.append(Remove(tuple(self._ended)))
            self._ended.clear()
        if self.failures > self.settings.maximum_failures:
            reason = f"Max number of executor failures ({self.settings.maximum_failures}) reached"
            return [*instructions, self._stop(EXCEEDED_MAX_FAILURES, reason)]
        if self.started is None and self._may_start(now):
            self.started = now
            self._next_growth = now + self.settings.backlog_timeout
        if self.started is not None and self._work <= 0 and self._tail <= 0:
            return [*instructions, self._stop(self.settings.exit_code)]
        if self.settings.dynamic:
            self._retarget(now)
            instructions += self._release_idle(now)
        if now >= self._next_pass:
            instructions += self._allocate(now)
        return instructions

    def next_step(self, now: float) -> float:
        """When ``step`` has something to do if nothing happens before; ``inf`` when only news can change anything."""
        if self.stopped:
            return math.inf
        due = [math.inf]
        if self._ended:
            due.append(now)
        if self.started is None:
            due.append(now if self._may_start(now) else self._begun + self.settings.registered_wait)
        else:
            due.append(now + self._time_left())
        outstanding = any(executor.pod is _Pod.UNSEEN for executor in self.executors.values())
        if len(self.executors) < self.target and not outstanding:
            due.append(self._next_pass)
        if self.settings.dynamic and self.started is not None:
            if self.target < self._needed():
                due.append(self._next_growth)
            due += [at + self.settings.idle_timeout for at in self._idle().values()]
            due += [max(at, self._next_pass) for at in self._excess_ages()]  # only a pass deletes them
        return max(now, min(due))

    def _stop(self, exit_code: int, reason: str = "") -> Stop:
        self.stopped = True
        return Stop(exit_code, reason)

    def _end(self, executor: int) -> None:
        self.executors.pop(executor)
        self._ended.append(executor)

    def _may_start(self, now: float) -> bool:
        enough = self.registered_count >= self.settings.initial * self.settings.registered_ratio
        return enough or now >= self._begun + self.settings.registered_wait

    # --- work ------------------------------------------------------------------------------------------------------

    def _speed(self) -> float:
        """Executor-seconds a second."""
        return min(self.registered_count, max(self.settings.parallelism, 1))

    def _advance(self, now: float) -> None:
        """Do the work of the time since the last call: nothing has changed in between."""
        passed, self._advanced = now - self._advanced, now
        if self.started is None or passed <= 0 or not (speed := self._speed()):
            return
        done = min(self._work, speed * passed)
        if self._work > 0 and done >= self._work - 1e-9:
            self._tail_begins(now - (passed - done / speed))
            self._work = 0.0
        else:
            self._work -= done
        if self._work <= 0:
            self._tail = max(0.0, self._tail - (passed - done / speed))
            if self._tail < 1e-9:
                self._tail = 0.0

    def _time_left(self) -> float:
        if not (speed := self._speed()):
            return math.inf
        return self._work / speed if self._work > 0 else self._tail

    # --- dynamic allocation ----------------------------------------------------------------------------------------

    def _needed(self) -> float:
        """``maxNumExecutorsNeeded`` within the limits."""
        needed = self.settings.parallelism if self._work > 0 else 1
        return min(max(needed, self.settings.minimum), self.settings.maximum)

    def _retarget(self, now: float) -> None:
        if self.started is None:
            return
        needed = self._needed()
        if self.target > needed:
            self.target = int(needed)
            self._add = 1
        elif self.target < needed and now >= self._next_growth:
            self.target = int(min(needed, self.target + self._add))
            self._add *= 2
            self._next_growth = now + self.settings.backlog_timeout
            self._next_pass = min(self._next_pass, now)

    def _tail_begins(self, at: float) -> None:
        busy = min((number for number, known in self.executors.items() if known.registered), default=None)
        for number, executor in self.executors.items():
            if executor.registered and number != busy:
                executor.idle_since = at

    def _idle(self) -> dict[int, float]:
        """Idle executors that may go, by id, with the time since when."""
        kept = max(self.settings.minimum, self.target)
        spare = sum(not executor.released for executor in self.executors.values()) - kept
        idle = {
            number: executor.idle_since
            for number, executor in self.executors.items()
            if executor.idle_since is not None and executor.registered and not executor.released
        }
        return dict(list(idle.items())[: max(spare, 0)])

    def _release_idle(self, now: float) -> list[Instruction]:
        due = [number for number, since in self._idle().items() if now >= since + self.settings.idle_timeout]
        for number in due:
            self.executors[number].released = True
        return [Release(tuple(due))] if due else []

    # --- allocation ------------------------------------------------------------------------------------------------

    def _excess(self) -> list[int]:
        """Pending pods above the target, oldest first."""
        spare = len(self.executors) - self.target
        pending = [
            number
            for number, executor in self.executors.items()
            if executor.pod is _Pod.PENDING and number not in self._pending_deleted
        ]
        return pending[: max(spare, 0)]

    def _excess_ages(self) -> list[float]:
        return [self.executors[number].created + self.settings.idle_timeout for number in self._excess()]

    def _allocate(self, now: float) -> list[Instruction]:
        self._next_pass = now + self.settings.batch_delay
        old = [
            number for number in self._excess() if now >= self.executors[number].created + self.settings.idle_timeout
        ]
        if old:
            self._pending_deleted.update(old)
            return [DeletePending(tuple(old))]
        missing = self.target - len(self.executors)
        if missing <= 0 or any(executor.pod is _Pod.UNSEEN for executor in self.executors.values()):
            return []
        first = self.created + 1
        self.created += min(missing, self.settings.batch_size)
        batch = tuple(range(first, self.created + 1))
        self.executors |= {number: _Executor(created=now) for number in batch}
        return [Create(batch)]


def _seconds(properties: Mapping[str, str], key: str, default: float) -> float:
    """A Spark duration such as ``500ms`` or ``1min``; without a unit, seconds."""
    text = properties.get(key, "").strip().lower()
    if not text:
        return default
    digits = text.rstrip("abcdefghijklmnopqrstuvwxyz")
    return float(digits) * _DURATIONS[text[len(digits) :] or "s"]
