"""Events on the drivers of those that wait: once when it takes a while, and when the reason has become another one."""

from __future__ import annotations

from muster.scheduling.decisions import Publish
from muster.scheduling.model import Phase
from muster.scheduling.reasons import EXCEEDS, EXCEEDS_QUEUE, NOT_ALLOWED, UNKNOWN_QUEUE
from muster.scheduling.sentences import sentence_of
from muster.scheduling.state import State

AFTER = 5.0
"""Seconds that an application must have waited: most do not wait that long, and every event is a write."""
AGAIN = 180.0
"""Seconds between two events of one application, at least."""
MOST = 10
"""Events at a time, for all applications together; the others come with the next ``TimePassed``."""
_NEEDS_SOMEBODY = frozenset({EXCEEDS, EXCEEDS_QUEUE, NOT_ALLOWED, UNKNOWN_QUEUE})
"""Waiting alone does not help: a warning."""


def announce(state: State) -> None:
    """Tell who waits why, as far as that is due. For every ``TimePassed``."""
    if state.config.asked or not state.synced:
        return
    told = 0
    for key in list(state.unannounced):
        gang = state.gangs.get(key)
        driver = gang.driver if gang is not None else None
        if gang is None or driver is None or gang.phase is not Phase.PENDING or gang.reason in ("", gang.announced):
            del state.unannounced[key]
            continue
        if state.at < max(gang.found + AFTER, gang.announced_at + AGAIN):
            continue
        del state.unannounced[key]
        gang.announced, gang.announced_at = gang.reason, state.at
        warning = gang.reason in _NEEDS_SOMEBODY
        state.decisions.append(Publish(key, driver.ref, warning, gang.reason, sentence_of(gang)))
        told += 1
        if told == MOST:
            return
