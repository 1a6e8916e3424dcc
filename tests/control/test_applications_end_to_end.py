"""Spark applications on a cluster with Muster: through the API server, the webhook and the watches, over TLS."""

from __future__ import annotations

import asyncio

from muster.devcluster.node_pool import NodePool
from muster.kube.kinds import CONFIG_MAPS, EVENTS, NODES
from muster.kube.objects import Event
from tests.control.running_cluster import NAMESPACE, RunningCluster, running_cluster

ONE_NODE = NodePool(count=1, cpu=8)


async def events_about(cluster: RunningCluster, pod: str) -> list[Event]:
    return [e for e in await cluster.client.list(EVENTS, NAMESPACE) if e.involved_object.name == pod]


async def test_a_static_application_starts_whole_is_born_bound_and_leaves_nothing() -> None:
    async with running_cluster() as cluster:
        application = await cluster.submit("pi", executors=3, run_seconds=60)
        executors = await cluster.expect_executors(application, 3)
        assert [pod.metadata.annotations["muster.dev/mode"] for pod in executors] == ["bind"] * 3
        gang = await cluster.expect_phase(application, "Running")
        assert sum(slot.count for slot in gang.spec.slots) == 3
        assert gang.spec.driver_node == (await cluster.driver(application)).spec.node_name
        await cluster.expect_succeeded(application)
        await cluster.expect_phase(application, "Finished")
        counters = cluster.cluster.counters()
        assert counters.overcommitted_nodes == 0
        assert counters.problems == ()
        assert counters.pods_bound_by_scheduler == 1, "only the driver needed a scheduling cycle"


async def test_a_gang_that_does_not_fit_waits_whole_and_starts_when_the_one_before_it_ends() -> None:
    async with running_cluster(ONE_NODE) as cluster:
        first = await cluster.submit("first", executors=4, run_seconds=150)
        await cluster.expect_phase(first, "Running")
        second = await cluster.submit("second", executors=4, run_seconds=1)
        gang = await cluster.expect_phase(second, "Pending")
        assert gang.status.reason == "WaitingForCapacity"
        assert (await cluster.driver(second)).spec.node_name == "", "not even its driver has started"
        status, why = await cluster.why(second)
        assert status == 200
        assert "4 executor" in why["sentence"]
        await cluster.expect_succeeded(first)
        await cluster.expect_succeeded(second)
        assert cluster.cluster.counters().overcommitted_nodes == 0


async def test_dynamic_allocation_takes_extras_and_gives_them_back() -> None:
    async with running_cluster() as cluster:
        application = await cluster.submit(
            "growing", dynamic=True, executors=1, min_executors=1, max_executors=5, run_seconds=150, tail_seconds=90
        )
        executors = await cluster.expect_executors(application, 5)
        extras = [pod for pod in executors if pod.metadata.annotations.get("muster.dev/extra") == "true"]
        assert len(extras) == 4
        await cluster.expect_succeeded(application)


async def test_extras_beyond_the_room_are_held_and_released_when_there_is_some() -> None:
    async with running_cluster(ONE_NODE) as cluster:
        blocker = await cluster.submit("blocker", executors=5, run_seconds=200)
        await cluster.expect_phase(blocker, "Running")
        growing = await cluster.submit("growing", dynamic=True, executors=0, max_executors=4, run_seconds=240)

        async def held() -> int:
            gates = [pod for pod in await cluster.pods(growing) if pod.spec.scheduling_gates]
            return len(gates)

        await cluster.until(held, "some executors are held")
        await cluster.expect_succeeded(blocker)
        executors = await cluster.expect_executors(growing, 4)
        assert "pin" in {pod.metadata.annotations["muster.dev/mode"] for pod in executors}
        await cluster.expect_succeeded(growing)


async def test_with_binding_switched_off_executors_are_pinned_and_kube_scheduler_binds_them() -> None:
    async with running_cluster(scheduling={"bind": False}) as cluster:
        application = await cluster.submit("pinned", executors=2, run_seconds=100)
        gang = await cluster.expect_phase(application, "Running")
        executors = await cluster.expect_executors(application, 2)
        assert {pod.metadata.annotations["muster.dev/mode"] for pod in executors} == {"pin"}
        assert {pod.spec.node_name for pod in executors} <= {slot.node for slot in gang.spec.slots}
        assert cluster.cluster.counters().pods_bound_by_scheduler == 3
        await cluster.expect_succeeded(application)


async def test_bad_sizes_release_the_driver_and_say_so_and_nobody_else_waits() -> None:
    async with running_cluster(ONE_NODE) as cluster:
        bad = await cluster.submit_text("bad", "spark.executor.instances=-3\n")
        good = await cluster.submit("good", executors=2, run_seconds=5)
        gang = await cluster.expect_phase(bad, "Invalid")
        assert "spark.executor.instances" in gang.status.message
        driver = await cluster.driver(bad)
        assert not driver.spec.scheduling_gates

        async def warned() -> list[Event]:
            return [e for e in await events_about(cluster, driver.metadata.name) if e.type == "Warning"]

        [event] = await cluster.until(warned, "a Warning event on the driver")
        assert "spark.executor.instances" in event.message
        await cluster.expect_succeeded(good)


async def test_a_config_map_that_never_comes_releases_the_driver_without_a_gang() -> None:
    async with running_cluster(ONE_NODE, sizes={"configMapTimeout": "1s"}) as cluster:
        application = await cluster.submit_text("orphan", None)
        gang = await cluster.expect_phase(application, "Invalid")
        assert gang.status.reason == "ConfigMapMissing"
        assert (await cluster.driver(application)).spec.scheduling_gates == ()


async def test_a_gang_larger_than_the_cluster_says_which_number_is_too_big_and_blocks_nobody() -> None:
    async with running_cluster(ONE_NODE) as cluster:
        large = await cluster.submit("large", executors=500, run_seconds=5)
        gang = await cluster.expect_phase(large, "Pending")
        assert gang.status.reason == "ExceedsCluster"
        assert "500" in gang.status.message
        small = await cluster.submit("small", executors=1, run_seconds=5)
        await cluster.expect_succeeded(small)


async def test_a_node_that_vanishes_moves_the_slots_that_were_reserved_on_it() -> None:
    pools = (NodePool(count=3, cpu=8),)
    async with running_cluster(*pools, scheduling={"packer": "distribute-evenly"}) as cluster:
        application = await cluster.submit("app", executors=6, run_seconds=400)
        gang = await cluster.expect_phase(application, "Running")
        driver = (await cluster.driver(application)).spec.node_name
        victim = next(slot.node for slot in gang.spec.slots if slot.node != driver)
        cluster.cluster.kubelets.nodes.pop(victim, None)
        await cluster.client.delete(NODES, victim)

        async def moved() -> bool:
            now = await cluster.gang(application)
            return now is not None and now.spec.revision > gang.spec.revision

        await cluster.until(moved, "the reservation moved")
        now = await cluster.gang(application)
        assert now is not None
        assert victim not in {slot.node for slot in now.spec.slots}
        assert sum(slot.count for slot in now.spec.slots) == 6


async def test_without_muster_spark_runs_and_is_adopted_afterwards() -> None:
    async with running_cluster(muster=False) as cluster:
        application = await cluster.submit("early", executors=2, run_seconds=300)
        await cluster.expect_executors(application, 2)
        await cluster.start_muster()
        gang = await cluster.expect_phase(application, "Running")
        assert gang.status.running == 2
        await cluster.expect_succeeded(application)
        await cluster.expect_phase(application, "Finished")


async def test_a_new_muster_goes_on_where_the_last_one_stopped() -> None:
    async with running_cluster(ONE_NODE) as cluster:
        first = await cluster.submit("first", executors=4, run_seconds=300)
        await cluster.expect_phase(first, "Running")
        second = await cluster.submit("second", executors=4, run_seconds=5)
        await cluster.expect_phase(second, "Pending")
        before = await cluster.gang(first)
        await cluster.stop_muster()
        await cluster.start_muster()
        await asyncio.sleep(0.5)
        after = await cluster.gang(first)
        assert before is not None and after is not None
        assert after.spec == before.spec, "nothing doubled, nothing moved"
        await cluster.expect_succeeded(first)
        await cluster.expect_succeeded(second)


async def test_secrets_in_the_configuration_are_in_no_object_that_muster_writes() -> None:
    async with running_cluster(ONE_NODE) as cluster:
        secret = "s3cr3t-3f9a"
        application = await cluster.submit(
            "secretive", executors=1, run_seconds=5, properties={"spark.hadoop.fs.s3a.secret.key": secret}
        )
        await cluster.expect_succeeded(application)
        maps = await cluster.client.list(CONFIG_MAPS, NAMESPACE)
        assert any(secret in text for config_map in maps for text in config_map.data.values()), "Spark wrote it"
        assert secret not in repr(await cluster.gang(application))
        _, why = await cluster.why(application)
        assert secret not in repr(why)


async def test_an_application_that_ended_while_muster_was_away_is_seen_to_have_ended() -> None:
    async with running_cluster(ONE_NODE) as cluster:
        application = await cluster.submit("app", executors=2, run_seconds=120)
        await cluster.expect_phase(application, "Running")
        await cluster.stop_muster()
        await cluster.expect_succeeded(application)
        await cluster.start_muster()
        await cluster.expect_phase(application, "Finished")
        following = await cluster.submit("following", executors=5, run_seconds=1)
        await cluster.expect_succeeded(following)
