"""The queues of one term of leadership: ``Queue`` objects and ``queues.yaml`` together, told to whoever needs them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from muster.control.metrics import Metrics
from muster.control.queue_documents import QueueDocuments
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
    def __init__(self, client: Client, file: QueueFile | None, metrics: Metrics) -> None:
        self._client = client
        self._file = file
        self._metrics = metrics
        self.objects: dict[str, Queue] = {}
        """Every ``Queue`` of the API, by name."""
        self.acceptance = Acceptance()
        self.rules: tuple[Rule, ...] = ()
        self._dirty = asyncio.Event()

    async def run(self, changed: Callable[[Configs], None], listed: asyncio.Event) -> None:
        """Until cancelled. ``changed`` is called with the accepted queues, those of the start and at each change of
        them or of the rules; ``listed`` is set after the first time."""
        stop_listening = self._file.listen(self._dirty.set) if self._file is not None else lambda: None
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._watch(changed, listed))
                await listed.wait()
                while True:
                    await self._dirty.wait()
                    await asyncio.sleep(SETTLE)
                    self._dirty.clear()
                    if self._consider():
                        changed(self.acceptance.queues)
        finally:
            stop_listening()

    async def _watch(self, changed: Callable[[Configs], None], listed: asyncio.Event) -> None:
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
                        self._consider()
                        changed(self.acceptance.queues)
                        listed.set()

        await lw.ListWatch(self._client, QUEUES, notice=_notice).run(sink)

    def _consider(self) -> bool:
        """Put both sources together and say what is wrong, each mistake once. Whether anything in force is new."""
        before, rules = self.acceptance, self.rules
        documents = self._file.documents if self._file is not None else QueueDocuments()
        objects = {name: queue.spec for name, queue in self.objects.items()}
        self.acceptance = merge(documents.queues, objects, before.queues)
        self.rules = documents.rules
        for name, problem in sorted(self.acceptance.problems.items()):
            if before.problems.get(name) != problem:
                _log.error("queue not accepted", queue=name, problem=problem, stays=name in self.acceptance.queues)
        sound = not self.acceptance.problems and (self._file is None or self._file.ok)
        self._metrics.queues_config_ok.set(int(sound))
        new = self.acceptance.queues != before.queues or self.rules != rules
        if new:
            _log.info("queues", queues=len(self.acceptance.queues), rules=len(self.rules))
        return new


def _notice(error: Exception) -> None:
    _log.warning("watch", error=str(error))
