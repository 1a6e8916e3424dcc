"""What etcd and the watch cache do: objects by key, one global resource version, a bounded history of changes.

An object, once stored, is never changed in place: every write puts a new one. Its JSON is made once per version and
shared by responses, lists and all watchers.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import Any, Literal

import msgspec

from muster.devcluster.errors import too_old

Object = dict[str, Any]
Key = tuple[str, str]  # (namespace, "" for cluster scope; name)
encode = msgspec.json.encode
decode = msgspec.json.decode

# Real clusters are never at resource version 1, and clients may take 0 for "any"; starting higher also makes
# "resource version 1 is too old" true from the first request on, as it is behind a real watch cache.
FIRST_VERSION = 1000


class Record(msgspec.Struct, gc=False):
    """One version of one object: as a value (never to be changed) and as JSON."""

    obj: Object
    data: bytes
    version: int

    @property
    def key(self) -> Key:
        metadata = self.obj["metadata"]
        return (metadata.get("namespace", ""), metadata["name"])


class Change(msgspec.Struct, gc=False):
    """A write: ``record`` is the new state, or for a deletion the last one (with the deletion's resource version)."""

    verb: Literal["ADDED", "MODIFIED", "DELETED"]
    record: Record
    before: Record | None
    frames: dict[str, bytes] = msgspec.field(default_factory=dict)

    def frame(self, verb: str) -> bytes:
        """The watch event in JSON, without line end. Leaving a selector sends the state before, at this version."""
        cached = self.frames.get(verb)
        if cached is None:
            data = self.record.data
            if verb == "DELETED" and self.verb != "DELETED" and self.before is not None:
                data = encode(with_version(self.before.obj, self.record.version))
            cached = self.frames[verb] = b'{"type":"%s","object":%s}' % (verb.encode(), data)
        return cached


def with_version(obj: Object, version: int) -> Object:
    return obj | {"metadata": obj["metadata"] | {"resourceVersion": str(version)}}


Listener = Callable[[Change], None]


class Collection:
    """The objects of one resource, sorted by namespace and name, and their recent changes."""

    def __init__(self, name: str, history: int, version: int) -> None:
        self.name = name
        self._spaces: dict[str, dict[str, Record]] = {}
        self._names: dict[str, list[str]] = {}
        self._history: deque[Change] = deque(maxlen=history)
        self._forgotten = version  # every change after this version is still in the history
        self._listeners: list[Listener] = []

    def __len__(self) -> int:
        return sum(len(space) for space in self._spaces.values())

    def get(self, namespace: str, name: str) -> Record | None:
        space = self._spaces.get(namespace)
        return space.get(name) if space else None

    def namespaces(self) -> list[str]:
        return sorted(namespace for namespace, names in self._names.items() if names)

    def scan(self, namespace: str | None = None) -> list[Record]:
        """All records in key order; ``namespace`` None means everywhere."""
        spaces = self.namespaces() if namespace is None else [namespace]
        found: list[Record] = []
        for space in spaces:
            records = self._spaces.get(space, {})
            found.extend(records[name] for name in self._names.get(space, ()))
        return found

    def listen(self, listener: Listener) -> None:
        self._listeners.append(listener)

    def since(self, version: int) -> list[Change]:
        """Changes after ``version``, oldest first. Raises 410 Expired when some of them are forgotten."""
        if version < self._forgotten:
            raise too_old(version, self._forgotten)
        start = bisect_right(self._history, version, key=lambda change: change.record.version)
        if start == len(self._history):
            return []
        return [self._history[i] for i in range(start, len(self._history))]

    def at(self, version: int) -> list[Record]:
        """The records as they were at ``version``: the present, with later changes undone. Raises 410 Expired."""
        undo = self.since(version)
        state = {record.key: record for record in self.scan()}
        for change in reversed(undo):
            if change.before is None:
                state.pop(change.record.key, None)
            else:
                state[change.record.key] = change.before
        return [state[key] for key in sorted(state)]

    def apply(self, change: Change) -> None:
        namespace, name = change.record.key
        if change.verb == "DELETED":
            del self._spaces[namespace][name]
            names = self._names[namespace]
            del names[bisect_left(names, name)]
        else:
            space = self._spaces.setdefault(namespace, {})
            if name not in space:
                insort(self._names.setdefault(namespace, []), name)
            space[name] = change.record
        if len(self._history) == self._history.maxlen:
            self._forgotten = self._history[0].record.version
        self._history.append(change)
        for listener in self._listeners:
            listener(change)

    def forget(self, version: int) -> None:
        """Compaction: drops the history up to ``version``, so that older watches and continue tokens get 410."""
        while self._history and self._history[0].record.version <= version:
            self._history.popleft()
        self._forgotten = max(self._forgotten, version)


class Store:
    """All collections under one resource version counter.

    ``history`` is how many changes per resource are kept for watches that resume and for paged lists.
    """

    def __init__(self, history: int = 10_000) -> None:
        if history < 1:
            raise ValueError(f"the history of changes must hold at least one, not {history}")
        self.version = FIRST_VERSION
        self._history = history
        self._collections: dict[str, Collection] = {}
        self._listeners: list[Callable[[str, Change], None]] = []
        self._snapshots: OrderedDict[tuple[str, int], list[Record]] = OrderedDict()

    def collection(self, name: str) -> Collection:
        found = self._collections.get(name)
        if found is None:
            found = self._collections[name] = Collection(name, self._history, self.version)
        return found

    def collections(self) -> Iterable[Collection]:
        return list(self._collections.values())

    def drop(self, name: str) -> None:
        self._collections.pop(name, None)

    def listen(self, listener: Callable[[str, Change], None]) -> None:
        """Calls ``listener(collection, change)`` after every change of anything."""
        self._listeners.append(listener)

    def put(self, name: str, obj: Object, before: Record | None) -> Record:
        """Stores ``obj`` under its namespace and name. The caller has checked ``before``; nothing awaits in between."""
        self.version += 1
        obj["metadata"]["resourceVersion"] = str(self.version)
        record = Record(obj, encode(obj), self.version)
        self._commit(name, Change("MODIFIED" if before else "ADDED", record, before))
        return record

    def remove(self, name: str, before: Record) -> Record:
        self.version += 1
        last = with_version(before.obj, self.version)
        record = Record(last, encode(last), self.version)
        self._commit(name, Change("DELETED", record, before))
        return record

    def snapshot(self, name: str, version: int) -> list[Record]:
        """The collection at an exact version, kept for the next page. Raises 410 Expired."""
        key = (name, version)
        found = self._snapshots.get(key)
        if found is None:
            found = self._snapshots[key] = self.collection(name).at(version)
            while len(self._snapshots) > 8:
                self._snapshots.popitem(last=False)
        return found

    def compact(self) -> None:
        """Forgets all history, as etcd's compaction does after five minutes."""
        self._snapshots.clear()
        for collection in self._collections.values():
            collection.forget(self.version)

    def _commit(self, name: str, change: Change) -> None:
        self.collection(name).apply(change)
        for listener in self._listeners:
            listener(name, change)
