"""A copy of the state to try things on, with the scheduler's own code; the state itself stays as it is.

Amounts and indexes are copied at once. Of applications there are many, and a trial looks at few: each is copied when
the trial first looks at it. The queues are lent instead, and take back what the trial changed in them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from typing import Any

import msgspec

from muster.queueing.tree import QueueTree
from muster.scheduling import gangs
from muster.scheduling.ceilings import Ceilings
from muster.scheduling.model import Application, ApplicationKey, Pod, PodShape
from muster.scheduling.records import Gang
from muster.scheduling.state import Future, State
from muster.scheduling.zones import Zones


@contextmanager
def on_trial(state: State, *, limits: QueueTree | None = None, more_nodes: bool = False) -> Iterator[State]:
    """A state to try something on. It may be used for no more than ``turns.would_start``, and for its own changes.

    ``limits``: a tree of the same queues with other limits, under which the trial takes place. ``more_nodes``: nodes
    will be added to it.
    """
    trial = copy(state)
    trial.table = state.table.copy()
    trial.ceilings, trial.zones = Ceilings(trial.table), Zones(trial.table)
    trial.gangs = copies = _Copies(state.gangs, more_nodes)
    trial.owing = {key: copies[key] for key in state.owing}
    trial.ends, trial.shut_out = state.ends.copy(), set()
    trial.swept = {}
    trial.told, trial.rulings, trial.rulings_at, trial.kinds = state.told.copy(), {}, -1, {}
    trial.rulings, trial.rulings_at = {}, -1
    trial.unannounced, trial.kinds = {}, state.kinds.copy()
    trial.unasked, trial.holding, trial.joining, trial.opened, trial.overdrawn = {}, {}, {}, {}, {}
    trial.dirty, trial.decisions = {}, []
    trial.blockers, trial.closed, trial.told_at = state.blockers.copy(), state.closed.copy(), state.told_at.copy()
    trial.futures = {pool: _copy_of_future(future, more_nodes) for pool, future in state.futures.items()}
    trial.freed_amounts = state.freed_amounts.copy()
    if more_nodes or limits is not None:
        trial.told_at.clear()
        trial.stirred = True
    if more_nodes:
        trial._total_at = -1
    if limits is not None:
        trial.rules_version += 1
    with state.queues.on_trial(limits):
        yield trial


def resize(trial: State, application: Application) -> Gang:
    """Let a waiting application ask for something else; its driver pod comes with the driver's new constraints."""
    gang = trial.gangs[application.key]
    record, driver = gang.driver, application.driver
    if record is not None and driver is not None and record.pod.constraints != driver.constraints:
        gang.driver = copy(record)
        gang.driver.pod = _with_constraints(record.pod, driver)
    trial.leave_queue(gang)
    gangs.sized(trial, gang, application)
    return gang


class _Copies(dict[ApplicationKey, Gang]):
    """Applications by key, copied when they are looked up."""

    def __init__(self, originals: Mapping[ApplicationKey, Gang], more_nodes: bool) -> None:
        super().__init__(originals)
        self._copied: set[ApplicationKey] = set()
        self._more_nodes = more_nodes

    def __getitem__(self, key: ApplicationKey) -> Gang:
        gang = super().__getitem__(key)
        if key not in self._copied:
            gang = self[key] = _copy_of_gang(gang, self._more_nodes)
            self._copied.add(key)
        return gang

    def get(self, key: ApplicationKey, default: Any = None) -> Any:
        try:
            return self[key]
        except KeyError:
            return default


def _with_constraints(pod: Pod, shape: PodShape) -> Pod:
    return msgspec.structs.replace(pod, constraints=shape.constraints)


def _copy_of_gang(gang: Gang, more_nodes: bool) -> Gang:
    other = copy(gang)
    other.placed, other.free = gang.placed.copy(), gang.free.copy()
    other.held, other.held_kinds, other.pods = gang.held.copy(), gang.held_kinds.copy(), gang.pods.copy()
    other.story = gang.story.copy()
    other.journal = None
    if more_nodes:  # what was worked out for the nodes there are, save rows, which new nodes leave as they are
        other.failed_at = other.excess_at = -1
        other.shortfall = None
    return other


def _copy_of_future(future: Future, more_nodes: bool) -> Future:
    other = copy(future)
    other.spare = future.spare.copy()
    if more_nodes:
        other.version = other.nodes_version = -1
    return other
