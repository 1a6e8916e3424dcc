"""The queues of one term of leadership: ``Queue`` objects and ``queues.yaml`` together, told to whoever needs them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from muster.control.metrics import Metrics
from muster.control.queue_file import QueueFile
from muster.control.queues import Acceptance, Configs, merge
from muster.kube import list_watch as lw
from muster.kube.client import Client
from muster.kube.resources import QUEUES, Queue
from muster.queueing.rules import Rule

_log = structlog.get_logger("muster.queues")

SETTLE = 0.2
"""Seconds from a change until it is considered: what is applied together comes one by one."""


class QueueFeed:
    """``changed`` is called with the accepted queues and the rules: with those of the start, then at each change."""

    def __init__(
        self,
        client: Client,
        file: QueueFile | None,
        metrics: Metrics,
        changed: Callable[[Configs, tuple[Rule, ...]], None],
    ) -> None:
        self._client = client
        self._file = file
        self._metrics = metrics
        self._changed = changed
        self.objects: dict[str, Queue] = {}
        """Every ``Queue`` of the API, by name."""
        self.acceptance = Acceptance()
        self._rules: tuple[Rule, ...] = ()
        self._dirty = asyncio.Event()

    async def run(self, listed: asyncio.Event) -> None:
        """Until cancelled. ``listed`` is set when the queues of the start have been told."""
        stop_listening = self._file.listen(self._dirty.set) if self._file is not None else lambda: None
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._watch(listed))
                await listed.wait()
                while True:
                    await self._dirty.wait()
                    await asyncio.sleep(SETTLE)
                    self._dirty.clear()
                    self._consider()
        finally:
            stop_listening()

    async def _watch(self, listed: asyncio.Event) -> None:
        def sink(event: lw.WatchedEvent[Queue]) -> None:
            match event:
                case lw.Added(queue) | lw.Modified(queue):
                    before = self.objects.get(queue.metadata.name)
                    self.objects[queue.metadata.name] = queue
                    if before is None or before.spec != queue.spec:  # most changes are of our own status
                        self._dirty.set()
                case lw.Deleted(name=name):
                    if self.objects.pop(name, None) is not None:
                        self._dirty.set()
                case lw.Synced():
                    if not listed.is_set():
                        self._dirty.clear()
                        self._consider(first=True)
                        listed.set()

        await lw.ListWatch(self._client, QUEUES, notice=_notice).run(sink)

    def _consider(self, *, first: bool = False) -> None:
        """Put both sources together, tell what is new, and say what is wrong: each mistake once."""
        before, rules = self.acceptance, self._rules
        documents = self._file.documents if self._file is not None else None
        objects = {name: queue.spec for name, queue in self.objects.items()}
        self.acceptance = merge(documents.queues if documents else {}, objects, before.queues)
        self._rules = documents.rules if documents else ()
        for name, problem in sorted(self.acceptance.problems.items()):
            if before.problems.get(name) != problem:
                _log.error("queue not accepted", queue=name, problem=problem, stays=name in self.acceptance.queues)
        sound = not self.acceptance.problems and (self._file is None or self._file.ok)
        self._metrics.queues_config_ok.set(int(sound))
        if first or self.acceptance.queues != before.queues or self._rules != rules:
            _log.info("queues", queues=len(self.acceptance.queues), rules=len(self._rules))
            self._changed(self.acceptance.queues, self._rules)


def _notice(error: Exception) -> None:
    _log.warning("watch", error=str(error))
