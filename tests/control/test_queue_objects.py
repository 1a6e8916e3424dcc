"""Queue objects on an API server: read, merged with ``queues.yaml``, and told what became of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from muster.control.metrics import Metrics
from muster.control.queue_feed import QueueFeed
from muster.control.queue_file import QueueFile
from muster.control.queue_status import QueueStatusWriter
from muster.control.queues import Configs
from muster.devcluster.cluster import DevCluster
from muster.kube.client import Client
from muster.kube.definitions import queue_definition
from muster.kube.kinds import CUSTOM_RESOURCE_DEFINITIONS
from muster.kube.resources import QUEUES, Queue
from muster.scheduling.queue_report import QueueReport

PATIENCE = 60.0
NOW = 1_800_000_000.0


def queue(name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": QUEUES.api_version, "kind": "Queue", "metadata": {"name": name}, "spec": spec}


def report(name: str, running: int = 0, waiting: int = 0, **used: str) -> QueueReport:
    return QueueReport(name, "", True, "fifo", 1, {}, {}, used, {}, running, waiting, 0.0, None, 100, "extras", ())


class Queues:
    """A feed and a status writer on an embedded API server."""

    def __init__(self, client: Client, file: QueueFile | None) -> None:
        self.client = client
        self.metrics = Metrics()
        self.feed = QueueFeed(client, file, self.metrics)
        self.told: list[Configs] = []
        self.reports: list[QueueReport] = []
        self.leads = True
        self.writer = QueueStatusWriter(client, self.feed, lambda: self.reports, lambda: self.leads, lambda: NOW, 1.0)

    async def until(self, holds: Callable[[], Any | Awaitable[Any]]) -> Any:
        async with asyncio.timeout(PATIENCE):
            while True:
                answer = holds()
                if isinstance(answer, Awaitable):
                    answer = await answer
                if answer:
                    return answer
                await asyncio.sleep(0.02)

    async def told_of(self, *names: str) -> Configs:
        return await self.until(lambda: self.told and set(self.told[-1]) == set(names) and self.told[-1])

    async def status(self, name: str, holds: Callable[[Queue], bool]) -> Queue:
        async def asked() -> Queue | None:
            found = await self.client.get(QUEUES, name)
            return found if holds(found) else None

        found: Queue = await self.until(asked)
        return found

    @property
    def ok(self) -> float | None:
        return self.metrics.registry.get_sample_value("muster_queues_config_ok")


@asynccontextmanager
async def queues_on(*objects: dict[str, Any], file: Path | None = None) -> AsyncIterator[Queues]:
    async with DevCluster(()) as cluster:
        await cluster.client.create(CUSTOM_RESOURCE_DEFINITIONS, queue_definition())
        for one in objects:
            await cluster.client.create(QUEUES, one)
        watched = QueueFile(file) if file is not None else None
        queues = Queues(cluster.client, watched)
        listed = asyncio.Event()
        tasks = [asyncio.create_task(queues.feed.run(queues.told.append, listed))]
        if watched is not None:
            tasks.append(asyncio.create_task(watched.follow(0.02)))
        try:
            await asyncio.wait_for(listed.wait(), PATIENCE)
            tasks.append(asyncio.create_task(queues.writer.run()))
            yield queues
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def accepted(found: Queue) -> tuple[str, str]:
    for condition in found.status.conditions:
        if condition.type == "Accepted" and condition.observed_generation == found.metadata.generation:
            return condition.status, condition.message
    return "", ""


async def test_what_is_there_at_the_start_is_told_once_and_together() -> None:
    async with queues_on(queue("a", parent="company"), queue("company", max={"cpu": "10"})) as queues:
        assert [set(configs) for configs in queues.told] == [{"a", "company"}]
        assert queues.told[0]["company"].max.amounts == (("cpu", 10_000),)
        assert queues.ok == 1


async def test_changes_are_told_and_our_own_status_is_none() -> None:
    async with queues_on(queue("a", weight=1)) as queues:
        await queues.client.patch(QUEUES, "a", {"spec": {"weight": 2}})
        await queues.until(lambda: queues.told[-1]["a"].weight == 2)
        await queues.client.create(QUEUES, queue("b"))
        await queues.told_of("a", "b")
        await queues.client.delete(QUEUES, "a")
        await queues.told_of("b")
        await queues.status("b", lambda found: accepted(found)[0] == "True")
        assert len(queues.told) == 4


async def test_a_queue_with_a_mistake_says_so_and_says_when_it_is_mended() -> None:
    async with queues_on(queue("a", weight=3)) as queues:
        await queues.client.create(QUEUES, queue("b", parent="nowhere"))
        found = await queues.status("b", lambda found: accepted(found)[0] == "False")
        assert accepted(found)[1] == (
            'parent: there is no queue "nowhere"; there are "a", "default" and "" for the root; '
            "there is no such queue until it is mended"
        )
        assert (queues.ok, set(queues.told[-1])) == (0, {"a"})
        await queues.client.patch(QUEUES, "a", {"spec": {"parent": "b"}})
        found = await queues.status("a", lambda found: accepted(found)[0] == "False")
        assert accepted(found)[1].endswith("the version before stays in force")
        assert queues.told[-1]["a"].parent == ""
        await queues.client.patch(QUEUES, "b", {"spec": {"parent": ""}})
        await queues.status("b", lambda found: accepted(found)[0] == "True")
        await queues.status("a", lambda found: accepted(found)[0] == "True")
        assert (queues.ok, queues.told[-1]["a"].parent) == (1, "b")


async def test_both_sources_make_one_tree_and_a_name_in_both_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "queues.yaml"
    path.write_text("queues: [{name: company}, {name: b, parent: company, weight: 7}]")
    async with queues_on(queue("a", parent="company"), file=path) as queues:
        assert set(queues.told[-1]) == {"a", "b", "company"}
        await queues.client.create(QUEUES, queue("b", weight=9))
        found = await queues.status("b", lambda found: accepted(found)[0] == "False")
        assert "is both in queues.yaml and a Queue object" in accepted(found)[1]
        assert (queues.ok, queues.feed.acceptance.queues["b"].weight) == (0, 7)
        path.write_text("queues: [{name: company}]")
        await queues.until(lambda: queues.told[-1]["b"].weight == 9)
        assert queues.ok == 1


async def test_a_bad_file_keeps_the_old_one_and_the_metric_tells(tmp_path: Path) -> None:
    path = tmp_path / "queues.yaml"
    path.write_text("queues: [{name: a}]\nrules: [{queue: a}]")
    async with queues_on(file=path) as queues:
        path.write_text("queues: [{name: a, weight: heavy}]")
        await queues.until(lambda: queues.ok == 0)
        assert (set(queues.feed.acceptance.queues), len(queues.feed.rules), len(queues.told)) == ({"a"}, 1, 1)
        path.write_text("queues: [{name: a}]")
        await queues.until(lambda: len(queues.told) == 2)
        assert (queues.ok, queues.feed.rules) == (1, ())


async def test_the_status_has_what_a_queue_holds_and_forgets_what_it_holds_no_more() -> None:
    async with queues_on(queue("a")) as queues:
        queues.reports = [report("a", 2, 1, cpu="4", memory="8Gi")]
        found = await queues.status("a", lambda found: found.status.running == 2)
        assert (found.status.waiting, found.status.used) == (1, {"cpu": "4", "memory": "8Gi"})
        queues.reports = [report("a", 1, 0, cpu="1")]
        found = await queues.status("a", lambda found: found.status.running == 1)
        assert found.status.used == {"cpu": "1"}
        [condition] = found.status.conditions
        assert (condition.status, condition.last_transition_time) == ("True", "2027-01-15T08:00:00Z")


async def test_a_replica_that_does_not_lead_writes_nothing() -> None:
    async with queues_on() as queues:
        queues.leads = False
        queues.reports = [report("a", 2)]
        await queues.client.create(QUEUES, queue("a"))
        await queues.told_of("a")
        await queues.client.create(QUEUES, queue("b"))
        await queues.told_of("a", "b")
        assert (await queues.client.get(QUEUES, "a")).status.conditions == ()
        queues.leads = True
        await queues.status("a", lambda found: found.status.running == 2)
