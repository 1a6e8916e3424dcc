"""What the outside is told at the end of each event: moved reservations, conditions, demands; only what changed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from muster.scheduling.decisions import Condition, Demand, Reserve
from muster.scheduling.model import GangStatus, Holding, Phase, PodShape, Reservation, Role, Slot
from muster.scheduling.reasons import WITHOUT_DEMAND
from muster.scheduling.records import GANG_PROFILE, Gang, Journal
from muster.scheduling.state import State


def status_of(gang: Gang) -> GangStatus:
    return GangStatus(
        phase=gang.phase,
        reason=gang.reason,
        message=gang.message,
        running=gang.running,
        held=len(gang.held),
        extras=gang.extras,
        found=gang.found,
        reserved=gang.reserved,
        driver_bound=gang.driver_bound,
        minimum_reached=gang.minimum_reached,
        ended=gang.ended,
    )


def demand_of(gang: Gang) -> tuple[tuple[PodShape, int], ...]:
    """Room that is missing for an application: what it waits for, is owed, or holds back executors for."""
    application = gang.application
    if application is None:
        return ()
    missing: dict[PodShape, int] = {}
    if gang.phase is Phase.PENDING:
        if gang.reason in WITHOUT_DEMAND:
            return ()
        if gang.driver is not None and not gang.client:
            missing[PodShape(gang.driver.pod.requests, gang.driver.pod.constraints)] = 1
        elif not gang.client:
            return ()
        if application.minimum:
            missing[application.executor] = missing.get(application.executor, 0) + application.minimum
    elif gang.holds:
        if gang.owed:
            missing[application.executor] = gang.owed
        if not gang.over_quota:
            for shape, count in _held_in_vain(gang, application.maximum):
                missing[shape] = missing.get(shape, 0) + count
    return tuple(missing.items())


def _held_in_vain(gang: Gang, maximum: int | None) -> Iterator[tuple[PodShape, int]]:
    """Held executors that may come, without those that slots are owed to; ``maximum``: of each resource profile."""
    allowed = {
        profile: max(0, maximum - gang.placed.get(profile, 0)) if maximum is not None else len(gang.held)
        for profile, _ in gang.held_kinds
    }
    spare = gang.owed
    if len(allowed) == len(gang.held_kinds):  # those of a profile are all alike: no need to look at each
        kinds = sorted(gang.held_kinds.items(), key=lambda kind: kind[0][0])
    else:
        held = sorted(gang.held.values(), key=lambda record: record.turn())
        kinds = [(record.held_as, 1) for record in held if record.held_as is not None]
    for (profile, shape), count in kinds:
        coming = min(count, allowed[profile])
        allowed[profile] -= coming
        if profile == GANG_PROFILE:
            filling = min(coming, spare)
            spare -= filling
            coming -= filling
        if coming:
            yield shape, coming


def reserve(state: State, gang: Gang) -> None:
    """Decide that the reservation be written as it is now."""
    application = gang.application
    assert application is not None
    gang.revision += 1
    gang.drifted = False
    gang.durable = slots_by_node(gang)
    gang.reported = status_of(gang)
    state.decisions.append(Reserve(application, _reservation(gang, gang.durable), gang.reported))


def reservation_of(gang: Gang) -> Reservation:
    """What a gang holds now."""
    return _reservation(gang, slots_by_node(gang))


def holding_of(gang: Gang) -> Holding:
    """The same, pod by pod."""
    executors = [record for record in gang.pods.values() if record.room and record.pod.role is Role.EXECUTOR]
    return Holding(
        driver_node=_driver_node(gang),
        unfilled=tuple([Slot(node, count) for node, count in gang.free.items()]),
        owed=gang.owed,
        executors=tuple([(record.pod.name, record.room) for record in executors]),
    )


def _driver_node(gang: Gang) -> str:
    return gang.reserved_driver or (gang.driver.claim if gang.driver is not None else "")


def changes_of(gang: Gang) -> Holding:
    """What changed in ``holding_of`` since the last call; everything the first time, or when that is less work."""
    journal, gang.journal = gang.journal, Journal()
    if journal is None:
        return holding_of(gang)
    executors = []
    for pod_id in journal.executors:
        record = gang.pods.get(pod_id)
        room = record.room if record is not None and record.pod.role is Role.EXECUTOR else ""
        executors.append((pod_id[1], room))
    return Holding(
        driver_node=_driver_node(gang),
        unfilled=tuple([Slot(node, gang.free.get(node, 0)) for node in journal.nodes]),
        owed=gang.owed,
        executors=tuple(executors),
        whole=False,
    )


def _reservation(gang: Gang, slots: dict[str, int]) -> Reservation:
    listed = tuple([Slot(node, slots[node]) for node in sorted(slots)])
    return Reservation(gang.key, gang.revision, gang.reserved_driver, listed)


def slots_by_node(gang: Gang) -> dict[str, int]:
    """Slots of the minimum: the unfilled ones, and those that executors fill (of more, the first by name)."""
    slots = dict(gang.free)
    filled = gang.minimum - gang.unfilled - gang.owed if gang.holds else 0
    if filled > 0:
        pods = gang.pods
        chosen = pods.values() if gang.placed_in_gang <= filled else (pods[key] for key in sorted(pods))
        for record in islice((record for record in chosen if record.in_gang), filled):
            slots[record.room] = slots.get(record.room, 0) + 1
    return slots


def report(state: State, gang: Gang) -> None:
    """Append the decisions that tell what is new about a gang."""
    if gang.application is None and gang.phase is Phase.PENDING:
        return
    if gang.holds:
        if gang.durable is None:
            reserve(state, gang)
        elif gang.drifted and (gang.unfilled or gang.owed):
            gang.drifted = False
            if slots_by_node(gang) != gang.durable:
                reserve(state, gang)
        begun = gang.driver_bound is not None or gang.client
        if gang.minimum_reached is None and begun and gang.running >= gang.minimum:
            gang.minimum_reached = state.at
    demand = demand_of(gang)
    if demand != gang.demand:
        gang.demand = demand
        state.decisions.append(Demand(gang.key, demand))
    status = status_of(gang)
    if status != gang.reported:
        if status.phase is Phase.PENDING and (gang.reported is None or gang.reported.reason != status.reason):
            state.unannounced[gang.key] = None
        gang.reported = status
        state.decisions.append(Condition(gang.key, status))
