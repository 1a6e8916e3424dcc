"""The asynchronous write-back store: memory is the truth, the API server follows as soon as it can.

Level-triggered, per object: what is wanted stands against what the API server is known to have, and one task brings
them together. There is no queue of operations, so none can be full, swallow a later one, or be dropped after so many
attempts: a write is tried, ever more slowly, until it holds or is no longer wanted. The rules:

- reads are answered from memory; an API call never delays one;
- changes of one object merge: the newest content is sent, of large objects after a pause. A delete and a following
  create stay two;
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
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Generic, TypeVar

import msgspec
import structlog

from muster.control.extender.object_states import (
    QUEUES,
    Key,
    key_of,
    metadata_of,
    not_yet_created,
    ours_on_top,
    queue_index,
)
from muster.control.extender.stored_object import StoredObject
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
    """An object, and what is being done about it."""

    object: StoredObject[T]
    task: asyncio.Task[None] | None = None
    rests_until: float = 0.0
    """When it may be updated again, by the loop's clock."""
    timer: asyncio.TimerHandle | None = None
    """Set while an update waits for that."""


class WriteBack(Generic[T]):
    """All objects of one resource. Use within a running event loop; feed it the resource's list-watch (``observed``).

    ``carry`` makes what is sent from the API server's state and ours (default: our content under its metadata).
    ``changed`` is told of each object that others created, changed or (``None``) removed.
    ``happened`` is told of every request, for metrics.
    ``pause``: seconds between two updates of an object, for those that are large.
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
        pause: Callable[[T], float] = lambda value: 0.0,
    ) -> None:
        self._client = client
        self._resource = resource
        self._carry = carry or ours_on_top
        self._changed = changed
        self._happened = happened
        self._max_retries = max_retries
        self._backoff = backoff
        self._jitter = jitter
        self._pause = pause
        self._entries: dict[Key, _Entry[T]] = {}
        self._turns = asyncio.Semaphore(QUEUES)
        self._closed = False
        self._hurries = False
        self._lists = 0

    # What memory says

    def get(self, namespace: str, name: str) -> T | None:
        entry = self._entries.get((namespace, name))
        return entry.object.wanted if entry is not None else None

    def __iter__(self) -> Iterator[T]:
        return iter([wanted for entry in self._entries.values() if (wanted := entry.object.wanted) is not None])

    def __len__(self) -> int:
        return sum(1 for entry in self._entries.values() if entry.object.wanted is not None)

    def pending(self) -> Counter[int]:
        """Objects with a write under way or waiting, by ``queue_index``."""
        return Counter(queue_index(*key) for key, entry in self._entries.items() if entry.object.due)

    # Changes from here

    def create(self, value: T) -> None:
        """Raises ``ObjectExistsError``."""
        key = key_of(value)
        entry = self._entry(key)
        if entry.object.wanted is not None:
            raise ObjectExistsError("object already exists")
        entry.object.create(value)
        self._rest(key, entry)

    def update(self, value: T) -> None:
        """Raises ``ObjectMissingError``."""
        key = key_of(value)
        entry = self._entries.get(key)
        if entry is None or entry.object.wanted is None:
            raise ObjectMissingError("object does not exist")
        entry.object.update(value)
        self._rest(key, entry)

    def delete(self, namespace: str, name: str) -> bool:
        """False when there was nothing to delete."""
        key = (namespace, name)
        entry = self._entries.get(key)
        if entry is None or entry.object.wanted is None:
            return False
        entry.object.delete()
        self._rest(key, entry)
        return True

    # News from the API server

    def observed(self, event: WatchedEvent[T]) -> None:
        """Take over what the watch tells."""
        match event:
            case Added(value) | Modified(value):
                key = key_of(value)
                entry = self._entry(key)
                entry.object.take(value, self._now())
                self._rest(key, entry)
            case Deleted(namespace, name, uid):
                self._removed((namespace, name), uid)
            case Synced():
                self._listed()

    async def drain(self, timeout: float) -> bool:
        """Wait until everything is written; False when ``timeout`` seconds were not enough. Nothing pauses."""
        deadline = self._now() + timeout
        self._hurries = True
        try:
            for key, entry in list(self._entries.items()):
                self._rest(key, entry)
            while tasks := self._tasks():
                if self._now() >= deadline:
                    return False
                await asyncio.wait(tasks, timeout=deadline - self._now())
            return True
        finally:
            self._hurries = False

    async def close(self) -> None:
        """Stop where it is."""
        self._closed = True
        tasks = self._tasks()
        for task in tasks:
            task.cancel()
        for entry in self._entries.values():
            if entry.timer is not None:
                entry.timer.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _entry(self, key: Key) -> _Entry[T]:
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry(StoredObject(partial(self._changed, key)))
        return entry

    def _tasks(self) -> list[asyncio.Task[None]]:
        return [entry.task for entry in self._entries.values() if entry.task is not None]

    def _removed(self, key: Key, uid: str) -> None:
        entry = self._entries.get(key)
        if entry is not None:
            entry.object.remove(uid, self._lists, is_writing=entry.task is not None)
            self._rest(key, entry)

    def _listed(self) -> None:
        """What was gone before the last list but one, the watch has nothing old to tell of any more."""
        self._lists += 1
        for key, entry in list(self._entries.items()):
            gone = entry.object.gone
            if gone:
                entry.object.gone = {uid: at for uid, at in gone.items() if at + 1 >= self._lists}
                self._rest(key, entry)

    # Writing

    def _rest(self, key: Key, entry: _Entry[T]) -> None:
        """Begin to write if there is something to write; forget an object of which nothing is left to know."""
        if entry.task is not None or self._closed:
            return
        if entry.object.is_forgettable:
            self._entries.pop(key, None)
        elif entry.object.due and not self._pauses(key, entry):
            entry.task = asyncio.create_task(self._run(key, entry), name=f"write back {self._resource.plural} {key}")

    def _pauses(self, key: Key, entry: _Entry[T]) -> bool:
        """Whether all that is due is an update that has to wait; it is looked at again then."""
        if entry.timer is not None:
            entry.timer.cancel()
            entry.timer = None
        wait = entry.rests_until - self._now()
        if self._hurries or wait <= 0 or entry.object.doomed or not entry.object.base:
            return False
        entry.timer = asyncio.get_running_loop().call_later(wait, self._rest, key, entry)
        return True

    async def _run(self, key: Key, entry: _Entry[T]) -> None:
        failures = 0
        try:
            while entry.object.due and not self._pauses(key, entry):
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
            for uid in entry.object.ended:
                entry.object.gone.pop(uid, None)
            entry.object.ended.clear()
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
        stored = entry.object
        if stored.doomed:
            await self._delete(key, stored, next(iter(stored.doomed)))
        elif stored.lacks_update:
            stored.adopt()
            assert stored.wanted is not None
            if stored.base:
                await self._update(key, entry, stored.wanted)
            else:
                await self._create(key, entry, stored.wanted)

    async def _create(self, key: Key, entry: _Entry[T], value: T) -> None:
        stored = entry.object
        creation, revision = stored.creation, stored.revision
        body = msgspec.structs.replace(value, metadata=not_yet_created(metadata_of(value)))
        self._happened(Verb.CREATE, Happened.SENT)
        stored.creating = body
        try:
            answer = await self._client.create(self._resource, body, key[0])
        except ApiError as error:
            if error.sent and (error.code in (0, 408) or error.code >= 500):
                self._remember(key, stored, body)
            await self._not_created(key, stored, creation, error)
            return
        finally:
            stored.creating = None
        uid = metadata_of(answer).uid
        if stored.creation != creation:
            if uid not in stored.gone:
                stored.doomed[uid] = None  # deleted here while it was being created
        elif uid in stored.gone:
            stored.lose()
        else:
            stored.base = uid
            self._written(entry, answer, revision)

    async def _not_created(self, key: Key, stored: StoredObject[T], creation: int, error: ApiError) -> None:
        if _namespace_is_going(error):
            self._drop(key, stored, creation)
            return
        if error.already_exists:
            await self._look(key, stored, Verb.CREATE)
            stored.adopt()
            if stored.base or stored.wanted is None:
                return
        raise _Retry(Verb.CREATE, str(error), error.retry_after)

    async def _update(self, key: Key, entry: _Entry[T], value: T) -> None:
        stored = entry.object
        creation, revision, base = stored.creation, stored.revision, stored.base
        assert stored.server is not None, "the base of an update is always known"
        body = self._carry(stored.server, value)
        if body == stored.server:
            stored.answered(body, revision)
            return
        self._happened(Verb.UPDATE, Happened.SENT)
        try:
            answer = await self._client.replace(self._resource, key[1], body, key[0])
        except ApiError as error:
            if _is_gone(error, key) or error.conflict:
                await self._look(key, stored, Verb.UPDATE)
                if stored.creation != creation or stored.base != base:
                    return
            raise _Retry(Verb.UPDATE, str(error), error.retry_after) from None
        if stored.creation == creation and base not in stored.gone and stored.base == base:
            self._written(entry, answer, revision)

    async def _delete(self, key: Key, stored: StoredObject[T], uid: str) -> None:
        self._happened(Verb.DELETE, Happened.SENT)
        try:
            await self._client.delete(self._resource, key[1], key[0], uid=uid)
        except ApiError as error:
            if not (_is_gone(error, key) or error.conflict):  # a conflict: the name is another object's now
                raise _Retry(Verb.DELETE, str(error), error.retry_after) from None
        if uid in stored.doomed:  # else the watch has told of its end already
            del stored.doomed[uid]
            stored.gone[uid] = self._lists
        stored.forget_state(uid)

    async def _look(self, key: Key, stored: StoredObject[T], verb: Verb) -> None:
        """Learn what is there now."""
        try:
            value = await self._client.get(self._resource, key[1], key[0])
        except ApiError as error:
            if not _is_gone(error, key):
                raise _Retry(verb, str(error), error.retry_after) from None
            stored.server = None
            if stored.wanted is not None and stored.base:
                stored.gone[stored.base] = self._lists
                stored.lose()
            return
        stored.take(value, self._now())

    def _written(self, entry: _Entry[T], answer: T, revision: int) -> None:
        entry.rests_until = self._now() + self._pause(answer)
        entry.object.answered(answer, revision)

    def _remember(self, key: Key, stored: StoredObject[T], body: T) -> None:
        stored.unanswered.append((self._now() + LATE_SECONDS, body))
        asyncio.get_running_loop().call_later(LATE_SECONDS + 1.0, self._settle, key)

    def _settle(self, key: Key) -> None:
        entry = self._entries.get(key)
        if entry is not None:
            stored = entry.object
            stored.unanswered = [(until, attempt) for until, attempt in stored.unanswered if self._now() <= until]
            self._rest(key, entry)

    def _drop(self, key: Key, stored: StoredObject[T], creation: int) -> None:
        _log.warning("object dropped: its namespace is being deleted", object=key)
        self._happened(Verb.CREATE, Happened.DROPPED)
        if stored.creation == creation:
            stored.lose()

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
