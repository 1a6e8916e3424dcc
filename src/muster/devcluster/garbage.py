"""Owner references: what loses its last owner is deleted. Source: ``pkg/controller/garbagecollector``.

Also the two propagation policies that wait: *Foreground* (the owner stays until its dependents are gone) and *Orphan*
(the dependents are cut loose first).
"""

from __future__ import annotations

import asyncio
from collections import defaultdict

import structlog

from muster.devcluster.authentication import CONTROLLER
from muster.devcluster.errors import ApiError
from muster.devcluster.kinds import Kind
from muster.devcluster.registry import FOREGROUND, ORPHAN, Registry, Updater
from muster.devcluster.requests import Request, Target
from muster.devcluster.storage import Change, Key, Object, Record

RETRY_SECONDS = 1.0  # after a failure that is not the collector's, such as a webhook's
_log = structlog.get_logger("muster.devcluster")
AGENT = "kube-controller-manager/generic-garbage-collector"
Item = tuple[str, Key]  # collection, key


def internal_request(kind: Kind, key: Key, verb: str, agent: str = AGENT, subresource: str = "") -> Request:
    """A request of the controllers inside this server."""
    return Request(verb, Target(kind, key[0] or None, key[1], subresource), CONTROLLER, agent, {})


class GarbageCollector:
    """Listens to all changes and works through a queue, one object at a time."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._live: dict[str, Item] = {}
        self._dependents: defaultdict[str, dict[Item, None]] = defaultdict(dict)
        self._queue: asyncio.Queue[Item] = asyncio.Queue()
        registry.store.listen(self._observe)

    async def run(self) -> None:
        while True:
            item = await self._queue.get()
            try:
                await self._work(item)
            except ApiError as error:
                if error.code == 409:
                    self._queue.put_nowait(item)  # somebody else wrote it meanwhile
                elif error.code != 404:
                    _log.warning("garbage collection waits", collection=item[0], name=item[1][1], error=error.message)
                    asyncio.get_running_loop().call_later(RETRY_SECONDS, self._queue.put_nowait, item)

    def _observe(self, collection: str, change: Change) -> None:
        item = (collection, change.record.key)
        metadata = change.record.obj["metadata"]
        owners_before = _owner_uids(change.before.obj) if change.before else set()
        if change.verb == "DELETED":
            self._live.pop(metadata["uid"], None)
            for uid in owners_before:
                self._forget(uid, item)
                self._wake_owner(uid)
            for dependent in self._dependents.get(metadata["uid"], ()):
                self._queue.put_nowait(dependent)
            return
        self._live[metadata["uid"]] = item
        owners = _owner_uids(change.record.obj)
        for uid in owners_before - owners:
            self._forget(uid, item)
            self._wake_owner(uid)
        for uid in owners:
            self._dependents[uid][item] = None
        waits = {FOREGROUND, ORPHAN} & set(metadata.get("finalizers") or ())
        if (waits and "deletionTimestamp" in metadata) or any(uid not in self._live for uid in owners):
            self._queue.put_nowait(item)

    def _forget(self, uid: str, item: Item) -> None:
        dependents = self._dependents.get(uid)
        if dependents is not None:
            dependents.pop(item, None)
            if not dependents:
                del self._dependents[uid]

    def _wake_owner(self, uid: str) -> None:
        owner = self._live.get(uid)
        if owner is not None:
            self._queue.put_nowait(owner)

    async def _work(self, item: Item) -> None:
        record = self._record(item)
        if record is None:
            return
        metadata = record.obj["metadata"]
        finalizers = metadata.get("finalizers") or ()
        if "deletionTimestamp" in metadata and ORPHAN in finalizers:
            await self._orphan(item, record)
        elif "deletionTimestamp" in metadata and FOREGROUND in finalizers:
            await self._delete_dependents(item, record)
        else:
            await self._collect(item, record)

    async def _collect(self, item: Item, record: Record) -> None:
        """Deletes an object whose owners are all gone."""
        owners = record.obj["metadata"].get("ownerReferences") or ()
        if not owners or any(self._exists(item, owner) for owner in owners):
            return
        preconditions = {"uid": record.obj["metadata"]["uid"]}
        await self._delete(item, {"preconditions": preconditions, "propagationPolicy": "Background"})

    def _exists(self, item: Item, owner: Object) -> bool:
        """An owner counts when an object of that uid lives in the same namespace or in none."""
        found = self._live.get(owner["uid"])
        return found is not None and found[1][0] in ("", item[1][0]) and found[1][1] == owner["name"]

    async def _delete_dependents(self, item: Item, record: Record) -> None:
        uid = record.obj["metadata"]["uid"]
        blocking = False
        for dependent in sorted(self._dependents.get(uid, ())):
            found = self._record(dependent)
            if found is None:
                continue
            owners = found.obj["metadata"].get("ownerReferences") or ()
            blocking |= any(owner["uid"] == uid and owner.get("blockOwnerDeletion") for owner in owners)
            others = [owner for owner in owners if owner["uid"] != uid and self._exists(dependent, owner)]
            if others:
                await self._rewrite(dependent, lambda obj: _without_owner(obj, uid))
            elif "deletionTimestamp" not in found.obj["metadata"]:
                await self._delete(dependent, {"propagationPolicy": "Foreground"})
        if not blocking or not self._dependents.get(uid):
            await self._rewrite(item, lambda obj: _without_finalizer(obj, FOREGROUND))

    async def _orphan(self, item: Item, record: Record) -> None:
        uid = record.obj["metadata"]["uid"]
        for dependent in sorted(self._dependents.get(uid, ())):
            await self._rewrite(dependent, lambda obj: _without_owner(obj, uid))
        await self._rewrite(item, lambda obj: _without_finalizer(obj, ORPHAN))

    def _record(self, item: Item) -> Record | None:
        collection, (namespace, name) = item
        return self._registry.store.collection(collection).get(namespace, name)

    def _kind(self, collection: str) -> Kind | None:
        return next((kind for kind in self._registry.kinds if kind.collection == collection), None)

    async def _delete(self, item: Item, options: Object) -> None:
        kind = self._kind(item[0])
        if kind is not None:
            await self._registry.delete(internal_request(kind, item[1], "delete"), options)

    async def _rewrite(self, item: Item, change: Updater) -> None:
        kind = self._kind(item[0])
        if kind is not None:
            await self._registry.change(internal_request(kind, item[1], "update"), change, "Update")


def _owner_uids(obj: Object) -> set[str]:
    return {owner["uid"] for owner in obj["metadata"].get("ownerReferences") or ()}


def _without_owner(obj: Object, uid: str) -> Object:
    owners = [owner for owner in obj["metadata"].get("ownerReferences") or () if owner["uid"] != uid]
    return obj | {"metadata": obj["metadata"] | {"ownerReferences": owners}}


def _without_finalizer(obj: Object, finalizer: str) -> Object:
    kept = [name for name in obj["metadata"].get("finalizers") or () if name != finalizer]
    return obj | {"metadata": obj["metadata"] | {"finalizers": kept}}
