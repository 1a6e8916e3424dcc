"""The service seen from outside: its webhook over TLS, health, metrics, and what it does beside another replica."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

import aiohttp
import pytest

from muster.control.admission import MAX_REVIEW_BYTES
from muster.control.metrics import Metrics
from muster.control.serve import Service
from muster.devcluster.node_pool import NodePool
from muster.kube.client import Client
from tests.control.running_cluster import RunningCluster, running_cluster
from tests.control.spark_pods import executor_pod
from tests.control.test_admission_reviews import review_of

ONE_NODE = NodePool(count=1, cpu=8)


@asynccontextmanager
async def webhook_of(cluster: RunningCluster) -> AsyncIterator[aiohttp.ClientSession]:
    """A client that trusts what the webhook configuration says, as the API server does."""
    service = cluster.service
    assert service is not None
    trust = ssl.create_default_context(cadata=service.ca_pem.decode())
    connector = aiohttp.TCPConnector(ssl=trust)
    async with aiohttp.ClientSession(f"https://127.0.0.1:{service.webhook_port}", connector=connector) as http:
        yield http


async def management(cluster: RunningCluster, path: str) -> tuple[int, str]:
    assert cluster.service is not None
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"http://127.0.0.1:{cluster.service.management_port}{path}") as answer,
    ):
        return answer.status, await answer.text()


async def test_a_malformed_or_oversized_review_is_answered_400_with_a_reason_and_changes_nothing() -> None:
    async with running_cluster(ONE_NODE) as cluster, webhook_of(cluster) as http:
        for body, said in (
            (b"{", "AdmissionReview"),
            (b"\xff" * 100, "AdmissionReview"),
            (b'{"x": "' + b"a" * MAX_REVIEW_BYTES + b'"}', "larger than"),
        ):
            async with http.post("/mutate", data=io.BytesIO(body)) as answer:
                assert answer.status == 400
                assert said in (await answer.json())["error"]
        controller = cluster.service.controller if cluster.service else None
        assert controller is not None
        assert dict(controller.scheduler.applications()) == {}
        async with http.post("/mutate", data=review_of(executor_pod())) as answer:
            assert answer.status == 200, "and it goes on serving"


async def test_health_and_metrics_tell_what_goes_on() -> None:
    async with running_cluster(ONE_NODE) as cluster:
        assert await management(cluster, "/healthz") == (200, "ok\n")
        assert await management(cluster, "/readyz") == (200, "ok\n")
        application = await cluster.submit("app", executors=2, run_seconds=120)
        await cluster.expect_phase(application, "Running")
        _, text = await management(cluster, "/metrics")
        seen = dict(line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
        assert seen['muster_gangs{phase="Running"}'] == "1.0"
        assert seen['muster_admissions_total{answer="gate",role="driver"}'] == "1.0"
        assert seen['muster_admissions_total{answer="bind",role="executor"}'] == "2.0"
        assert seen["muster_leader"] == "1.0"
        assert seen["muster_gang_wait_seconds_count"] == "1.0"
        assert not any("spark-" in name for name in seen), "no series per application or pod"


def samples(cluster: RunningCluster) -> dict[str, float]:
    assert cluster.service is not None
    lines = cluster.service.metrics.render().decode().splitlines()
    return {name: float(value) for name, value in (one.rsplit(" ", 1) for one in lines if one and one[0] != "#")}


async def test_metrics_tell_of_the_certificate_the_registration_and_the_version() -> None:
    async with running_cluster(ONE_NODE) as cluster, webhook_of(cluster) as http:
        async with http.post("/mutate", data=b"{") as answer:
            assert answer.status == 400
        seen = samples(cluster)
        assert seen["muster_bad_reviews_total"] == 1
        assert seen["muster_webhook_registered"] == 1
        days = (seen["muster_certificate_expiry_timestamp_seconds"] - time.time()) / 86400
        assert 364 < days < 366
        assert seen[f'muster_build_info{{version="{version("spark-muster")}"}}'] == 1


async def test_the_age_of_the_oldest_waiting_gang_grows_while_it_waits_and_is_none_afterwards() -> None:
    async with running_cluster(ONE_NODE) as cluster:
        first = await cluster.submit("first", executors=5, run_seconds=240)
        await cluster.expect_phase(first, "Running")
        assert samples(cluster)["muster_oldest_waiting_gang_seconds"] == 0
        second = await cluster.submit("second", executors=5, run_seconds=10)
        await cluster.expect_phase(second, "Pending")
        await cluster.until(lambda: samples(cluster)["muster_oldest_waiting_gang_seconds"] >= 1, "a second has passed")
        await cluster.expect_succeeded(first)
        await cluster.expect_succeeded(second)
        await cluster.until(lambda: samples(cluster)["muster_oldest_waiting_gang_seconds"] == 0, "nobody waits")


async def test_metrics_count_a_gang_once_and_held_executors_while_they_are_held() -> None:
    async with running_cluster(ONE_NODE) as cluster:
        first = await cluster.submit("first", executors=5, run_seconds=200)
        await cluster.expect_phase(first, "Running")
        growing = await cluster.submit("growing", dynamic=True, executors=0, max_executors=3, run_seconds=60)
        await cluster.until(lambda: samples(cluster)["muster_held_executors"] != 0, "held executors are counted")
        await cluster.expect_succeeded(first)
        await cluster.expect_succeeded(growing)
        await cluster.expect_phase(growing, "Finished")
        await cluster.until(lambda: samples(cluster)['muster_gangs{phase="Running"}'] == 0, "nothing runs any more")
        assert samples(cluster)["muster_held_executors"] == 0
        assert samples(cluster)["muster_gang_wait_seconds_count"] == 2


async def test_metrics_count_the_gangs_of_earlier_leaders_after_a_restart() -> None:
    async with running_cluster(ONE_NODE) as cluster:
        running = await cluster.submit("running", executors=5, run_seconds=600)
        await cluster.expect_phase(running, "Running")
        waiting = await cluster.submit("waiting", executors=5, run_seconds=10)
        await cluster.expect_phase(waiting, "Pending")

        await cluster.stop_muster()
        await cluster.start_muster()

        seen = samples(cluster)
        assert (seen['muster_gangs{phase="Running"}'], seen['muster_gangs{phase="Pending"}']) == (1, 1)
        assert seen["muster_gang_wait_seconds_count"] == 0, "the leader of its time has counted that"


async def test_why_refuses_what_it_cannot_answer_in_words() -> None:
    async with running_cluster(ONE_NODE) as cluster:
        for path, status, said in (
            ("/why", 400, "NAMESPACE/APPLICATION"),
            ("/why?application=nobody", 400, "NAMESPACE/APPLICATION"),
            ("/why?application=team-a/nobody", 404, "team-a/nobody"),
            ("/applications/team-a/nobody/why", 404, "team-a/nobody"),
            ("/applications/team-a/nobody/why?output=xml", 400, "json, text and wide"),
        ):
            answered, text = await management(cluster, path)
            assert answered == status
            assert said in json.loads(text)["error"]


async def test_a_stopping_replica_holds_executors_and_sends_its_callers_to_the_others() -> None:
    webhook = {"port": 0, "url": "https://127.0.0.1:0/mutate", "shutdownDelay": "3s"}
    async with running_cluster(ONE_NODE, webhook=webhook) as cluster, webhook_of(cluster) as http:
        assert cluster.service is not None
        async with http.post("/mutate", data=review_of(executor_pod())) as answer:
            assert answer.headers.get("Connection") != "close"
        cluster.service.stop()
        await cluster.until(
            lambda: cluster.service and not cluster.service.election.is_leader(), "the lease is given up"
        )
        async with http.post("/mutate", data=review_of(executor_pod(2))) as answer:
            assert answer.headers["Connection"] == "close"
            patch = json.loads(base64.b64decode((await answer.json())["response"]["patch"]))
        assert {"op": "add", "path": "/spec/schedulingGates", "value": [{"name": "muster.dev/gang"}]} in patch


@asynccontextmanager
async def second_replica(cluster: RunningCluster) -> AsyncIterator[Service]:
    async with Client(cluster.cluster.access, user_agent="muster") as client:
        service = Service(cluster.config, client, Metrics(), "second")
        running: asyncio.Task[Any] = asyncio.create_task(service.run())
        try:
            await cluster.until(lambda: service.webhook_registered, "the second replica's webhook is registered")
            yield service
        finally:
            service.stop()
            await running


async def test_a_replica_that_does_not_lead_holds_executors_and_the_leader_releases_them() -> None:
    async with running_cluster() as cluster, second_replica(cluster) as other:
        # the last one to register has the webhook now: every executor of this application meets a replica without lease
        assert cluster.service is not None
        assert cluster.service.election.is_leader()
        assert not other.election.is_leader()
        application = await cluster.submit("app", executors=3, run_seconds=60)
        executors = await cluster.expect_executors(application, 3)
        assert {pod.metadata.annotations["muster.dev/mode"] for pod in executors} == {"pin"}
        await cluster.expect_succeeded(application)


async def test_when_the_leader_stops_the_other_replica_goes_on_at_once() -> None:
    async with running_cluster(ONE_NODE) as cluster, second_replica(cluster) as other:
        first = await cluster.submit("first", executors=4, run_seconds=240)
        await cluster.expect_phase(first, "Running")
        second = await cluster.submit("second", executors=4, run_seconds=10)
        await cluster.expect_phase(second, "Pending")
        await cluster.stop_muster()
        await cluster.until(other.election.is_leader, "the other replica leads")
        await cluster.expect_succeeded(first)
        await cluster.expect_succeeded(second)
        assert cluster.cluster.counters().pods_rejected == {}


async def test_a_leader_that_slept_past_its_lease_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_cluster(ONE_NODE) as cluster:
        service = cluster.service
        assert service is not None
        before = service.controller
        # what it finds on waking; the lease is free, so that its next attempt makes it the leader again
        monkeypatch.setattr(service.election, "_leads_until", float("-inf"))

        def begun_anew() -> bool:
            controller = service.controller
            return controller is not None and controller is not before and controller.synced.is_set()

        await cluster.until(begun_anew, "it reads everything again: another replica may have led in between")
