"""Everything the scheduler knows, and the notes one event leaves for the end of its handling."""

from __future__ import annotations

from collections import OrderedDict, deque

from muster.cluster.nodes import Int64s, NodeTable
from muster.cluster.resources import PODS, Resources
from muster.packing.registry import find_packer
from muster.queueing.fifo import Waiting
from muster.queueing.order import Queues
from muster.queueing.preemption import ExecutorLoss
from muster.queueing.tree import QueueTree
from muster.scheduling.ceilings import Ceilings
from muster.scheduling.config import SchedulerConfig
from muster.scheduling.decisions import Decision, Publish
from muster.scheduling.model import ApplicationKey, GangStatus, PodRef, PodShape
from muster.scheduling.records import Gang, Place, PodId, PodRecord, Pressed
from muster.scheduling.story import StoryEntry, cause_of
from muster.scheduling.zones import Zones


class Ended:
    """What is kept of an application that ended."""

    __slots__ = ("client", "status", "story")

    def __init__(self, gang: Gang, status: GangStatus) -> None:
        self.client = gang.client
        self.status = status
        self.story = tuple(gang.story)


class Future:
    """The future reservation of a waiting application, and what it leaves to others meanwhile."""

    __slots__ = ("at", "key", "nodes_version", "spare", "version")

    def __init__(self, key: ApplicationKey, at: float | None, spare: Int64s, version: int, nodes_version: int) -> None:
        self.key = key
        self.at = at
        """It will start no later than this, if all runs as expected; seconds. ``None``: nobody can tell."""
        self.spare = spare
        """[R, N] what will be free then beside what it takes."""
        self.version = version
        """``NodeTable.version`` of which ``spare`` is true."""
        self.nodes_version = nodes_version


class State:
    def __init__(self, config: SchedulerConfig) -> None:
        self.config = config
        self.policy = config.policy
        self.bind_enabled = config.bind_enabled
        self.packer = find_packer(config.packer)
        self.table = NodeTable()
        self.ceilings = Ceilings(self.table)
        self.zones = Zones(self.table)
        self.at = 0.0
        self.cause: object = None
        """The event, or the pod whose admission was asked about, that is being handled."""
        self.synced = False

        self.pods: dict[PodId, PodRecord] = {}
        self.gangs: dict[ApplicationKey, Gang] = {}
        self.ended: OrderedDict[ApplicationKey, Ended] = OrderedDict()
        self.claims: dict[str, dict[PodId, PodRecord]] = {}
        """Pods by the node they claim."""
        self.queues = Queues(QueueTree(()))
        self.blockers: dict[str, Waiting] = {}
        """Per pool, whom the others (and extras) wait for."""
        self.futures: dict[str, Future] = {}
        """Per pool, what that one was promised, if anything."""
        self.ends: list[tuple[float, ApplicationKey]] = []
        """Of gangs that hold room and whose run time is expected, when they will end, in order."""
        self.told: set[Place] = set()
        """Closed places of which everybody who waits there knows."""
        self.shut_out: set[Place] = set()
        """Closed places because of which somebody was refused in this round."""
        self.closed_to_some = False
        """Some place may be closed to one user or group only."""
        self.closed: dict[Place, ApplicationKey] = {}
        """What is closed to others, and which application waits for quota there."""
        self.rules_version = 0
        """Raised whenever everybody who waits must be considered anew: nodes or queues have changed."""
        self.kinds: dict[tuple[PodShape | None, PodShape], int] = {}
        self.next_kind = 0
        """Numbers of the shapes of drivers and executors that occur together."""
        self.swept: dict[str, tuple[int, int]] = {}
        """Per pool, from which place on those behind the head are still to be tried, and ``freed`` when that began."""
        self.rulings: dict[tuple[str, str, tuple[str, ...], str], tuple[str, str] | None] = {}
        """By queue, user, groups and pool, what the queues' configuration says to that, as of ``rulings_at``."""
        self.rulings_at = -1
        self.told_at: dict[str, int] = {}
        """Per pool, ``rules_version`` as of which everybody who waits has been told why."""
        self.owing: dict[ApplicationKey, Gang] = {}
        """Gangs that are owed slots."""
        self.holding: dict[ApplicationKey, Gang] = {}
        """Gangs with held executors."""
        self.promises: deque[tuple[float, PodRecord]] = deque()
        """Placements whose pods have not appeared, by expiry."""
        self.empty: dict[ApplicationKey, Gang] = {}
        """Gangs without any pod."""

        self.leaving: dict[PodId, PodRecord] = {}
        """Pods that end, by themselves or because they were called back: their room is on its way."""
        self.pressed: dict[ApplicationKey, Pressed] = {}
        """Applications that wait for room that others could give back."""
        self.losses: dict[ApplicationKey, dict[str, ExecutorLoss]] = {}
        """What drivers told about their executors, by Spark's executor id; while somebody waits for room."""

        self.unasked: dict[ApplicationKey, Gang] = {}
        """Reserved gangs whose drivers nobody has asked about, by the time of reservation."""

        self.freed = 0
        """Raised whenever room was freed or a node became usable: what did not fit before may fit now."""
        self.freed_amounts: list[int] = []
        """[R] everything ever given back, summed; and how many times, below."""
        self.freed_times = 0
        self.nodes_version = 0
        """Raised whenever a node came, went or changed."""

        self._total = Resources()
        self._total_at = -1

        self.decisions: list[Decision] = []
        self.dirty: dict[ApplicationKey, Gang] = {}
        """Gangs whose status, reservation or demand may have changed."""
        self.stirred = False
        """Somebody who waits may have a chance now."""
        self.joining: dict[ApplicationKey, Gang] = {}
        """Gangs of client mode that are to join the queue."""
        self.opened: dict[ApplicationKey, Gang] = {}
        """Gangs whose own slot became free for their held executors."""
        self.unannounced: dict[ApplicationKey, None] = {}
        """Applications of which an event may be due that tells why they wait."""
        self.overdrawn: dict[str, None] = {}
        """Nodes on which more may be charged than there is."""

    def gang(self, key: ApplicationKey) -> Gang:
        """The application's record, made when it is new."""
        gang = self.gangs.get(key)
        if gang is None:
            gang = self.gangs[key] = self.empty[key] = Gang(key, self.at, self.config.story_length)
        return gang

    def slots_on(self, node: str) -> list[Gang]:
        """Gangs with unfilled slots, or a driver's slot, on a node. A walk over all gangs: nodes are lost rarely."""
        return [gang for gang in self.gangs.values() if node in gang.free or gang.driver_slot == node]

    def free_room(self, vector: Int64s, count: int = 1) -> None:
        """``count × vector`` [R] was given back somewhere."""
        self.freed += 1
        self.stirred = True
        amounts = vector.tolist()
        if len(amounts) != len(self.freed_amounts):
            self.freed_amounts += [0] * (len(amounts) - len(self.freed_amounts))
        for row, amount in enumerate(amounts):
            self.freed_amounts[row] += amount * count
        self.freed_times += count

    def nodes_changed(self) -> None:
        """A node came, went or changed: everybody is considered anew."""
        self.nodes_version += 1
        self.rules_version += 1
        self.freed += 1
        self.stirred = True

    @property
    def total(self) -> Resources:
        """What all nodes together have: the whole of which queues have shares."""
        if self._total_at != self.nodes_version:
            sums = self.table.allocatable.sum(axis=1).tolist()
            amounts = {name: amount for name, amount in zip(self.table.dimensions, sums, strict=True) if name != PODS}
            self._total, self._total_at = Resources.of(**amounts), self.nodes_version
        return self._total

    def queues_changed(self, tree: QueueTree) -> None:
        """The configuration of the queues was replaced: everybody is considered anew, nobody loses anything."""
        self.queues.replace(tree)
        self.futures.clear()
        self.told.clear()
        self.rules_version += 1
        self.freed += 1
        self.stirred = True

    def room_is_coming(self, pool: str) -> bool:
        """Whether room is being called back for the one that others wait for: it counts on what is free now, too."""
        blocker = self.blockers.get(pool)
        pressed = self.pressed.get(blocker.key) if blocker is not None else None
        return pressed is not None and self.at < pressed.until

    def no_longer_empty(self, gang: Gang) -> None:
        """The gang has a pod (again)."""
        self.empty.pop(gang.key, None)
        gang.empty_since = None

    def leave_queue(self, gang: Gang, *, in_turn: bool = False) -> None:
        """Wait no longer; who waited behind it gets another chance. ``in_turn``: theirs comes in this very round."""
        self.queues.discard(gang.key)
        if gang.closes is not None:
            self.closed.pop(gang.closes, None)
            self.told.discard(gang.closes)
            self.stirred = self.stirred or not in_turn or gang.closes in self.shut_out
            gang.closes = gang.over = None
        blocker = self.blockers.get(gang.pool)
        if blocker is not None and blocker.key == gang.key:
            del self.blockers[gang.pool]
            self.stirred = self.stirred or not in_turn

    def tell(self, gang: Gang, what: str) -> None:
        """Add to the application's story."""
        gang.story.append(StoryEntry(self.at, cause_of(self.cause), what))
        self.dirty[gang.key] = gang

    def publish(self, gang: Gang, pod: PodRef, reason: str, message: str, *, warning: bool) -> None:
        self.decisions.append(Publish(gang.key, pod, warning, reason, message))
        self.tell(gang, message)
