"""Muster on a real kube-apiserver, kube-scheduler and kube-controller-manager; nodes and Spark are virtual."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from muster.devcluster.node_pool import NodePool
from tests.kubernetes.real_cluster import real_cluster, until

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(300)]


async def test_a_static_application_is_gated_reserved_released_and_its_executors_are_born_bound(tmp_path: Path) -> None:
    async with real_cluster(tmp_path, NodePool(count=3, cpu=8)) as real:
        application = await real.submit("pi", executors=3, run_seconds=120)
        executors = await real.expect_executors(application, 3)
        assert [pod.metadata.annotations["muster.dev/mode"] for pod in executors] == ["bind"] * 3
        gang = await real.expect_phase(application, "Running")
        [driver] = await real.pods(application, "driver")
        assert driver.spec.node_name == gang.spec.driver_node
        assert Counter(pod.spec.node_name for pod in executors) == {slot.node: slot.count for slot in gang.spec.slots}
        await real.expect_succeeded(application)
        await real.expect_phase(application, "Finished")
        assert real.kubelets.rejected == {}


async def test_several_compete_for_too_little_room_and_none_starts_half(tmp_path: Path) -> None:
    async with real_cluster(tmp_path, NodePool(count=2, cpu=8)) as real:
        applications = [await real.submit(f"app-{number}", executors=5, run_seconds=60) for number in range(5)]
        for application in applications:
            await real.expect_succeeded(application)
        assert real.kubelets.rejected == {}
        for application in applications:
            gang = await real.expect_phase(application, "Finished")
            assert sum(slot.count for slot in gang.spec.slots) in (0, 5)


async def test_pin_and_hold_are_released_by_patches_that_the_api_server_accepts(tmp_path: Path) -> None:
    async with real_cluster(tmp_path, NodePool(count=1, cpu=8), scheduling={"bind": False}) as real:
        first = await real.submit("first", executors=4, run_seconds=150)
        executors = await real.expect_executors(first, 4)
        assert {pod.metadata.annotations["muster.dev/mode"] for pod in executors} == {"pin"}
        growing = await real.submit("growing", dynamic=True, executors=0, max_executors=4, run_seconds=200)

        async def held() -> bool:
            return any(pod.spec.scheduling_gates for pod in await real.pods(growing, "executor"))

        await until("executors are held", held)
        await real.expect_succeeded(first)
        await real.expect_executors(growing, 4)
        await real.expect_succeeded(growing)
