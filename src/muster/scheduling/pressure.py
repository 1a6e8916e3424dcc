"""Room is taken back for an application that has waited long enough: lent extras first, then what the queues allow.

Executors above a minimum are lent: they run on what nobody else needs. When an application waits at the head of its
node pool, or a running one still lacks part of its minimum, they are called back, as few as will do, by deleting their
pods with time to hand on their data (``Evict``). Their room stays charged until they are gone, and then goes to the one
that waits, since nobody passes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from muster.queueing import preemption
from muster.queueing.preemption import ExecutorLoss, PreemptionPlan, Victim
from muster.scheduling import gangs, lending
from muster.scheduling.decisions import Appraise, Evict
from muster.scheduling.model import ApplicationKey, Phase
from muster.scheduling.records import Gang, Pressed
from muster.scheduling.state import State

CALLED_BACK = "ExecutorCalledBack"
PREEMPTED = "ApplicationPreempted"
CANDIDATES = (1000, 8000, None)
"""Pods that are looked at first, and how many more if these do not suffice."""


def relieve(state: State) -> None:
    """Take room back for those who have waited long enough for it. For every ``TimePassed``."""
    if not state.config.pressure.enabled or state.config.asked or not state.synced:
        return
    claimants = list(_claimants(state))
    waiting = {gang.key for gang in claimants}
    for key in [key for key in state.pressed if key not in waiting]:
        del state.pressed[key]
    if not claimants:
        state.losses.clear()
    for gang in claimants:
        pressed = state.pressed.get(gang.key)
        if pressed is None:
            since = gang.found if gang.phase is Phase.PENDING else state.at
            pressed = state.pressed[gang.key] = Pressed(since)
        if state.at >= max(pressed.since + state.config.pressure.after, pressed.next):
            _relieve(state, gang, pressed)


def losses_known(state: State, key: ApplicationKey, losses: Iterable[tuple[str, ExecutorLoss]]) -> None:
    """A driver has told what would be lost with its executors."""
    if state.pressed:
        state.losses[key] = dict(losses)


def _claimants(state: State) -> Iterator[Gang]:
    """Applications for which others are held back: one for each node pool, and those that wait for quota."""
    keys = [*(state.blockers[pool].key for pool in sorted(state.blockers)), *sorted(state.closed.values())]
    for key in dict.fromkeys(keys):
        gang = state.gangs.get(key)
        if gang is not None and gang.application is not None and (gang.owed or gangs.is_ready(gang)):
            yield gang


def _relieve(state: State, gang: Gang, pressed: Pressed) -> None:
    config = state.config.pressure
    coming = lending.on_their_way(state, gang)
    with lending.on_trial(state, gang) as trial:
        trial.free(coming)
        try:
            plan = _plan(state, gang, trial, pressed)
            if plan is not None and _comes_by_itself(state, gang, trial, plan):
                pressed.next = state.at + min(config.interval, max(victim.grace for victim in plan.victims))
                return
        finally:
            trial.take_back(coming)
    if plan is not None:
        pressed.until = state.at + max(victim.grace for victim in plan.victims)
        _carry_out(state, gang, plan)


def _plan(state: State, gang: Gang, trial: lending.Trial, pressed: Pressed) -> PreemptionPlan | None:
    """Who is to be called back; ``None`` while nobody is: it is not needed, would not help, or is too soon."""
    if trial.fits():
        return None  # enough is on its way
    config = state.config.pressure
    standings, total = lending.standings(state), state.total
    for most in CANDIDATES:
        holders, complete = lending.holders(state, gang, standings, total, most)
        wanted = lending.losses_wanted(state, holders)
        if config.loss_wait > 0 and wanted and not pressed.asked:
            pressed.asked, pressed.next = True, state.at + config.loss_wait
            state.decisions.extend(Appraise(key) for key in wanted)
            return None
        claimant = lending.claimant_of(gang)
        plan = preemption.plan(claimant, holders, standings, total, trial, round_limit=config.round_limit)
        if plan.victims or complete:
            break
    pressed.asked, pressed.next = False, state.at + config.interval
    return plan if plan.victims else None


def _comes_by_itself(state: State, gang: Gang, trial: lending.Trial, plan: PreemptionPlan) -> bool:
    """Whether applications that end by themselves make room before the victims would be gone."""
    soon = lending.ending_before(state, state.at + max(victim.grace for victim in plan.victims), gang.key)
    trial.free(soon)
    try:
        return trial.fits()
    finally:
        trial.take_back(soon)


def _carry_out(state: State, gang: Gang, plan: PreemptionPlan) -> None:
    by_application: dict[ApplicationKey, list[Victim]] = {}
    for victim in plan.victims:
        by_application.setdefault(victim.application, []).append(victim)
    for key, victims in by_application.items():
        _call_back(state, gang, state.gangs[key], victims)


def _call_back(state: State, gang: Gang, lender: Gang, victims: Sequence[Victim]) -> None:
    whole = victims[0].whole
    reason = PREEMPTED if whole else CALLED_BACK
    for victim in victims:
        record = lending.record_of(state, victim.pod)
        record.leaving = gang.key
        state.leaving[record.id] = record
        state.decisions.append(Evict(lender.key, record.ref, victim.grace, reason, victim.core_seconds))
        if record is not lender.driver:
            message = f"{gang.key} waits for its minimum: {victim.reason}"
            state.publish(lender, record.ref, reason, message, warning=whole)
    lost = sum(victim.core_seconds for victim in victims)
    what = f"all {len(victims)} pods are" if whole else f"{len(victims)} executor(s) above its minimum are"
    message = (
        f"{what} called back for {gang.key}, which waits for its minimum; at most {lost:.0f} core-seconds are lost"
    )
    if lender.driver is not None:
        state.publish(lender, lender.driver.ref, reason, message, warning=whole)
    else:
        state.tell(lender, message)
    state.tell(gang, f"called back for it: {len(victims)} pod(s) of {lender.key}, {lost:.0f} core-seconds at most")
