"""Whose turn it is when there may be room: slots that are owed, then the queues in order, then held executors."""

from __future__ import annotations

from collections.abc import Iterable

from muster.queueing.fifo import Waiting
from muster.queueing.turns import Turns
from muster.scheduling import backfill, executors, gangs, occupancy, quota
from muster.scheduling.model import ApplicationKey
from muster.scheduling.plans import Plan, fits_one_zone, plan_within
from muster.scheduling.reasons import BEHIND, EXCEEDS, LEFT, WAITING
from muster.scheduling.records import Gang, Place
from muster.scheduling.state import Future, State

_KINDS = 4096


def take_turns(state: State) -> None:
    """Act on what the event stirred up, until nothing is."""
    while True:
        while state.overdrawn:
            node = state.overdrawn.popitem()[0]
            vacate(state, node)
        if state.stirred:
            for gang in state.dirty.values():
                quota.settle(state, gang)
            state.stirred = False
            state.shut_out.clear()
            state.opened.clear()
            for gang in _in_order(state.owing.values()):
                gangs.repay(state, gang)
            for pool in _pools(state):
                _take_turns_in(state, pool)
            executors.release_held(state, _in_order(state.holding.values()))
        elif state.opened:
            opened = _in_order(state.opened.values())
            state.opened.clear()
            executors.release_held(state, opened)
        else:
            return


def would_start(trial: State, key: ApplicationKey) -> bool:
    """Take turns on a copy of the state until this application starts (True), or nothing is stirred up any more.

    Of what an event leads to this leaves out what cannot help it to start: those behind it, and executors above a
    minimum.
    """
    gang = trial.gangs[key]
    if key not in trial.queues:
        consider(trial, gang, gang)
    while trial.stirred and not gang.holds:
        for changed in trial.dirty.values():
            quota.settle(trial, changed)
        trial.stirred = False
        for owing in _in_order(trial.owing.values()):
            gangs.repay(trial, owing)
        for pool in _pools(trial):
            _take_turns_in(trial, pool, gang)
    return gang.holds


def vacate(state: State, node: str) -> None:
    """Slots that a node can no longer keep are owed, and drivers not yet released from there wait again."""
    occupancy.vacate(state, node)
    for gang in state.slots_on(node):
        if gang.driver_slot == node:
            gangs.keep_driver(state, gang)


def consider(state: State, gang: Gang, only: Gang | None = None) -> None:
    """An application joins the queue: start it now, or say why it waits. ``only``: see ``_Turn``."""
    state.dirty[gang.key] = gang
    if not state.synced:
        state.queues.add(quota.entry_of(gang))
        return
    pool = gang.pool
    turn = _Turn(state, pool, only)
    turn.blocker, turn.future = state.blockers.get(pool), state.futures.get(pool)
    if turn.blocker is not None and not turn.is_behind(gang):
        state.queues.add(quota.entry_of(gang))
        state.told_at.pop(pool, None)
        state.stirred = True  # it may come before the one that the others wait for: everybody's turn is taken anew
        return
    if not turn.take(gang):
        state.queues.add(quota.entry_of(gang))
    turn.keep()


def join(state: State, gang: Gang) -> None:
    """The sizes of an application and where its driver stands are known: wait, start, or be adopted."""
    driver = gang.driver
    if gang.client:
        executors.begin_client(state, gang)
        join_clients(state)
    elif driver is None:
        return
    elif driver.pod.finished:
        gangs.end(state, gang, "its driver finished")
    elif driver.pod.node:
        state.leave_queue(gang)
        gangs.adopt(state, gang)
    elif driver.pod.gated:
        consider(state, gang)
    else:
        state.leave_queue(gang)
        gang.reason, gang.message = LEFT, "its driver was not held; ordinary scheduling places it"


def join_clients(state: State) -> None:
    """Gangs of client mode join the queue."""
    while state.joining:
        consider(state, state.joining.pop(next(iter(state.joining))))


def age(state: State) -> None:
    """Time has passed: a waiting gang may have reached the age from which on it blocks younger ones.

    And those whose turn behind the head did not come yet since room was freed are tried.
    """
    for pool in state.queues.pools():
        if pool not in state.blockers or pool in state.swept:
            _take_turns_in(state, pool, sweeps=pool in state.swept)


class _Turn:
    """One walk through the waiting applications of a pool."""

    def __init__(self, state: State, pool: str, only: Gang | None = None) -> None:
        self.state = state
        self.pool = pool
        self.only = only
        """On a trial (``would_start``), the one it is about: the walk ends as soon as it is known whether it starts."""
        self.blocker: Waiting | None = None
        """Whom everybody further back waits for."""
        self.future: Future | None = None
        """When that one will start, as far as that is known."""
        self._too_early = ""
        """Why the one that was tried last has room and must not take it yet."""
        self._too_big: dict[tuple[int, bool], int] = {}
        """Of gangs that did not fit in this walk, by kind (and beside the future reservation or not): the least."""

    def is_behind(self, gang: Gang) -> bool:
        """Whether the order of the queues cannot put it before the one that the others wait for."""
        blocker = self.blocker
        assert blocker is not None
        if self.future is not None and self.future.at is not None and self.future.key == blocker.key:
            return True  # that one was promised a time
        ahead = self.state.gangs.get(blocker.key)
        if ahead is None or not quota.same_line(self.state, ahead, gang):
            return False
        return blocker < gang.waiting

    def take(self, gang: Gang) -> bool:
        """An application's turn: it starts, or the reason why it waits is noted. True when it started."""
        state = self.state
        self._too_early = ""
        if quota.still_refused(state, gang):
            return False
        standing = quota.standing(state, gang)
        if standing is not None:
            explain(state, gang, *standing)
            return False
        refusal = quota.refusal(state, gang)
        if refusal is not None:
            promised = state.futures.get(self.pool)
            if promised is not None and promised.key == gang.key and backfill.still_holds(state, promised):
                self._is_blocked_by(gang.waiting, promised)  # whoever has that quota will have ended by then
            else:
                quota.refuse(state, gang, refusal)
            return False
        quota.reopen(state, gang)
        if self.blocker is not None and self.blocker.key != gang.key:
            return self._pass(gang)
        if self._find_and_start(gang, None):
            self._is_blocked_by(None, None)
            return True
        self._wait(gang)
        if not gang.excess and not self._too_early and state.policy.enforced(self.pool, gang.waiting.created, state.at):
            future: Future | None = None
            if state.config.backfill and not state.config.asked and gang is not self.only:
                promised = state.futures.get(self.pool)
                held = promised is not None and promised.key == gang.key and backfill.still_holds(state, promised)
                future = promised if held else backfill.plan_future(state, gang)
            self._is_blocked_by(gang.waiting, future)
        return False

    def _is_blocked_by(self, blocker: Waiting | None, future: Future | None) -> None:
        """From here on this one goes first, and what it was promised is kept in this very walk."""
        self.blocker, self.future = blocker, future
        if future is not None:
            self.state.futures[self.pool] = future
        else:
            self.state.futures.pop(self.pool, None)

    def keep(self) -> None:
        """Remember for the time until the next walk whom the others wait for."""
        state, pool = self.state, self.pool
        if self.blocker is None:
            state.blockers.pop(pool, None)
        else:
            state.blockers[pool] = self.blocker
        if self.future is None:
            state.futures.pop(pool, None)
        else:
            state.futures[pool] = self.future

    def _pass(self, gang: Gang) -> bool:
        """Start before the blocker, if that one will start no later for it."""
        future = self.future
        coming = future is not None and future.at is not None and self.state.room_is_coming(self.pool)
        if future is not None and not coming and self._find_and_start(gang, future):
            return True
        self._wait(gang, behind=True)
        return False

    def _find_and_start(self, gang: Gang, future: Future | None) -> bool:
        state = self.state
        application = gang.application
        assert application is not None
        kind = _kind_of(state, gang)
        lacking = max(0, application.minimum - gang.placed_in_gang)
        beside = future is not None and not backfill.ends_before(state, gang, future)
        if lacking >= self._too_big.get((kind, False), lacking + 1):
            return False
        if beside and lacking >= self._too_big.get((kind, True), lacking + 1):
            return False
        plan = gangs.find_plan(state, gang)
        if plan is None:
            self._too_big[kind, False] = lacking
            return False
        if beside:
            plan = self._plan_beside(gang, lacking)
            if plan is None:
                self._too_big[kind, True] = lacking
                return False
        if state.futures and (delayed := quota.whom_delays(state, gang)) is not None:
            self._too_early = f"{delayed} was promised the quota that it asks for, and goes first"
            return False
        ahead = self.future
        fresh = ahead is not None and backfill.is_fresh(state, ahead)
        gangs.start(state, gang, plan)
        quota.settle(state, gang)
        if ahead is not None:
            state.tell(gang, f"passed {ahead.key}, which will start no later for it")
            if beside:
                backfill.took(state, gang, ahead)
            elif fresh:
                ahead.version = state.table.version  # its room will be back by then
        return True

    def _plan_beside(self, gang: Gang, lacking: int) -> Plan | None:
        """A place for a gang that may still run when the head is to start."""
        state, application = self.state, gang.application
        assert application is not None
        assert self.future is not None
        if not backfill.is_fresh(state, self.future):
            self._is_blocked_by(self.blocker, backfill.planned_anew(state, self.future))  # others have taken room since
        available = backfill.room_beside(state, self.future)
        return plan_within(state, gangs.driver_shape(gang), application.executor, lacking, available)

    def _wait(self, gang: Gang, *, behind: bool = False) -> None:
        excess = excess_of(self.state, gang)
        if excess:
            explain(self.state, gang, EXCEEDS, f"can never start on this cluster: {excess}")
        elif self._too_early:
            explain(self.state, gang, BEHIND, self._too_early)
        elif behind:
            explain(
                self.state,
                gang,
                BEHIND,
                "an earlier application of its node pool waits for capacity, and goes first",
            )
        else:
            who = f"its {gang.minimum} executors do" if gang.client else f"its driver and {gang.minimum} executor(s) do"
            explain(self.state, gang, WAITING, f"{who} not fit together on the free capacity now")


def _kind_of(state: State, gang: Gang) -> int:
    """A number for the shapes of its driver and its executors, since to compare those takes long."""
    if gang.kind is None:
        application = gang.application
        assert application is not None
        shapes = (gangs.driver_shape(gang), application.executor)
        gang.kind = state.kinds.get(shapes)
        if gang.kind is None:
            if len(state.kinds) >= _KINDS:
                state.kinds.clear()
            gang.kind = state.kinds[shapes] = state.next_kind
            state.next_kind += 1
    return gang.kind


def _pools(state: State) -> list[str]:
    return sorted({*state.queues.pools(), *state.blockers, *(gang.pool for gang in state.owing.values())})


def _take_turns_in(state: State, pool: str, only: Gang | None = None, *, sweeps: bool = False) -> None:
    turn = _Turn(state, pool, only)
    turn.blocker = owing = _owing_blocker(state, pool)
    told = state.rules_version == state.told_at.get(pool)
    promised = state.futures.get(pool)
    if promised is not None and promised.at is not None and owing is None:
        gang = state.gangs.get(promised.key)
        if gang is not None and gangs.is_ready(gang):
            turn.take(gang)  # whoever was promised a time keeps its place, whatever came meanwhile
    line = state.queues.turns(pool, state.total)
    reached_the_end = False
    window = _Window(state, pool, sweeps=sweeps)
    while (only is None or not only.holds) and (key := line.next()) is not None:
        gang = state.gangs[key]
        if not gangs.is_ready(gang) or (turn.blocker is not None and turn.blocker.key == key):
            line.passed(key)
            continue
        if turn.blocker is not None and (told or only is not None):
            if turn.future is None or window.is_over:
                break  # everybody further back has been told already
            if not window.takes_next():
                line.passed(key)
                continue
        if turn.take(gang):
            line.started(key)
            continue
        if gang is only and not quota.closed_by(state, gang):
            break
        if gang.closes is not None and gang.closes in state.told:
            _close(line, gang.closes)
        else:
            line.passed(key)
    else:
        reached_the_end = True
        state.told.update(state.closed)
    if turn.future is None:
        state.swept.pop(pool, None)
    else:
        window.keep(reached_the_end=reached_the_end)
    state.told_at[pool] = state.rules_version
    turn.keep()
    if turn.blocker is None and not state.queues.waiting(pool):
        state.told_at.pop(pool, None)


class _Window:
    """Which of those behind the head are tried in this walk.

    The first ones whenever something happens; the others in turn as time passes, so that nobody is forgotten.
    """

    def __init__(self, state: State, pool: str, *, sweeps: bool) -> None:
        self._state = state
        self._pool = pool
        self._sweeps = sweeps
        self._size = state.config.backfill_depth
        self._begins, self._freed = state.swept.get(pool, (self._size, state.freed))
        """Where the sweep over the others has come to, and ``State.freed`` when it began."""
        self._next = 0

    @property
    def is_over(self) -> bool:
        return self._next >= self._size + (self._begins if self._sweeps else 0)

    def takes_next(self) -> bool:
        """Whether the next one is tried."""
        position, self._next = self._next, self._next + 1
        return not self._sweeps or position >= self._begins

    def keep(self, *, reached_the_end: bool) -> None:
        """Remember how far it came. At the end it begins anew if room was freed meanwhile."""
        state, pool = self._state, self._pool
        if not reached_the_end:
            state.swept[pool] = (self._begins + (self._size if self._sweeps else 0), self._freed)
        elif self._sweeps and self._freed != state.freed:
            state.swept[pool] = (self._size, state.freed)
        elif self._sweeps or self._next <= self._size:
            state.swept.pop(pool, None)


def _close(line: Turns, place: Place) -> None:
    """Everybody who waits there has been told that somebody else goes first."""
    queue, kind, name = place
    match kind:  # who closes a place waits there: it is passed with the others
        case "user":
            line.close_user(queue, name)
        case "group":
            line.close_group(queue, name)
        case _:
            line.close(queue)


def _owing_blocker(state: State, pool: str) -> Waiting | None:
    """The oldest running gang of the pool that still lacks slots of its minimum and could get them here."""
    candidates = [gang for gang in state.owing.values() if gang.pool == pool and gang.application is not None]
    for gang in _in_order(candidates):
        application = gang.application
        assert application is not None
        possible = not state.ceilings.excess(None, application.executor, gang.owed, state.nodes_version)
        if possible and state.policy.enforced(pool, application.created, state.at):
            return gang.waiting
    return None


def excess_of(state: State, gang: Gang) -> str:
    """Which of the gang's numbers is too big for the empty cluster; "" when none is."""
    if gang.excess_at != state.nodes_version:
        application = gang.application
        assert application is not None
        driver, executor, minimum = gangs.driver_shape(gang), application.executor, application.minimum
        gang.excess = state.ceilings.excess(driver, executor, minimum, state.nodes_version)
        if not gang.excess and state.packer.single_zone and not fits_one_zone(state, driver, executor, minimum):
            gang.excess = (
                f"no single zone holds a minimum of {minimum} executors together with the driver, even when empty"
            )
        gang.excess_at = state.nodes_version
    return gang.excess


def explain(state: State, gang: Gang, reason: str, message: str) -> None:
    """Note why an application waits, if that is news."""
    if (gang.reason, gang.message) != (reason, message):
        gang.reason, gang.message = reason, message
        state.tell(gang, f"{reason}: {message}")


def _in_order(some: Iterable[Gang]) -> list[Gang]:
    return sorted(some, key=lambda gang: gang.waiting)
