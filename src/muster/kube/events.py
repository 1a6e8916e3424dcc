"""Kubernetes Events about other objects, few enough not to matter.

``core/v1`` Events rather than ``events.k8s.io/v1``: both are one and the same stored object, but this form carries a
plain ``count`` that ``kubectl describe`` shows, and needs one group less in RBAC. An event that repeats raises the
count of the one that exists, at most once per ``QUIET_SECONDS``; each object has a small burst, then one event per
five minutes (client-go ``EventSourceObjectSpamFilter``), and all objects together share a rate.
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b

from muster.kube.client import Client
from muster.kube.errors import ApiError
from muster.kube.kinds import EVENTS
from muster.kube.objects import Event, EventSource, ObjectMeta, ObjectReference
from muster.kube.timestamps import format_time

QUIET_SECONDS = 30.0
FORGET_SECONDS = 600.0
"""An event not repeated for this long is a new one (client-go's ``maxIntervalInSeconds``)."""
MESSAGE_BYTES = 1024
"""Longest message the API accepts (``events.k8s.io`` validation ``NoteLengthLimit``)."""
_REMEMBERED = 4096


class _TokenBucket:
    def __init__(self, burst: float, per_second: float, now: float) -> None:
        self._burst, self._per_second = burst, per_second
        self._tokens, self._at = burst, now

    def take(self, now: float) -> bool:
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._per_second)
        self._at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


class _Published:
    def __init__(self, name: str, first: float) -> None:
        self.name = name
        self.first = first
        self.count = 0
        """How often it happened."""
        self.written_at = float("-inf")
        self.last = first


class EventRecorder:
    """``publish`` writes an event, folds it into an earlier one, or drops it; it never waits for its turn."""

    def __init__(
        self,
        client: Client,
        component: str,
        instance: str,
        *,
        per_second: float = 10.0,
        burst: float = 100.0,
        object_burst: float = 25.0,
        object_per_second: float = 1.0 / 300.0,
    ) -> None:
        self._client = client
        self._component = component
        self._instance = instance
        self._all = _TokenBucket(burst, per_second, client.clock.monotonic())
        self._object_rate = (object_burst, object_per_second)
        self._objects: OrderedDict[tuple[str, str, str], _TokenBucket] = OrderedDict()
        self._published: OrderedDict[tuple[str, ...], _Published] = OrderedDict()
        self.dropped = 0
        """Events that were not written because there were too many."""
        self.folded = 0
        """Repetitions that cost no request of their own."""

    async def publish(self, about: ObjectReference, reason: str, message: str, *, warning: bool = False) -> None:
        """``about`` names the object (with uid, so that ``kubectl describe`` finds it). Raises ``ApiError``.

        A message longer than the API accepts is cut.
        """
        now = self._client.clock.monotonic()
        message = _cut(message)
        key = (about.kind, about.namespace, about.name, about.uid, reason, message, str(warning))
        known = self._published.get(key)
        if known is not None and now - known.last >= FORGET_SECONDS:
            known = None
        if known is not None:
            known.count += 1
            known.last = now
            if now - known.written_at < QUIET_SECONDS:
                self.folded += 1
                return
        if not self._allowed(about, now):
            self.dropped += 1
            return
        if known is None:
            known = self._remember(key, now)
        known.written_at = now
        await self._write(about, known, reason, message, warning)

    def _allowed(self, about: ObjectReference, now: float) -> bool:
        key = (about.kind, about.namespace, about.uid or about.name)
        bucket = self._objects.get(key) or self._objects.setdefault(key, _TokenBucket(*self._object_rate, now))
        self._objects.move_to_end(key)
        if len(self._objects) > _REMEMBERED:
            self._objects.popitem(last=False)
        return bucket.take(now) and self._all.take(now)

    def _remember(self, key: tuple[str, ...], now: float) -> _Published:
        # the name is the event's own, so that a lost answer cannot make two of one
        started = self._client.clock.time()
        digest = blake2b(repr((key, started, self._instance)).encode(), digest_size=8).hexdigest()
        name = f"{key[2][:236]}.{digest}"
        published = self._published[key] = _Published(name, started)
        published.count = 1
        published.last = now
        self._published.move_to_end(key)
        if len(self._published) > _REMEMBERED:
            self._published.popitem(last=False)
        return published

    async def _write(self, about: ObjectReference, known: _Published, reason: str, message: str, warning: bool) -> None:
        namespace = about.namespace or "default"
        stamp = format_time(self._client.clock.time())
        if known.count > 1:
            update = {"count": known.count, "lastTimestamp": stamp}
            try:
                await self._client.patch(EVENTS, known.name, update, namespace)
                return
            except ApiError as error:
                if not error.not_found:  # events live an hour: then it is written anew
                    raise
        event = Event(
            metadata=ObjectMeta(name=known.name, namespace=namespace),
            involved_object=about,
            reason=reason,
            message=message,
            type="Warning" if warning else "Normal",
            count=known.count,
            first_timestamp=format_time(known.first),
            last_timestamp=stamp,
            source=EventSource(component=self._component),
            reporting_component=self._component,
            reporting_instance=self._instance,
        )
        try:
            await self._client.create(EVENTS, event, namespace)
        except ApiError as error:
            if not error.already_exists:  # our own, whose answer was lost
                raise


def _cut(message: str) -> str:
    encoded = message.encode()
    if len(encoded) <= MESSAGE_BYTES:
        return message
    return encoded[: MESSAGE_BYTES - 3].decode("utf-8", "ignore") + "…"
