"""The asynchronous write-back store: memory is the truth, the API server follows as soon as it can.

Level-triggered, per object: what is wanted stands against what the API server is known to have, and one task brings
them together. There is no queue of operations, so none can be full, swallow a later one, or be dropped after so many
attempts: a write is tried, ever more slowly, until it holds or is no longer wanted. The rules:

- reads are answered from memory; an API call never delays one;
- changes of one object merge: the newest content is sent. A delete and a following create stay two;
- nobody's change here is pending: what the watch tells is taken over, content and all (edits by hand, another replica's
  writes). A change is pending: it wins, on top of the newest ``resourceVersion``, labels and annotations;
- a delete by others ends the object here too, whatever was pending for it;
- what was deleted here stays deleted: its uid is remembered until the watch has told of its end, so neither a late
  answer nor a late event brings it back;
- an answer or event that is older than what is known changes nothing.

``control.outbox`` is another thing: its lanes put unlike writes of one application in order (reservation, release,
status) and are never read; here every object stands alone, and is read far more often than written.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, TypeVar

import msgspec
import structlog

from muster.control.extender.object_states import (
    QUEUES,
    Key,
    as_state_of,
    is_newer,
    key_of,
    metadata_of,
    not_yet_created,
    ours_on_top,
    queue_index,
    spec_of,
)
from muster.kube.client import Client
from muster.kube.errors import ApiError
from muster.kube.kinds import Resource
from muster.kube.list_watch import Added, Deleted, Modified, Synced, WatchedEvent
from muster.kube.objects import KubeStruct
from muster.kube.retry import RetryPolicy

T = TypeVar("T", bound=KubeStruct)

MAX_RETRIES = 5
LATE_SECONDS = 60.0
"""The API server's own time limit of a request: a create whose answer was lost may come true for so long."""
BACKOFF = RetryPolicy(first=0.25, ceiling=30.0)

_log = structlog.get_logger("muster.extender.write_back")


class Verb(StrEnum):
    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"


class Happened(StrEnum):
    """What became of a write, for the metrics ``async.request.*``."""

    SENT = "sent"
    RETRIED = "retried"
    SLOWED = "maxretries"
    """Retried as often as configured; from now on it is tried once in a while, and never given up."""
    DROPPED = "dropped"
    """No longer possible: its namespace is going."""


class ObjectExistsError(Exception):
    """``object already exists``, in the archived scheduler's words."""


class ObjectMissingError(Exception):
    """``object does not exist``, in the archived scheduler's words."""


class _Retry(Exception):
    def __init__(self, verb: Verb, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.verb = verb
        self.after = after or 0.0


@dataclass
class _Entry(Generic[T]):
    """One object: ``wanted`` against ``server``."""

    wanted: T | None = None
    server: T | None = None
    """Newest state known of the API server."""
    base: str = ""
    """uid of the object that ``wanted`` is a state of; "" while that is yet to be created."""
    creation: int = 0
    """Raised by each ``create`` and ``delete`` here: tells an answer for this object from one for its predecessor."""
    revision: int = 0
    written: int = 0
    """``wanted`` has changes that the API server lacks while this is less than ``revision``."""
    doomed: dict[str, None] = field(default_factory=dict)
    """uids deleted here and still to be deleted there, oldest first."""
    gone: dict[str, int] = field(default_factory=dict)
    """uids that are deleted there: whatever is still told of them is old. With the count of lists by then."""
    ended: set[str] = field(default_factory=set)
    """Those whose end the watch has told while a write was under way: nothing more will come."""
    creating: T | None = None
    """The create that is under way."""
    unanswered: list[tuple[float, T]] = field(default_factory=list)
    """Creates whose answers were lost, and until when they may come true, wanted or not."""
    task: asyncio.Task[None] | None = None

    @property
    def due(self) -> bool:
        return bool(self.doomed) or (self.wanted is not None and self.written < self.revision)


class WriteBack(Generic[T]):
    """All objects of one resource. Use within a running event loop; feed it the resource's list-watch (``observed``).

    ``carry`` makes what is sent from the API server's state and ours (default: our content under its metadata).
    ``changed`` is told of each object that others created, changed or (``None``) removed.
    ``happened`` is told of every request, for metrics.
    """

    def __init__(
        self,
        client: Client,
        resource: Resource[T],
        *,
        carry: Callable[[T, T], T] | None = None,
        changed: Callable[[Key, T | None], None] = lambda key, value: None,
        happened: Callable[[Verb, Happened], None] = lambda verb, what: None,
        max_retries: int = MAX_RETRIES,
        backoff: RetryPolicy = BACKOFF,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._client = client
        self._resource = resource
        self._carry = carry or ours_on_top
        self._changed = changed
        self._happened = happened
        self._max_retries = max_retries
        self._backoff = backoff
        self._jitter = jitter
        self._entries: dict[Key, _Entry[T]] = {}
        self._turns = asyncio.Semaphore(QUEUES)
        self._closed = False
        self._lists = 0

    # What memory says

    def get(self, namespace: str, name: str) -> T | None:
        entry = self._entries.get((namespace, name))
        return entry.wanted if entry is not None else None

    def __iter__(self) -> Iterator[T]:
        return iter([entry.wanted for entry in self._entries.values() if entry.wanted is not None])

    def __len__(self) -> int:
        return sum(1 for entry in self._entries.values() if entry.wanted is not None)

    def pending(self) -> Counter[int]:
        """Objects with a write under way or waiting, by ``queue_index``."""
        return Counter(queue_index(*key) for key, entry in self._entries.items() if entry.due)

    # Changes from here

    def create(self, value: T) -> None:
        """Raises ``ObjectExistsError``."""
        key = key_of(value)
        entry = self._entries.setdefault(key, _Entry())
        if entry.wanted is not None:
            raise ObjectExistsError("object already exists")
        entry.wanted, entry.base = value, ""
        entry.creation += 1
        self._touch(key, entry)

    def update(self, value: T) -> None:
        """Raises ``ObjectMissingError``."""
        key = key_of(value)
        entry = self._entries.get(key)
        if entry is None or entry.wanted is None:
            raise ObjectMissingError("object does not exist")
        entry.wanted = as_state_of(value, metadata_of(entry.wanted))
        self._touch(key, entry)

    def delete(self, namespace: str, name: str) -> bool:
        """False when there was nothing to delete."""
        key = (namespace, name)
        entry = self._entries.get(key)
        if entry is None or entry.wanted is None:
            return False
        uid = entry.base or (metadata_of(entry.server).uid if entry.server is not None else "")
        if uid and uid not in entry.gone:
            entry.doomed[uid] = None
        entry.creation += 1
        entry.wanted, entry.base, entry.written = None, "", entry.revision
        self._rest(key, entry)
        return True

    # News from the API server

    def observed(self, event: WatchedEvent[T]) -> None:
        """Take over what the watch tells."""
        match event:
            case Added(value) | Modified(value):
                self._seen(value)
            case Deleted(namespace, name, uid):
                self._removed((namespace, name), uid)
            case Synced():
                self._listed()

    async def drain(self, timeout: float) -> bool:
        """Wait until everything is written; False when ``timeout`` seconds were not enough."""
        deadline = self._now() + timeout
        while tasks := self._tasks():
            if self._now() >= deadline:
                return False
            await asyncio.wait(tasks, timeout=deadline - self._now())
        return True

    async def close(self) -> None:
        """Stop where it is."""
        self._closed = True
        tasks = self._tasks()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _tasks(self) -> list[asyncio.Task[None]]:
        return [entry.task for entry in self._entries.values() if entry.task is not None]

    def _seen(self, value: T) -> None:
        key = key_of(value)
        entry = self._entries.setdefault(key, _Entry())
        self._take(key, entry, value)
        self._rest(key, entry)

    def _take(self, key: Key, entry: _Entry[T], value: T) -> None:
        """A state of the API server that we did not write, or not knowingly."""
        uid = metadata_of(value).uid
        if not self._stays(entry, value):
            return
        if entry.wanted is None and self._is_late_create(entry, value):
            entry.doomed[uid] = None
        elif self._learn(entry, value):
            self._follow(key, entry, value)

    def _follow(self, key: Key, entry: _Entry[T], value: T) -> None:
        """Memory after news of the object under this name."""
        uid = metadata_of(value).uid
        unwritten = entry.wanted is not None and entry.written < entry.revision
        if unwritten and entry.wanted is not None and entry.base in ("", uid):
            entry.wanted = as_state_of(entry.wanted, metadata_of(value))
            return
        before = entry.wanted
        entry.wanted, entry.base, entry.written = value, uid, entry.revision
        if before is None or msgspec.structs.replace(value, metadata=metadata_of(before)) != before:
            self._changed(key, value)

    def _removed(self, key: Key, uid: str) -> None:
        entry = self._entries.get(key)
        if entry is None:
            return
        entry.doomed.pop(uid, None)
        if entry.task is not None:  # an answer about it may be under way
            entry.gone[uid] = self._lists
            entry.ended.add(uid)
        else:
            entry.gone.pop(uid, None)
        if entry.server is not None and metadata_of(entry.server).uid == uid:
            entry.server = None
        if entry.wanted is not None and entry.base == uid:
            self._lose(key, entry)
        self._rest(key, entry)

    def _listed(self) -> None:
        """What was gone before the last list but one, the watch has nothing old to tell of any more."""
        self._lists += 1
        for key, entry in list(self._entries.items()):
            if entry.gone:
                entry.gone = {uid: at for uid, at in entry.gone.items() if at + 1 >= self._lists}
                self._rest(key, entry)

    def _lose(self, key: Key, entry: _Entry[T]) -> None:
        """The object is gone by another's hand, and what was pending for it with it."""
        entry.wanted, entry.base, entry.written = None, "", entry.revision
        self._changed(key, None)
        if entry.server is not None and self._stays(entry, entry.server):
            self._follow(key, entry, entry.server)  # somebody made another of its name

    def _learn(self, entry: _Entry[T], value: T) -> bool:
        """Remember the API server's state, unless a newer one is known."""
        if entry.server is not None:
            known, told = metadata_of(entry.server).resource_version, metadata_of(value).resource_version
            if not is_newer(told, known):
                return False
        entry.server = value
        return True

    @staticmethod
    def _stays(entry: _Entry[T], value: T) -> bool:
        """Whether this object is not one that was deleted here, or is known to be gone."""
        uid = metadata_of(value).uid
        return uid not in entry.gone and uid not in entry.doomed

    def _is_late_create(self, entry: _Entry[T], value: T) -> bool:
        """Whether this is what we tried to create, got no answer for, and no longer want."""
        attempts = [entry.creating, *(attempt for until, attempt in entry.unanswered if self._now() <= until)]
        owners, spec = metadata_of(value).owner_references, spec_of(value)
        return any(
            attempt is not None and metadata_of(attempt).owner_references == owners and spec_of(attempt) == spec
            for attempt in attempts
        )

    # Writing

    def _touch(self, key: Key, entry: _Entry[T]) -> None:
        entry.revision += 1
        self._rest(key, entry)

    def _rest(self, key: Key, entry: _Entry[T]) -> None:
        """Begin to write if there is something to write; forget an object of which nothing is left to know."""
        if entry.task is not None or self._closed:
            return
        if entry.due:
            entry.task = asyncio.create_task(self._run(key, entry), name=f"write back {self._resource.plural} {key}")
        elif entry.wanted is None and not entry.gone and not entry.unanswered:
            self._entries.pop(key, None)

    async def _run(self, key: Key, entry: _Entry[T]) -> None:
        failures = 0
        try:
            while entry.due:
                try:
                    async with self._turns:
                        await self._step(key, entry)
                    failures = 0
                except _Retry as retry:
                    failures += 1
                    await asyncio.sleep(self._wait(key, retry, failures))
                except Exception:
                    # whatever a listener does wrong must not strand the object
                    failures += 1
                    _log.exception("write ended by an error", object=key)
                    await asyncio.sleep(self._backoff.delay(failures, self._jitter()))
        finally:
            entry.task = None
            for uid in entry.ended:
                entry.gone.pop(uid, None)
            entry.ended.clear()
        self._rest(key, entry)

    def _wait(self, key: Key, retry: _Retry, failures: int) -> float:
        self._happened(retry.verb, Happened.RETRIED)
        if failures <= self._max_retries:
            wait = max(self._backoff.delay(failures, self._jitter()), retry.after)
            _log.info("write failed", object=key, verb=retry.verb, error=str(retry), retry_in=round(wait, 2))
            return wait
        wait = max(self._backoff.delay(64, self._jitter()), retry.after)
        if failures == self._max_retries + 1:
            self._happened(retry.verb, Happened.SLOWED)
        _log.error("write keeps failing", object=key, verb=retry.verb, error=str(retry), retry_in=round(wait, 2))
        return wait

    async def _step(self, key: Key, entry: _Entry[T]) -> None:
        """One request. Raises ``_Retry``."""
        if entry.doomed:
            await self._delete(key, entry, next(iter(entry.doomed)))
        elif entry.wanted is not None and entry.written < entry.revision:
            self._adopt(entry)
            if entry.base:
                await self._update(key, entry, entry.wanted)
            else:
                await self._create(key, entry, entry.wanted)

    def _adopt(self, entry: _Entry[T]) -> None:
        """An object under the name that is yet to be created, and which stays: it becomes ours."""
        there = entry.server
        if entry.wanted is not None and not entry.base and there is not None and self._stays(entry, there):
            metadata = metadata_of(there)
            if metadata.deletion_timestamp is None:
                entry.base = metadata.uid

    async def _create(self, key: Key, entry: _Entry[T], value: T) -> None:
        creation, revision = entry.creation, entry.revision
        body = msgspec.structs.replace(value, metadata=not_yet_created(metadata_of(value)))
        self._happened(Verb.CREATE, Happened.SENT)
        entry.creating = body
        try:
            answer = await self._client.create(self._resource, body, key[0])
        except ApiError as error:
            if error.sent and (error.code in (0, 408) or error.code >= 500):
                self._remember(key, entry, body)
            await self._not_created(key, entry, creation, error)
            return
        finally:
            entry.creating = None
        uid = metadata_of(answer).uid
        if entry.creation != creation:
            if uid not in entry.gone:
                entry.doomed[uid] = None  # deleted here while it was being created
        elif uid in entry.gone:
            self._lose(key, entry)
        else:
            entry.base = uid
            self._written(key, entry, answer, revision)

    async def _not_created(self, key: Key, entry: _Entry[T], creation: int, error: ApiError) -> None:
        if _namespace_is_going(error):
            self._drop(key, entry, creation)
            return
        if error.already_exists:
            await self._look(key, entry, Verb.CREATE)
            self._adopt(entry)
            if entry.base or entry.wanted is None:
                return
        raise _Retry(Verb.CREATE, str(error), error.retry_after)

    async def _update(self, key: Key, entry: _Entry[T], value: T) -> None:
        creation, revision, base = entry.creation, entry.revision, entry.base
        assert entry.server is not None, "the base of an update is always known"
        body = self._carry(entry.server, value)
        if body == entry.server:
            self._written(key, entry, body, revision)
            return
        self._happened(Verb.UPDATE, Happened.SENT)
        try:
            answer = await self._client.replace(self._resource, key[1], body, key[0])
        except ApiError as error:
            if _is_gone(error, key) or error.conflict:
                await self._look(key, entry, Verb.UPDATE)
                if entry.creation != creation or entry.base != base:
                    return
            raise _Retry(Verb.UPDATE, str(error), error.retry_after) from None
        if entry.creation == creation and base not in entry.gone and entry.base == base:
            self._written(key, entry, answer, revision)

    async def _delete(self, key: Key, entry: _Entry[T], uid: str) -> None:
        self._happened(Verb.DELETE, Happened.SENT)
        try:
            await self._client.delete(self._resource, key[1], key[0], uid=uid)
        except ApiError as error:
            if not (_is_gone(error, key) or error.conflict):  # a conflict: the name is another object's now
                raise _Retry(Verb.DELETE, str(error), error.retry_after) from None
        if uid in entry.doomed:  # else the watch has told of its end already
            del entry.doomed[uid]
            entry.gone[uid] = self._lists
        if entry.server is not None and metadata_of(entry.server).uid == uid:
            entry.server = None

    async def _look(self, key: Key, entry: _Entry[T], verb: Verb) -> None:
        """Learn what is there now."""
        try:
            value = await self._client.get(self._resource, key[1], key[0])
        except ApiError as error:
            if not _is_gone(error, key):
                raise _Retry(verb, str(error), error.retry_after) from None
            entry.server = None
            if entry.wanted is not None and entry.base:
                entry.gone[entry.base] = self._lists
                self._lose(key, entry)
            return
        self._take(key, entry, value)

    def _written(self, key: Key, entry: _Entry[T], answer: T, revision: int) -> None:
        """The API server has everything up to ``revision``."""
        self._learn(entry, answer)
        entry.written = max(entry.written, revision)
        assert entry.server is not None
        self._follow(key, entry, entry.server)

    def _remember(self, key: Key, entry: _Entry[T], body: T) -> None:
        entry.unanswered.append((self._now() + LATE_SECONDS, body))
        asyncio.get_running_loop().call_later(LATE_SECONDS + 1.0, self._settle, key)

    def _settle(self, key: Key) -> None:
        entry = self._entries.get(key)
        if entry is not None:
            entry.unanswered = [(until, attempt) for until, attempt in entry.unanswered if self._now() <= until]
            self._rest(key, entry)

    def _drop(self, key: Key, entry: _Entry[T], creation: int) -> None:
        _log.warning("object dropped: its namespace is being deleted", object=key)
        self._happened(Verb.CREATE, Happened.DROPPED)
        if entry.creation == creation:
            self._lose(key, entry)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _is_gone(error: ApiError, key: Key) -> bool:
    """The object is not there. A 404 that does not name it is of the whole resource, whose definition is not served."""
    return error.not_found and f'"{key[1]}" not found' in error.message


def _namespace_is_going(error: ApiError) -> bool:
    """A create in a namespace that is being deleted (403 with this text), or is gone."""
    return (error.code == 403 and "being terminated" in error.message) or (
        error.not_found and error.message.startswith("namespaces ")
    )
