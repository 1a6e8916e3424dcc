"""The whole service on an embedded API server, called over HTTPS as kube-scheduler and the API server call it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from muster.control.extender.demands import DEMANDS, Demand
from muster.control.extender.reservations import RESOURCE_RESERVATIONS
from muster.devcluster.server import ApiServer
from muster.kube.config import load_access
from muster.kube.kinds import EVENTS, PODS
from muster.kube.objects import Pod
from tests.extender.running_extender import CONTEXT, RunningExtender, running_extender

NODES = ("n1", "n2")


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[RunningExtender]:
    async with running_extender(tmp_path) as running:
        for name in NODES:
            await running.node(name)
        assert running.service is not None
        table = running.service.filter.view.scheduler.table
        await running.until(lambda: len(table.index) == 2, "the nodes are seen")
        yield running


async def demands(cluster: RunningExtender) -> list[Demand]:
    return await cluster.client.list(DEMANDS, "default")


async def test_an_application_is_scheduled_and_its_reservation_written(cluster: RunningExtender) -> None:
    driver = await cluster.driver(executors=4)

    answer = await cluster.ask(driver, NODES)

    assert answer == {
        "Nodes": None,
        "NodeNames": ["n1"],
        "FailedNodes": None,
        "FailedAndUnresolvableNodes": None,
        "Error": "",
    }
    assert await cluster.schedule(driver, NODES) == "n1"
    for number in range(4):
        assert await cluster.schedule(await cluster.executor(f"exec-{number}"), NODES) in NODES
    written = await cluster.expect_slots(
        {
            "driver": ("n1", "app-driver"),
            "executor-1": ("n1", "exec-0"),
            "executor-2": ("n1", "exec-1"),
            "executor-3": ("n1", "exec-2"),
            "executor-4": ("n2", "exec-3"),
        }
    )
    assert written.metadata.labels == {"app-id": "app"}
    [owner] = written.metadata.owner_references
    assert (owner.kind, owner.name, owner.uid, owner.controller) == ("Pod", "app-driver", driver.metadata.uid, True)
    assert written.spec.reservations["executor-1"].resources == {"cpu": "2", "memory": "4Gi", "nvidia.com/gpu": "0"}


async def test_what_does_not_fit_is_refused_on_every_node_with_the_same_words(cluster: RunningExtender) -> None:
    answer = await cluster.ask(await cluster.driver(executors=100), NODES)

    assert answer["NodeNames"] is None
    assert answer["FailedNodes"] == dict.fromkeys(NODES, "application does not fit to the cluster")


async def test_a_new_process_goes_on_where_the_last_one_stopped(cluster: RunningExtender) -> None:
    driver = await cluster.driver(executors=2)
    await cluster.schedule(driver, NODES)
    await cluster.schedule(await cluster.executor("exec-0"), NODES)
    before = await cluster.expect_slots(
        {"driver": ("n1", "app-driver"), "executor-1": ("n1", "exec-0"), "executor-2": ("n1", "")}
    )

    await cluster.stop()
    await cluster.start()

    assert await cluster.schedule(await cluster.executor("exec-1"), NODES) == "n1"
    after = await cluster.expect_slots(
        {"driver": ("n1", "app-driver"), "executor-1": ("n1", "exec-0"), "executor-2": ("n1", "exec-1")}
    )
    assert after.metadata.uid == before.metadata.uid


async def test_a_driver_that_waits_demands_room_though_nobody_asks_about_it(cluster: RunningExtender) -> None:
    filler = await cluster.driver("filler", executors=7)
    await cluster.schedule(filler, NODES)
    driver = await cluster.driver(executors=3)

    [demand] = await cluster.until(lambda: demands(cluster), "a demand is there")

    assert (demand.metadata.name, demand.metadata.labels) == ("demand-app-driver", {"spark-app-id": "app"})
    assert demand.spec.instance_group == "batch"
    assert [(unit.count, unit.resources["cpu"]) for unit in demand.spec.units] == [(1, "1"), (3, "2")]
    assert demand.spec.units[0].pod_names_by_namespace == {"default": ["app-driver"]}

    await cluster.stop()
    await cluster.start()
    assert [each.metadata.uid for each in await demands(cluster)] == [demand.metadata.uid]

    await cluster.set_phase(filler, "Succeeded")
    await cluster.until(lambda: cluster.schedule(driver, NODES), "it is scheduled")
    await cluster.until(lambda: _none(cluster), "the demand is gone")


async def _none(cluster: RunningExtender) -> bool:
    return not await demands(cluster)


async def test_a_reservation_that_another_replica_wrote_is_followed(cluster: RunningExtender) -> None:
    driver = await cluster.driver(executors=1)
    await cluster.ask(driver, NODES)
    written = await cluster.expect_slots({"driver": ("n1", "app-driver"), "executor-1": ("n1", "")})

    moved = {"spec": {"reservations": {"executor-1": {"node": "n2"}}}}
    await cluster.client.patch(RESOURCE_RESERVATIONS, "app", moved, "default")

    assert cluster.service is not None
    scheduler = cluster.service.filter.view.scheduler

    def follows() -> bool:
        held = scheduler.reservation("default/app")
        return held is not None and [slot.node for slot in held.slots] == ["n2"]

    await cluster.until(follows, "the slot is held on the other node")
    await cluster.client.bind("app-driver", "default", "n1")
    assert await cluster.schedule(await cluster.executor("exec-0"), NODES) == "n2"
    after = await cluster.expect_slots({"driver": ("n1", "app-driver"), "executor-1": ("n2", "exec-0")})
    assert after.metadata.uid == written.metadata.uid


async def test_what_is_wrong_with_annotations_is_told_by_an_event_and_in_the_answer(cluster: RunningExtender) -> None:
    driver = await cluster.driver(**{"spark-executor-cpu": "two"})

    answer = await cluster.ask(driver, ["n1"])

    message = "annotation spark-executor-cpu does not have a parseable value two"
    assert answer["FailedNodes"] == {"n1": f"failed to get spark resources: {message}"}

    async def event() -> Any:
        found = await cluster.client.list(EVENTS, "default")
        return [each for each in found if each.reason == "InvalidSize"]

    [told] = await cluster.until(event, "an event is there")
    assert told.message.startswith(message)
    assert told.involved_object.uid == driver.metadata.uid


async def test_status_and_metrics(cluster: RunningExtender) -> None:
    await cluster.schedule(await cluster.driver(executors=1), NODES)
    await cluster.call(f"{CONTEXT}/predicates", {"Pod": None, "NodeNames": None})

    for name in ("liveness", "readiness", "health"):
        assert (await cluster.call(f"/status/{name}"))[0] == 200
        assert (await cluster.call(f"{CONTEXT}/status/{name}"))[0] == 200, "where probes of the archived example look"
    _, metrics = await cluster.call("/metrics")
    assert (
        'foundry_spark_scheduler_requests_total{instance_group="batch",outcome="success",sparkrole="driver"} 1.0'
        in metrics
    )
    assert "foundry_spark_scheduler_reconciliation_time_count 1.0" in metrics
    assert 'foundry_spark_scheduler_scheduling_initialnodecount_count{instance_group="batch"} 1.0' in metrics
    assert (await cluster.call("/nowhere"))[0] == 404


@pytest.mark.parametrize("text", [b"no json", b"[]", b'{"NodeNames": 5}'])
async def test_what_is_no_question_is_answered_with_400(cluster: RunningExtender, text: bytes) -> None:
    status, message = await cluster.call(f"{CONTEXT}/filter", text=text)

    assert status == 400
    assert "expected ExtenderArgs" in message


async def test_a_driver_that_waits_too_long_is_marked_and_the_mark_is_taken_back(tmp_path: Path) -> None:
    async with running_extender(tmp_path, **{"unschedulable-pod-timeout-duration": "1ns"}) as cluster:
        await cluster.node("n1")
        await cluster.driver(executors=100)
        service = cluster.service
        assert service is not None
        await cluster.until(lambda: "default/app" in service.filter.view.known.applications, "the driver is seen")

        async def status() -> str | None:
            await service.mark()
            pod: Pod = await cluster.client.get(PODS, "app-driver", "default")
            return next((c.status for c in pod.status.conditions if c.type == "PodExceedsClusterCapacity"), None)

        async def marked() -> bool:
            return await status() == "True"

        await cluster.until(marked, "it is marked")
        await cluster.node("huge", cpu="1000", memory="1Ti")

        async def unmarked() -> bool:
            return await status() == "False"

        await cluster.until(unmarked, "the mark is taken back")


async def test_filter_calls_can_be_limited_to_clients_with_a_certificate(tmp_path: Path) -> None:
    limits = {"client-ca-files": [str(tmp_path / "ca.crt")], "require-client-certificates": True}
    async with running_extender(tmp_path, server=limits) as cluster:
        question = {"Pod": None, "NodeNames": ["n1"]}

        refused, why = await cluster.call(f"{CONTEXT}/predicates", question)
        allowed, _ = await cluster.call(f"{CONTEXT}/predicates", question, tls=cluster.client_certificate())
        converted, _ = await cluster.call(f"{CONTEXT}/convert", text=b"{}")

        assert (refused, allowed) == (403, 200)
        assert "client certificate" in why
        assert converted == 400, "the API server presents no certificate: reviews are read all the same"


async def test_conversions_are_answered_before_the_cluster_is_read(tmp_path: Path) -> None:
    """Reading reservations may need them: an API server that is away stands for one that waits for our answer."""
    async with ApiServer() as gone:
        gone.write_kubeconfig(tmp_path / "gone")
    async with running_extender(tmp_path, started=False) as cluster:
        await cluster.start(load_access(tmp_path / "gone"))

        assert (await cluster.call(f"{CONTEXT}/convert", text=b"{}"))[0] == 400
        reason = "the state of the cluster is still being read"
        assert await cluster.call("/status/readiness") == (503, {"reason": reason})
        question = {"Pod": {"metadata": {"name": "driver"}}, "NodeNames": ["n1"]}
        status, answer = await cluster.call(f"{CONTEXT}/predicates", question)
        assert (status, answer["FailedNodes"]) == (200, {"n1": reason})


async def test_the_health_check_may_want_a_secret(tmp_path: Path) -> None:
    async with running_extender(tmp_path, **{"health-checks": {"shared-secret": "s3cret"}}) as cluster:
        assert (await cluster.call("/status/health"))[0] == 401
        assert (await cluster.call("/status/health", Authorization="Bearer s3cret"))[0] == 200


async def test_a_stranger_to_its_certificate_does_not_get_far(cluster: RunningExtender) -> None:
    assert cluster.service is not None
    with pytest.raises(aiohttp.ClientConnectorCertificateError):
        async with cluster.http.get(f"https://127.0.0.1:{cluster.service.port}/status/liveness"):
            pass
