"""Applications on an embedded cluster leave their rows, and what is learnt from them reaches the next run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from muster.cluster.nodes import ZONE_LABELS
from muster.control.extender.placement_metrics import zone_traffic
from muster.devcluster.node_pool import NodePool
from muster.history.accounts import Account
from muster.kube.kinds import NODES, PODS
from tests.control.running_cluster import NAMESPACE, RunningCluster, running_cluster

ONE_NODE = NodePool(count=1, cpu=8)


def kept_in(folder: Path) -> dict[str, Any]:
    return {"path": str(folder / "state" / "history.db")}


async def ask(cluster: RunningCluster, **parameters: str) -> tuple[int, Any]:
    assert cluster.service is not None
    url = f"http://127.0.0.1:{cluster.service.management_port}/history"
    async with aiohttp.ClientSession() as http, http.get(url, params=parameters) as answer:
        return answer.status, await answer.json()


async def expect_row(cluster: RunningCluster, application: str) -> dict[str, Any]:
    async def holds() -> Any:
        _, answer = await ask(cluster, application=application)
        return answer["items"]

    [row] = await cluster.until(holds, f"{application} has its row")
    return dict(row)


async def test_an_application_that_succeeded_tells_its_life_and_its_cost(tmp_path: Path) -> None:
    async with running_cluster(ONE_NODE, history=kept_in(tmp_path)) as cluster:
        application = await cluster.submit("etl-2026-11-25", executors=3, run_seconds=60)
        row = await expect_row(cluster, application)
        gang = await cluster.expect_phase(application, "Finished")
        assert (row["namespace"], row["name"], row["outcome"]) == (NAMESPACE, "etl-2026-11-25", "Succeeded")
        assert (row["minimum"], row["maximum"], row["executors"], row["queue"]) == (3, 3, 3, gang.spec.queue)
        times = [row[name] for name in ("found", "reserved", "driverBound", "minimumReached", "ended")]
        assert times == sorted(times)
        use, seconds = row["use"], row["ended"] - row["reserved"]
        # a driver and three executors of one core each, from the reservation on; executors go at the very end
        assert 3.5 * seconds <= use["coreSeconds"] <= 4 * seconds + 0.01
        assert 0 < use["unboundSlotSeconds"] < use["coreSeconds"]
        assert use["idlePodSeconds"] > 0
        assert "reserved 3 slot(s)" in row["timeline"][0]["what"]
        assert row["timeline"][-1]["what"] == "its driver finished"
        status, listed = await ask(cluster, namespace=NAMESPACE)
        assert (status, listed["records"]) == (200, True)
        assert "timeline" not in listed["items"][0]


async def test_failed_and_deleted_drivers_are_told_apart(tmp_path: Path) -> None:
    async with running_cluster(ONE_NODE, history=kept_in(tmp_path)) as cluster:
        failing = await cluster.submit("failing", executors=1, run_seconds=10, exit_code=3)
        assert (await expect_row(cluster, failing))["outcome"] == "Failed"
        killed = await cluster.submit("killed", executors=1, run_seconds=6000)
        await cluster.expect_phase(killed, "Running")
        await cluster.client.delete(PODS, (await cluster.driver(killed)).metadata.name, NAMESPACE)
        assert (await expect_row(cluster, killed))["outcome"] in ("Deleted", "Failed")
        _, sums = await ask(cluster, summary="namespace")
        assert [(one["key"], one["applications"]) for one in sums["items"]] == [(NAMESPACE, 2)]


async def test_pairs_over_zones_are_those_of_the_pods_that_ran(tmp_path: Path) -> None:
    async with running_cluster(NodePool(count=3, cpu=4), history=kept_in(tmp_path)) as cluster:
        application = await cluster.submit("wide", executors=6, run_seconds=120)
        pods = [*await cluster.expect_executors(application, 6), await cluster.driver(application)]
        zones = {n.metadata.name: n.metadata.labels[ZONE_LABELS[0]] for n in await cluster.client.list(NODES)}
        traffic = zone_traffic(Counter(zones[pod.spec.node_name] for pod in pods).values())
        row = await expect_row(cluster, application)
        assert traffic.cross_zone > 0
        assert (row["crossZonePairs"], row["pairs"]) == (traffic.cross_zone, traffic.total)


async def test_the_fourth_run_of_a_job_is_expected_to_run_as_long_as_the_others(tmp_path: Path) -> None:
    async with running_cluster(ONE_NODE, history=kept_in(tmp_path)) as cluster:
        runs = []
        for day in (22, 23, 24):
            application = await cluster.submit(f"etl-2026-11-{day}", executors=1, run_seconds=20)
            row = await expect_row(cluster, application)
            assert row["estimatedSeconds"] is None
            runs.append(row["runSeconds"])
        await cluster.stop_muster()
        await cluster.start_muster()  # the runs are known from the file
        application = await cluster.submit("etl-2026-11-25", executors=1, run_seconds=20)
        gang = await cluster.expect_phase(application, "Running")
        assert gang.spec.expected_run_seconds == max(runs)
        assert (await expect_row(cluster, application))["estimatedSeconds"] == max(runs)
        told = await cluster.submit(
            "etl-2026-11-26", executors=1, run_seconds=20, driver_annotations={"muster.dev/expected-run-time": "90s"}
        )
        assert (await expect_row(cluster, told))["estimatedSeconds"] == 90


async def test_one_that_outlives_a_leader_is_counted_as_far_as_its_pods_show_it(tmp_path: Path) -> None:
    async with running_cluster(ONE_NODE, history=kept_in(tmp_path)) as cluster:
        application = await cluster.submit("long", executors=2, run_seconds=240)
        await cluster.expect_executors(application, 2)
        await cluster.expect_phase(application, "Running")
        await cluster.stop_muster()
        await cluster.start_muster()
        row = await expect_row(cluster, application)
        assert row["observedSince"] > row["reserved"]
        assert row["use"]["coreSeconds"] > 2 * (row["ended"] - row["minimumReached"])


async def test_one_that_ended_while_nobody_led_ended_when_its_kubelet_says(tmp_path: Path) -> None:
    async with running_cluster(ONE_NODE, history=kept_in(tmp_path)) as cluster:
        application = await cluster.submit("short", executors=1, run_seconds=120)
        await cluster.expect_phase(application, "Running")
        await cluster.stop_muster()
        await cluster.expect_succeeded(application)
        await cluster.start_muster()
        row = await expect_row(cluster, application)
        assert row["outcome"] == "Succeeded"
        assert row["ended"] <= row["observedSince"]


async def test_without_a_usable_file_applications_run_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where the folder should be")
    async with running_cluster(ONE_NODE, history=kept_in(tmp_path)) as cluster:
        application = await cluster.submit("app", executors=1, run_seconds=10)
        await cluster.expect_succeeded(application)
        status, answer = await ask(cluster)
        assert status == 503
        assert "the history cannot be read now" in answer["error"]


async def test_a_mistake_in_the_recording_ends_the_recording_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(account: Account, at: float) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Account, "advance", broken)
    with capture_logs() as told:  # nor is the traceback rendered with all its locals, which takes seconds
        await _runs_without_a_row(tmp_path)
    errors = [entry["event"] for entry in told if entry["log_level"] == "error"]
    assert set(errors) == {"history: nothing more is recorded until another term begins"}


async def _runs_without_a_row(tmp_path: Path) -> None:
    async with running_cluster(ONE_NODE, history=kept_in(tmp_path)) as cluster:
        application = await cluster.submit("app", executors=1, run_seconds=10)
        await cluster.expect_succeeded(application)
        await cluster.expect_phase(application, "Finished")
        assert (await ask(cluster))[1]["items"] == []


async def test_questions_that_make_no_sense_are_refused_in_words(tmp_path: Path) -> None:
    async with running_cluster(ONE_NODE, history=kept_in(tmp_path)) as cluster:
        for parameters, said in (
            ({"quue": "a"}, "unknown parameter 'quue'; known are namespace, queue"),
            ({"since": "yesterday"}, "since='yesterday' is no Unix time"),
            ({"since": "nan"}, "since='nan' is no Unix time"),
            ({"limit": "0"}, "limit='0' is no number from 1 to 500"),
            ({"limit": "501"}, "no number from 1 to 500"),
            ({"limit": "-1"}, "no number from 1 to 500"),
            ({"sort": "beauty"}, "sort='beauty': allowed are ended, created"),
            ({"summary": "planet"}, "summary='planet': allowed are queue, user, namespace, pool"),
        ):
            status, answer = await ask(cluster, **parameters)
            assert status == 400
            assert said in answer["error"]


async def test_a_service_without_history_says_so() -> None:
    async with running_cluster(ONE_NODE) as cluster:
        status, answer = await ask(cluster)
        assert status == 404
        assert "history.path is not set" in answer["error"]
