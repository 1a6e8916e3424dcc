"""Watches: who hears of which change, and in which words.

A change is offered only to watchers that could care: those that ask for one name, one node or one label value are
found through an index, as kube-apiserver does with its watch-cache triggers. The JSON of an event is made once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from muster.devcluster.selectors import Selector, field_value
from muster.devcluster.storage import Change, Object

# A client that lets this many events pile up is cut off; it resumes from its last resource version.
BACKLOG = 20_000
EVERYONE = ("", "")

Trigger = tuple[str, str]  # (what, value): ("field:spec.nodeName", "node-1"), ("label:spark-app-selector", "…")


def trigger_of(selector: Selector) -> Trigger:
    """The narrowest index entry that still sees everything the selector can match."""
    for path in ("metadata.name", "spec.nodeName"):
        value = selector.exact(path)
        if value is not None:
            return f"field:{path}", value
    label = selector.exact_label()
    return (f"label:{label[0]}", label[1]) if label else EVERYONE


def _trigger_value(obj: Object, what: str) -> str:
    source, _, key = what.partition(":")
    if source == "label":
        return str((obj["metadata"].get("labels") or {}).get(key, ""))
    return field_value(obj, key)


class Watcher:
    """One watch. ``pending`` are frames (JSON, without line end) in order; ``wake`` is set when there are some."""

    def __init__(
        self, namespace: str | None, selector: Selector, render: Callable[[Change, str], bytes] = Change.frame
    ) -> None:
        self.namespace = namespace
        self.selector = selector
        self.trigger = trigger_of(selector)
        self.pending: list[bytes] = []
        self.wake = asyncio.Event()
        self.closed = False
        self.version = 0
        self._render = render

    def offer(self, change: Change) -> None:
        """Queues the event this watcher sees for a change, if it sees one."""
        record = change.record
        self.version = record.version
        if self.namespace is not None and record.obj["metadata"].get("namespace") != self.namespace:
            return
        verb = self._verb(change)
        if verb is None:
            return
        if len(self.pending) >= BACKLOG:
            self.close()
            return
        self.pending.append(self._render(change, verb))
        self.wake.set()

    def close(self) -> None:
        self.closed = True
        self.wake.set()

    def take(self) -> list[bytes]:
        frames, self.pending = self.pending, []
        self.wake.clear()
        return frames

    def _verb(self, change: Change) -> str | None:
        if self.selector.is_empty:
            return change.verb
        matches_now = self.selector.matches(change.record.obj)
        if change.verb == "DELETED":
            return "DELETED" if matches_now else None
        matched_before = change.before is not None and self.selector.matches(change.before.obj)
        if matches_now:
            return "MODIFIED" if matched_before else "ADDED"
        return "DELETED" if matched_before else None


class WatchHub:
    """The watchers of one collection, by trigger."""

    def __init__(self) -> None:
        self._watchers: dict[str, dict[str, dict[Watcher, None]]] = {}
        """In the order of their coming, which is the order in which they are told."""

    def __len__(self) -> int:
        return sum(len(group) for groups in self._watchers.values() for group in groups.values())

    def add(self, watcher: Watcher) -> None:
        what, value = watcher.trigger
        self._watchers.setdefault(what, {}).setdefault(value, {})[watcher] = None

    def discard(self, watcher: Watcher) -> None:
        what, value = watcher.trigger
        groups = self._watchers.get(what, {})
        group = groups.get(value, {})
        group.pop(watcher, None)
        if not group:
            groups.pop(value, None)
        if not groups:
            self._watchers.pop(what, None)

    def dispatch(self, change: Change) -> None:
        for what, groups in self._watchers.items():
            if not what:
                for watcher in groups.get("", ()):
                    watcher.offer(change)
                continue
            value = _trigger_value(change.record.obj, what)
            for watcher in groups.get(value, ()):
                watcher.offer(change)
            if change.before is not None:
                earlier = _trigger_value(change.before.obj, what)
                if earlier != value:
                    for watcher in groups.get(earlier, ()):
                        watcher.offer(change)

    def close(self) -> None:
        for groups in self._watchers.values():
            for group in groups.values():
                for watcher in group:
                    watcher.close()
