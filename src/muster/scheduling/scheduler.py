"""The scheduler: what may be asked of it, and which part of it each event concerns."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from muster.cluster.nodes import NodeTable
from muster.scheduling import executors, gangs, lifecycle, offers, pressure, quota, restoring, turns
from muster.scheduling.config import SchedulerConfig
from muster.scheduling.decisions import Decision
from muster.scheduling.events import (
    ApplicationFound,
    ApplicationInvalid,
    Event,
    LossesKnown,
    NodeGone,
    NodeSeen,
    PodGone,
    PodSeen,
    QueuesChanged,
    ReservationRestored,
    Synced,
    TimePassed,
)
from muster.scheduling.explaining import Eta, Explanation, explain
from muster.scheduling.model import (
    ApplicationKey,
    Choice,
    GangStatus,
    Holding,
    Outcome,
    Placement,
    Pod,
    PodShape,
    Reservation,
)
from muster.scheduling.outlook import Outlook, outlook
from muster.scheduling.queue_report import QueueDetails, QueueReport, report_queue, report_queues
from muster.scheduling.reporting import changes_of, holding_of, report, reservation_of, status_of
from muster.scheduling.state import State
from muster.scheduling.story import StoryEntry
from muster.scheduling.validation import validate


class Scheduler:
    """Events in, decisions out. Deterministic: the same events and questions in the same order give the same answers.

    Raises:
        packing.UnknownPackerError: ``config`` names a packer that does not exist.
    """

    def __init__(self, config: SchedulerConfig | None = None) -> None:
        self._state = State(config if config is not None else SchedulerConfig())

    def handle(self, event: Event) -> list[Decision]:
        """Take note of what happened; returns what is to be done, in order, also what earlier placements entail."""
        state = self._state
        state.at = max(state.at, event.at)
        state.cause = event
        executors.expire(state)
        match event:
            case PodSeen(pod=pod):
                lifecycle.pod_seen(state, pod)
            case PodGone(pod=ref):
                lifecycle.pod_gone(state, ref)
            case NodeSeen(node=node):
                lifecycle.node_seen(state, node)
            case NodeGone(name=name):
                lifecycle.node_gone(state, name)
            case ApplicationFound(application=application):
                lifecycle.application_found(state, application)
            case ApplicationInvalid(key=key, driver_pod=driver, reason=reason, message=message):
                lifecycle.application_invalid(state, key, driver, reason, message)
            case ReservationRestored(application=application, reservation=reservation, status=status):
                lifecycle.reservation_restored(state, application, reservation, status)
            case LossesKnown(key=key, losses=losses):
                pressure.losses_known(state, key, losses)
            case QueuesChanged(queues=queues):
                lifecycle.queues_changed(state, queues)
            case Synced():
                if not state.synced:
                    restoring.settle_all(state)
                    state.synced = True
            case TimePassed():
                lifecycle.time_passed(state)
                offers.shelve_unasked(state)
        return self._decide()

    def place_executor(self, pod: Pod, at: float) -> Placement:
        """Where an executor that is being created goes. Asked again before the pod is seen, the answer is the same.

        What else the answer entails (a reservation corrected or moved) comes with the decisions of the next event.
        """
        state = self._state
        state.at = max(state.at, at)
        if not state.synced:
            return executors.SYNCING
        state.cause = pod
        if state.promises and state.promises[0][0] <= state.at:
            executors.expire(state)
        placement = executors.answer(state, pod)
        if state.joining:
            turns.join_clients(state)
            placement = executors.answer(state, pod)
        return placement

    def choose(self, pod: Pod, offered: Collection[str], at: float) -> tuple[Choice, list[Decision]]:
        """Which of the ``offered`` nodes an unbound pod goes to, and what else that entails. For ``config.asked``.

        Pods that an external scheduler has yet to bind are told, and asked about, as ``gated``.
        """
        state = self._state
        state.at = max(state.at, at)
        state.cause = pod
        if not state.synced:
            return Choice(Outcome.UNKNOWN, reason=executors.SYNCING.reason), []
        turns.take_turns(state)
        choice = offers.choose(state, pod, offered)
        return choice, self._decide()

    def explain(self, key: ApplicationKey, at: float, eta: Eta | None = None) -> Explanation | None:
        """Why an application is where it is; ``None`` when it is not known. Changes nothing.

        ``eta``: when it will start, for somebody who knows that from elsewhere.
        """
        return explain(self._state, key, max(self._state.at, at), eta)

    def outlook(self, key: ApplicationKey) -> Outlook | None:
        """What its expected start can be worked out from; ``None`` when it does not wait for room. Changes nothing."""
        return outlook(self._state, key)

    def story(self, key: ApplicationKey) -> tuple[StoryEntry, ...]:
        """What happened to an application, oldest first; the last ``story_length`` entries."""
        gang = self._state.gangs.get(key)
        if gang is not None:
            return tuple(gang.story)
        ended = self._state.ended.get(key)
        return ended.story if ended is not None else ()

    def status(self, key: ApplicationKey) -> GangStatus | None:
        """The status of one application, also for a while after its end."""
        gang = self._state.gangs.get(key)
        if gang is not None:
            return status_of(gang)
        ended = self._state.ended.get(key)
        return ended.status if ended is not None else None

    def applications(self) -> Mapping[ApplicationKey, GangStatus]:
        """The status of every application that has pods, by key."""
        return {key: status_of(gang) for key, gang in sorted(self._state.gangs.items())}

    @property
    def table(self) -> NodeTable:
        """What the cluster has and what is free of it; for reading only."""
        return self._state.table

    def reservation(self, key: ApplicationKey) -> Reservation | None:
        """What an application holds now, as it would be written; ``None`` when it holds nothing."""
        gang = self._state.gangs.get(key)
        return reservation_of(gang) if gang is not None and gang.holds else None

    def holding(self, key: ApplicationKey) -> Holding | None:
        """The same, pod by pod."""
        gang = self._state.gangs.get(key)
        return holding_of(gang) if gang is not None and gang.holds else None

    def changes(self, key: ApplicationKey) -> Holding | None:
        """What changed in ``holding`` since this was last asked, in time that depends on nothing else.

        ``None`` when it holds nothing now. For one asker, who keeps what he was told.
        """
        gang = self._state.gangs.get(key)
        return changes_of(gang) if gang is not None and gang.holds else None

    def unfilled(self, key: ApplicationKey) -> Mapping[str, int]:
        """Slots of an application without an executor, by node; for reading only."""
        gang = self._state.gangs.get(key)
        return gang.free if gang is not None and gang.holds else {}

    def room_of(self, namespace: str, name: str) -> str:
        """The node on which a pod has room, "" when it has none."""
        record = self._state.pods.get((namespace, name))
        return record.room if record is not None else ""

    def queues(self) -> list[QueueReport]:
        """Every queue with what it holds and how many wait, parents before children."""
        return report_queues(self._state.queues, self._state.total)

    def queue(self, name: str) -> QueueDetails | None:
        """One queue with its users and who waits in it, in order; ``None`` when there is none of this name."""
        return report_queue(self._state.queues, name, self._state.total, self._told)

    def _told(self, key: ApplicationKey) -> tuple[str, str, str]:
        gang = self._state.gangs[key]
        name = gang.application.name if gang.application is not None else ""
        return name, gang.reason, gang.message

    def demands(self) -> Mapping[ApplicationKey, tuple[tuple[PodShape, int], ...]]:
        """Room that is missing, per application that misses any."""
        return {key: gang.demand for key, gang in sorted(self._state.gangs.items()) if gang.demand}

    def validate(self) -> None:
        """Check the invariants from scratch. Raises ``InvariantError`` that names the one that does not hold."""
        validate(self._state)

    def _decide(self) -> list[Decision]:
        state = self._state
        if not state.synced:
            return []
        while True:
            turns.take_turns(state)
            for gang in list(state.dirty.values()):
                quota.settle(state, gang)
            if not state.stirred:
                break
        while state.dirty:
            dirty, state.dirty = list(state.dirty.values()), {}
            for gang in dirty:
                report(state, gang)
                gangs.drop_if_over(state, gang)
        decisions, state.decisions = state.decisions, []
        return decisions
