"""A stand-in for the API server and its client: objects with uids and resourceVersions, a watch, and every mishap."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from muster.kube.errors import ApiError
from muster.kube.kinds import Resource
from muster.kube.list_watch import Added, Deleted, Modified
from muster.kube.objects import KubeStruct, ObjectMeta

Key = tuple[str, str]


class Thing(KubeStruct, frozen=True, omit_defaults=False):
    """An object of which only a word matters."""

    metadata: ObjectMeta
    spec: str = ""


THINGS = Resource("example.com", "v1", "things", "Thing", Thing)


def thing(name: str, spec: str = "", version: str = "", uid: str = "", namespace: str = "ns") -> Thing:
    return Thing(ObjectMeta(name=name, namespace=namespace, resource_version=version, uid=uid), spec)


def lost_answer(what: str) -> ApiError:
    return ApiError(what, 0, "Unreachable", "no answer in time")


def refusal(code: int, reason: str = "", message: str = "") -> ApiError:
    return ApiError("call", code, reason, message)


class Server:
    """What ``WriteBack`` needs of ``Client``. ``requests`` are those that reached it, as (key, verb).

    ``before`` may raise before a request is done and ``after`` before its answer arrives; each takes (verb, key).
    ``watch`` gets every change at once; tests deliver them when they like.
    """

    def __init__(self) -> None:
        self.stored: dict[Key, Thing] = {}
        self.requests: list[tuple[str, str]] = []
        self.creating: dict[Key, Thing] = {}
        """What was last asked to be created, whether it reached us or not."""
        self.watch: Callable[[Any], None] = lambda event: None
        self.before: Callable[[str, Key], Awaitable[None] | None] = lambda verb, key: None
        self.after: Callable[[str, Key], Awaitable[None] | None] = lambda verb, key: None
        self._version = 100
        self._uids = 0

    async def _around(self, hook: Callable[[str, Key], Awaitable[None] | None], verb: str, key: Key) -> None:
        await asyncio.sleep(0.01)
        waiting = hook(verb, key)
        if waiting is not None:
            await waiting

    def put(self, value: Thing, *, uid: str = "") -> Thing:
        """Somebody else's create or update."""
        key = value.metadata.namespace, value.metadata.name
        known = self.stored.get(key)
        self._version += 1
        if known is None:
            self._uids += 1
            uid = uid or f"uid-{self._uids}"
        else:
            uid = known.metadata.uid
        metadata = msgspec.structs.replace(value.metadata, uid=uid, resource_version=str(self._version))
        self.stored[key] = stored = Thing(metadata, value.spec)
        self.watch(Added(stored) if known is None else Modified(stored))
        return stored

    def remove(self, name: str, namespace: str = "ns") -> None:
        """Somebody else's delete."""
        gone = self.stored.pop((namespace, name))
        self.watch(Deleted(namespace, name, gone.metadata.uid, gone))

    async def get(self, resource: Any, name: str, namespace: str = "") -> Thing:
        key = namespace, name
        await self._around(self.before, "get", key)
        if key not in self.stored:
            raise refusal(404, "NotFound", f'things "{name}" not found')
        found = self.stored[key]
        await self._around(self.after, "get", key)
        return found

    async def create(self, resource: Any, body: Thing, namespace: str = "") -> Thing:
        key = namespace, body.metadata.name
        self.creating[key] = body
        await self._around(self.before, "create", key)
        self.requests.append(("/".join(key), "create"))
        if key in self.stored:
            raise refusal(409, "AlreadyExists", "already exists")
        stored = self.put(body)
        await self._around(self.after, "create", key)
        return stored

    async def replace(self, resource: Any, name: str, body: Thing, namespace: str = "") -> Thing:
        key = namespace, name
        await self._around(self.before, "update", key)
        self.requests.append(("/".join(key), "update"))
        if key not in self.stored:
            raise refusal(404, "NotFound", f'things "{name}" not found')
        known = self.stored[key].metadata
        if (body.metadata.resource_version, body.metadata.uid) != (known.resource_version, known.uid):
            raise refusal(409, "Conflict", "the object has been modified")
        stored = self.put(body)
        await self._around(self.after, "update", key)
        return stored

    async def delete(self, resource: Any, name: str, namespace: str = "", *, uid: str = "") -> None:
        key = namespace, name
        await self._around(self.before, "delete", key)
        self.requests.append(("/".join(key), "delete"))
        if key not in self.stored:
            raise refusal(404, "NotFound", f'things "{name}" not found')
        if self.stored[key].metadata.uid != uid:
            raise refusal(409, "Conflict", "the uid is another")
        self.remove(name, namespace)
        await self._around(self.after, "delete", key)
