"""What the queues say to an application: whether it may be there at all, and whether its quota allows it now.

A whole gang is allowed or not, never a part of it. One that its quota does not allow keeps the place it hit closed, so
that smaller ones of the same place do not pass it for ever: a queue, or what one user has there.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator

from muster.cluster.resources import Resources
from muster.queueing.config import Policy
from muster.queueing.rules import denial
from muster.queueing.standing import Entry
from muster.queueing.usage import Charge, Refusal, RefusalKind
from muster.scheduling.model import ApplicationKey, Pod
from muster.scheduling.reasons import BEHIND, EXCEEDS_QUEUE, NOT_ALLOWED, OVER_QUOTA, UNKNOWN_QUEUE
from muster.scheduling.records import GANG_PROFILE, NOTHING, Gang, Place
from muster.scheduling.state import State

Told = tuple[str, str]
"""Reason and message."""
_NAMED = 10
_RULINGS = 4096


def entry_of(gang: Gang) -> Entry:
    """Its place among those that wait."""
    application = gang.application
    assert application is not None
    return Entry(
        created=application.created,
        key=gang.key,
        queue=application.queue,
        user=application.user,
        groups=application.groups,
        priority=application.priority,
        pool=application.pool,
    )


def standing(state: State, gang: Gang) -> Told | None:
    """Why the application has no place in the queue it names, or must wait for another there; ``None``: it may try."""
    told = configured(state, gang)
    if told is not None:
        return told
    owner = _shut_out_by(state, gang) if not is_promised(state, gang) else None
    if owner is not None:
        place, holder = owner
        return BEHIND, f"{holder} waits for quota in {place}, and goes first"
    return None


def is_promised(state: State, gang: Gang) -> bool:
    """Whether the gang was promised a time: then nobody comes before it any more."""
    future = state.futures.get(gang.pool)
    return future is not None and future.at is not None and future.key == gang.key


def configured(state: State, gang: Gang) -> Told | None:
    """Why the application may not be where it wants to be, as the queues are configured."""
    if gang.ruled_at != state.rules_version:
        if state.rulings_at != state.rules_version or len(state.rulings) >= _RULINGS:
            state.rulings.clear()
            state.rulings_at = state.rules_version
        application = gang.application
        assert application is not None
        case = (application.queue, application.user, application.groups, application.pool)
        if case not in state.rulings:
            state.rulings[case] = _ruled(state, gang)
        gang.ruled_at, gang.ruled = state.rules_version, state.rulings[case]
    return gang.ruled


def _ruled(state: State, gang: Gang) -> Told | None:
    application = gang.application
    assert application is not None
    tree, queue = state.queues.tree, application.queue
    if not tree.leaf(queue):
        leaves = tree.leaves
        named = ", ".join(leaves[:_NAMED]) + (f" and {len(leaves) - _NAMED} more" if len(leaves) > _NAMED else "")
        why = "has queues below it and takes no applications itself" if queue in tree else "does not exist"
        return UNKNOWN_QUEUE, f"its queue {queue!r} {why}; applications may use {named}"
    denied = denial(tree, queue, application.user, application.groups)
    if denied is not None:
        return NOT_ALLOWED, denied.message()
    if not tree.allows(queue, application.pool):
        pools = [tree.config(name).node_pools for name in tree.path(queue)]
        allowed = ", ".join(repr(pool) for pool in next(names for names in reversed(pools) if names))
        return NOT_ALLOWED, f"queue {queue} may not use node pool {application.pool!r}, only {allowed}"
    return None


def refusal(state: State, gang: Gang) -> Refusal | None:
    """The limit that the whole gang would break now."""
    application = gang.application
    assert application is not None
    if not state.queues.tree.limited(application.queue):
        return None
    used, driver = _asked(gang)
    return state.queues.refusal(application, used, driver, state.total, new=True)


def whom_delays(state: State, gang: Gang) -> ApplicationKey | None:
    """Who was promised a time, and would then lack quota that this gang takes now and may still have; or ``None``."""
    application = gang.application
    assert application is not None
    used, driver = _asked(gang)
    return _whom_delays(state, gang, used, driver, application.run_seconds)


def _whom_delays(
    state: State, gang: Gang, used: Resources, driver: Resources, run_seconds: float | None
) -> ApplicationKey | None:
    application, usage = gang.application, state.queues.usage
    assert application is not None
    heads = [head for head in _promised(state, run_seconds) if _share_limits(state, gang, head)]
    if not heads:
        return None
    before = usage.charges.get(gang.key)
    usage.set_charge(gang.key, Charge(application.queue, application.user, application.groups, used, driver))
    try:
        for head in heads:
            assert head.application is not None
            asked, its_driver = _asked(head)
            if usage.refusal(head.application, asked, its_driver, state.total, new=True) is not None:
                return head.key
    finally:
        usage.set_charge(gang.key, before)
    return None


def _promised(state: State, run_seconds: float | None) -> Iterator[Gang]:
    """Those that were promised a time before which somebody who starts now may not have ended."""
    for future in state.futures.values():
        head = state.gangs.get(future.key)
        if head is None or head.application is None or head.holds or future.at is None:
            continue
        if run_seconds is None or state.at + run_seconds > future.at:
            yield head


def _share_limits(state: State, gang: Gang, head: Gang) -> bool:
    tree, mine, other = state.queues.tree, gang.application, head.application
    assert mine is not None and other is not None
    shared = [queue for queue in tree.path(mine.queue) if queue in tree.path(other.queue)]
    return head is not gang and bool(shared) and tree.limited(shared[-1])


def still_refused(state: State, gang: Gang) -> bool:
    """Whether nothing has changed in the limit that the gang keeps closed: it is known to be over it yet."""
    limit = gang.over
    if limit is None or gang.closes is None or limit.kind is not RefusalKind.QUEUE_MAX:
        return False
    if gang.ruled_at != state.rules_version or limit.queue not in state.queues.tree:
        return False
    held = state.queues.usage.accounts[limit.queue].used.get(limit.resource, 0)
    return held + limit.asked > limit.limit


def claim_of(gang: Gang, minimum: int) -> tuple[Resources, Resources]:
    """What the gang would ask of its queue if its minimum were this one, and its driver's part of that."""
    application, driver = gang.application, _driver(gang)
    assert application is not None
    return driver + application.executor.requests.times(max(minimum, gang.placed_in_gang)), driver


def refusal_with(state: State, gang: Gang, minimum: int) -> Refusal | None:
    """The limit that the whole gang would break now if its minimum were this one."""
    application = gang.application
    assert application is not None
    used, driver = claim_of(gang, minimum)
    return state.queues.refusal(application, used, driver, state.total, new=True)


def refuse(state: State, gang: Gang, limit: Refusal) -> None:
    """Note that the gang waits for its quota, and keep the place of that limit closed meanwhile."""
    application = gang.application
    assert application is not None
    used, driver = _asked(gang)
    never = state.queues.never(application, used, driver, state.total)
    if never is not None:
        reopen(state, gang)
        _say(state, gang, EXCEEDS_QUEUE, f"can never start in queue {application.queue}: {never.message()}")
        return
    place = _place_of(limit)
    if gang.closes not in (None, place):
        reopen(state, gang)
    if place not in state.closed:
        state.closed[place] = gang.key
        state.closed_to_some = state.closed_to_some or bool(place[1])
        gang.closes = place
    before, gang.over = gang.over, limit
    if gang.reason != OVER_QUOTA or before is None or not _same_limit(before, limit):
        _say(state, gang, OVER_QUOTA, limit.message())  # once: what the queue holds moves all the time


def reopen(state: State, gang: Gang) -> None:
    """The gang no longer keeps a place closed."""
    if gang.closes is not None:
        state.closed.pop(gang.closes, None)
        state.told.discard(gang.closes)
        state.stirred = state.stirred or gang.closes in state.shut_out
        gang.closes = gang.over = None


def extra_refusal(state: State, gang: Gang, pod: Pod) -> str:
    """Why an executor above the minimum may not be placed, when that is for its queue to say; "" when it may."""
    application = gang.application
    if application is None or not state.queues.tree.limited(application.queue):
        return ""
    owner = _shut_out_by(state, gang)
    if owner is not None:
        place, holder = owner
        return f"{holder} waits for quota in {place}, which goes before executors above a minimum"
    limit = state.queues.refusal(application, pod.requests, NOTHING, state.total, new=False)
    if limit is not None:
        return limit.message()
    if not state.futures:
        return ""
    held = state.queues.usage.charges.get(gang.key) or Charge(application.queue)
    delayed = _whom_delays(state, gang, held.used + pod.requests, held.driver, None)
    return f"{delayed} was promised that quota" if delayed is not None else ""


def settle_if_limited(state: State, gang: Gang) -> None:
    """As ``settle``, where it matters before the end of the event: where somebody may next be refused."""
    application = gang.application
    if application is not None and state.queues.tree.limited(application.queue):
        settle(state, gang)


def settle(state: State, gang: Gang) -> None:
    """Bring what the queue is charged with in line with what the gang holds."""
    application = gang.application
    if application is None or not gang.holds:
        if gang.charged is not None:
            gang.charged = None
            forget_end(state, gang)
            state.queues.charge(gang.key, None)
            state.stirred = state.stirred or bool(state.closed)
        return
    slots = gang.placed_in_gang + gang.unfilled + gang.owed
    held = (slots, sum(gang.placed.values()), gang.driver is not None, application.executor.requests)
    if held == gang.charged:
        return
    before, gang.charged = gang.charged, held
    if application.run_seconds is not None and gang.ends is None:
        gang.ends = (gang.reserved if gang.reserved is not None else state.at) + application.run_seconds
        insort(state.ends, (gang.ends, gang.key))
    driver = _driver(gang)
    used = driver + application.executor.requests.times(slots)
    if len(gang.placed) > (GANG_PROFILE in gang.placed):
        used = used + _other_profiles(gang)
    state.queues.charge(
        gang.key, Charge(application.queue, application.user, application.groups, used=used, driver=driver)
    )
    if before is not None and held[:2] < before[:2] and state.queues.tree.limited(application.queue):
        state.stirred = True  # quota came free


def forget_end(state: State, gang: Gang) -> None:
    """Nothing will come free when it ends."""
    if gang.ends is not None:
        del state.ends[bisect_left(state.ends, (gang.ends, gang.key))]
        gang.ends = None


def same_line(state: State, ahead: Gang, behind: Gang) -> bool:
    """Whether the order between two waiting applications is that of their creation and cannot change."""
    first, second = ahead.application, behind.application
    if first is None or second is None or first.queue != second.queue:
        return False
    return state.queues.tree.leaf(first.queue) and state.queues.tree.config(first.queue).policy is Policy.FIFO


def closed_by(state: State, gang: Gang) -> tuple[str, ApplicationKey] | None:
    """The place that another application keeps closed for this one, in words, and that application."""
    place = _closed_place(state, gang)
    if place is None:
        return None
    return _in_words(place), state.closed[place]


def _shut_out_by(state: State, gang: Gang) -> tuple[str, ApplicationKey] | None:
    """The same, noting that somebody was refused because of it."""
    place = _closed_place(state, gang)
    if place is None:
        return None
    state.shut_out.add(place)
    return _in_words(place), state.closed[place]


def _in_words(place: Place) -> str:
    queue, kind, name = place
    return f"queue {queue}" + (f" for {kind} {name or 'unknown'}" if kind else "")


def _closed_place(state: State, gang: Gang) -> Place | None:
    if not state.closed:
        return None
    application, tree = gang.application, state.queues.tree
    assert application is not None
    path, key = tree.path(application.queue), gang.key
    places: list[Place] = [(queue, "", "") for queue in path]
    if state.closed_to_some:
        group = tree.group_of(application.queue, application.groups)
        places += [(queue, "user", application.user) for queue in path]
        places += [(queue, "group", group) for queue in path if group]
    for place in places:
        holder = state.closed.get(place)
        if holder is not None and holder != key:
            return place
    return None


def _asked(gang: Gang) -> tuple[Resources, Resources]:
    """What the whole gang asks of its queue, and its driver's part of that."""
    application, driver = gang.application, _driver(gang)
    assert application is not None
    count = max(application.minimum, gang.placed_in_gang)
    known = gang.asked
    if known is None or known[:2] != (count, driver):
        known = gang.asked = (count, driver, driver + application.executor.requests.times(count))
    return known[2], driver


def _same_limit(one: Refusal, other: Refusal) -> bool:
    return (one.kind, one.queue, one.resource, one.limit) == (other.kind, other.queue, other.resource, other.limit)


def _driver(gang: Gang) -> Resources:
    return gang.driver.pod.requests if gang.driver is not None and not gang.client else NOTHING


def _place_of(limit: Refusal) -> Place:
    """What of a queue waits until this limit allows more: all of it, or one user or group."""
    match limit.kind:
        case RefusalKind.USER_MAX | RefusalKind.USER_APPLICATIONS:
            return (limit.queue, "user", limit.user)
        case RefusalKind.GROUP_MAX | RefusalKind.GROUP_APPLICATIONS:
            return (limit.queue, "group", limit.group)
        case _:
            return (limit.queue, "", "")


def _other_profiles(gang: Gang) -> Resources:
    used = NOTHING
    for record in gang.pods.values():
        if record.room and record is not gang.driver and record.pod.profile != GANG_PROFILE:
            used = used + record.charged
    return used


def _say(state: State, gang: Gang, reason: str, message: str) -> None:
    if (gang.reason, gang.message) != (reason, message):
        gang.reason, gang.message = reason, message
        state.tell(gang, f"{reason}: {message}")
