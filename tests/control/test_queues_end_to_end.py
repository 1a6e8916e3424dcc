"""Queues on a running cluster: where applications go, what their quota holds back, and what changes do at once."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import aiohttp

from muster.cli.queues import details, tree
from muster.devcluster.node_pool import NodePool
from muster.kube.resources import QUEUES, Gang, Queue
from tests.control.running_cluster import NAMESPACE, RunningCluster, running_cluster

ROOMY = NodePool(count=4, cpu=16, memory_gib=64)
LONG = 100_000.0
"""Virtual seconds: until the test is over."""


async def put(cluster: RunningCluster, name: str, **spec: Any) -> None:
    body = {"apiVersion": QUEUES.api_version, "kind": "Queue", "metadata": {"name": name}, "spec": spec}
    await cluster.client.create(QUEUES, body)


async def change(cluster: RunningCluster, name: str, **spec: Any) -> None:
    await cluster.client.patch(QUEUES, name, {"spec": spec})


async def in_force(cluster: RunningCluster, *names: str) -> None:
    """The leader has these queues by now."""

    async def holds() -> bool:
        status, answer = await ask(cluster, "/queues")
        return status == 200 and set(names) <= {queue["name"] for queue in answer["queues"]}

    await cluster.until(holds, f"queues {', '.join(names)} are in force")


async def ask(cluster: RunningCluster, path: str) -> tuple[int, Any]:
    assert cluster.service is not None
    url = f"http://127.0.0.1:{cluster.service.management_port}{path}"
    async with aiohttp.ClientSession() as http, http.get(url) as answer:
        return answer.status, await answer.json()


async def submit(cluster: RunningCluster, name: str, queue: str = "", user: str = "", **more: Any) -> str:
    """Runs until the test is over, 1 + 2 cores; ``user`` counts where the submitter is trusted."""
    annotations = {"muster.dev/queue": queue} if queue else {}
    annotations |= {"muster.dev/user": user} if user else {}
    return await cluster.submit(name, executors=2, run_seconds=LONG, driver_annotations=annotations, **more)


async def expect_reason(cluster: RunningCluster, application: str, reason: str) -> Gang:
    async def holds() -> Gang | None:
        gang = await cluster.gang(application)
        return gang if gang is not None and gang.status.reason == reason else None

    gang: Gang = await cluster.until(holds, f"{application} waits with reason {reason}")
    assert gang.status.phase == "Pending"
    assert (await cluster.driver(application)).spec.node_name == ""
    return gang


async def test_quota_holds_a_whole_gang_back_and_a_higher_maximum_lets_it_start() -> None:
    async with running_cluster(ROOMY) as cluster:
        await put(cluster, "etl", max={"cpu": "5"})
        await in_force(cluster, "etl")
        first = await submit(cluster, "first", "etl")
        await cluster.expect_executors(first, 2)
        second = await submit(cluster, "second", "etl")
        gang = await expect_reason(cluster, second, "OverQuota")
        assert 'queue "etl" may hold cpu 5, holds 3, and 3 more is asked for' in gang.status.message
        elsewhere = await submit(cluster, "elsewhere")
        await cluster.expect_executors(elsewhere, 2)

        status, told = await ask(cluster, "/queues/etl")
        assert status == 200
        assert (told["queue"]["used"]["cpu"], told["queue"]["running"], told["queue"]["waiting"]) == ("3", 1, 1)
        [waits] = told["waiting"]
        assert (waits["name"], waits["reason"], waits["position"]) == ("second", "OverQuota", 1)
        assert f"{NAMESPACE}/second" in "\n".join(details(told, time.time()))
        _, everything = await ask(cluster, "/queues")
        assert [line.split()[0] for line in tree(everything["queues"]).split("\n")] == ["NAME", "default", "etl"]

        await change(cluster, "etl", max={"cpu": "6"})
        await cluster.expect_executors(second, 2)
        assert (await cluster.gang(second)).spec.queue == "etl"  # type: ignore[union-attr]


async def test_a_lower_maximum_evicts_nobody() -> None:
    async with running_cluster(ROOMY) as cluster:
        await put(cluster, "etl", max={"cpu": "6"})
        await in_force(cluster, "etl")
        running = await submit(cluster, "running", "etl")
        await cluster.expect_executors(running, 2)
        await change(cluster, "etl", max={"cpu": "1"})

        async def lowered() -> bool:
            return bool((await ask(cluster, "/queues/etl"))[1]["queue"]["max"] == {"cpu": "1"})

        await cluster.until(lowered, "the maximum is lower")
        later = await submit(cluster, "later", "etl")
        await expect_reason(cluster, later, "ExceedsQueue")
        assert len(await cluster.expect_executors(running, 2)) == 2


async def test_an_application_finds_its_queue_by_annotation_label_or_rule(tmp_path: Path) -> None:
    file = tmp_path / "queues.yaml"
    file.write_text(
        "queues: [{name: annotated}, {name: labelled}, {name: team-a}]\n"
        "rules: [{namespace: 'team-*', queue: '{namespace}'}]\n"
    )
    async with running_cluster(ROOMY, queues={"file": str(file)}) as cluster:
        by_annotation = await submit(cluster, "one", "annotated", driver_labels={"muster.dev/queue": "labelled"})
        by_label = await submit(cluster, "two", driver_labels={"muster.dev/queue": "labelled"})
        by_rule = await submit(cluster, "three")
        for application, queue in ((by_annotation, "annotated"), (by_label, "labelled"), (by_rule, NAMESPACE)):
            await cluster.expect_executors(application, 2)
            gang = await cluster.gang(application)
            assert gang is not None and gang.spec.queue == queue


async def test_an_unknown_queue_is_waited_for_and_blocks_nobody() -> None:
    async with running_cluster(ROOMY) as cluster:
        lost = await submit(cluster, "lost", "etl")
        gang = await expect_reason(cluster, lost, "UnknownQueue")
        assert "'etl' does not exist; applications may use default" in gang.status.message
        other = await submit(cluster, "other")
        await cluster.expect_executors(other, 2)
        await put(cluster, "etl")
        await cluster.expect_executors(lost, 2)


async def test_a_new_rule_sends_those_that_wait_to_another_queue(tmp_path: Path) -> None:
    file = tmp_path / "queues.yaml"
    queues = "queues: [{name: right}, {name: closed, max: {cpu: 0}}]\n"
    file.write_text(queues + "rules: [{namespace: team-a, queue: wrong}]\n")
    async with running_cluster(ROOMY, queues={"file": str(file), "checkInterval": "0.1s"}) as cluster:
        lost = await submit(cluster, "lost")
        await expect_reason(cluster, lost, "UnknownQueue")
        file.write_text(queues + "rules: [{namespace: team-a, queue: closed}]\n")
        assert (await expect_reason(cluster, lost, "ExceedsQueue")).spec.queue == "closed"
        file.write_text(queues + "rules: [{namespace: team-a, queue: right}]\n")
        await cluster.expect_executors(lost, 2)

        async def says_so() -> bool:
            gang = await cluster.gang(lost)
            return gang is not None and gang.spec.queue == "right"

        await cluster.until(says_so, "its Gang names the new queue")


async def test_a_user_at_the_limit_waits_and_another_one_does_not() -> None:
    trusted = {"trusted": ["kubernetes-admin"]}  # who submits here, on behalf of alice and bob
    async with running_cluster(ROOMY, queues=trusted) as cluster:
        await put(cluster, "etl", limits=[{"users": ["*"], "maxApplications": 1}])
        await in_force(cluster, "etl")
        first = await submit(cluster, "first", "etl", "alice")
        await cluster.expect_executors(first, 2)
        second = await submit(cluster, "second", "etl", "alice")
        gang = await expect_reason(cluster, second, "OverQuota")
        assert 'user "alice" in queue "etl" may run 1 application(s) at once' in gang.status.message
        bobs = await submit(cluster, "bobs", "etl", "bob")
        await cluster.expect_executors(bobs, 2)
        assert [(u["user"], u["running"]) for u in (await ask(cluster, "/queues/etl"))[1]["users"]] == [
            ("alice", 1),
            ("bob", 1),
        ]


async def test_who_may_not_submit_waits_until_it_is_allowed() -> None:
    async with running_cluster(ROOMY) as cluster:
        await put(cluster, "etl", submitters={"users": ["alice"]})
        await in_force(cluster, "etl")
        claims = await submit(cluster, "claims", "etl", "alice")  # an annotation of its own, which nobody believes
        gang = await expect_reason(cluster, claims, "NotAllowed")
        assert gang.spec.user == "kubernetes-admin"
        assert 'takes applications of users alice; this one was created by user "kubernetes-admin"' in (
            gang.status.message
        )
        await change(cluster, "etl", submitters={"users": ["alice", "kubernetes-admin"]})
        await cluster.expect_executors(claims, 2)


async def test_a_bad_file_keeps_the_old_queues(tmp_path: Path) -> None:
    file = tmp_path / "queues.yaml"
    file.write_text("queues: [{name: etl, max: {cpu: 3}}]")
    async with running_cluster(ROOMY, queues={"file": str(file), "checkInterval": "0.1s"}) as cluster:
        first = await submit(cluster, "first", "etl")
        await cluster.expect_executors(first, 2)
        assert cluster.service is not None
        registry = cluster.service.metrics.registry
        file.write_text("queues: [{name: etl, max: {cpu: many}}]")
        await cluster.until(lambda: registry.get_sample_value("muster_queues_config_ok") == 0, "the mistake is seen")
        second = await submit(cluster, "second", "etl")
        await expect_reason(cluster, second, "OverQuota")
        file.write_text("queues: [{name: etl, max: {cpu: 30}}]")
        await cluster.expect_executors(second, 2)
        assert registry.get_sample_value("muster_queues_config_ok") == 1


async def test_a_restart_keeps_queues_users_and_what_is_charged() -> None:
    async with running_cluster(ROOMY, queues={"trusted": ["kubernetes-admin"]}) as cluster:
        await put(cluster, "etl", max={"cpu": "5"})
        await in_force(cluster, "etl")
        first = await submit(cluster, "first", "etl", "alice")
        await cluster.expect_executors(first, 2)
        second = await submit(cluster, "second", "etl", "bob")
        await expect_reason(cluster, second, "OverQuota")
        await cluster.stop_muster()
        await cluster.start_muster()
        _, told = await ask(cluster, "/queues/etl")
        assert [(user["user"], user["running"], user["waiting"]) for user in told["users"]] == [
            ("alice", 1, 0),
            ("bob", 0, 1),
        ]
        assert told["queue"]["used"]["cpu"] == "3"
        await change(cluster, "etl", max={"cpu": "6"})
        await cluster.expect_executors(second, 2)


async def test_the_status_of_a_queue_tells_what_it_holds() -> None:
    async with running_cluster(ROOMY) as cluster:
        await put(cluster, "company")
        await put(cluster, "etl", parent="company")
        await in_force(cluster, "company", "etl")
        application = await submit(cluster, "first", "etl")
        await cluster.expect_executors(application, 2)
        for name in ("etl", "company"):

            async def told(name: str = name) -> Queue | None:
                queue = await cluster.client.get(QUEUES, name)
                return queue if queue.status.running == 1 else None

            queue: Queue = await cluster.until(told, f"the status of {name}")
            assert queue.status.used["cpu"] == "3"
            [condition] = queue.status.conditions
            assert (condition.type, condition.status) == ("Accepted", "True")


async def test_a_queue_that_does_not_exist_is_told_with_those_that_do() -> None:
    async with running_cluster(ROOMY) as cluster:
        status, told = await ask(cluster, "/queues/sales")
        assert (status, told["error"]) == (404, 'there is no queue "sales"; there are default')
