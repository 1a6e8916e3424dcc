"""What people who run Spark on Kubernetes have complained of, each with where, and what happens here instead.

``SO`` is kubeflow/spark-operator, ``VC`` volcano-sh/volcano, ``KQ`` kubernetes-sigs/kueue, ``YUNIKORN`` the Apache
tracker; others are named in full. Nodes have 8 cores; a driver takes 1, an executor 2 unless said otherwise.
"""

from __future__ import annotations

import pytest

from muster.cluster.resources import Resources
from muster.queueing.config import Limit, Maximum, Policy, Preemption, QueueConfig
from muster.scheduling.config import PressureConfig, SchedulerConfig
from muster.scheduling.decisions import Demand, Evict
from muster.scheduling.model import Mode, Phase
from muster.spark.gang import executor_counts
from muster.spark.sizes import executor_size
from tests.scheduling.cluster_story import GIB, App, Cluster, dynamic, static


def capped(name: str, cores: int, **more: object) -> QueueConfig:
    return QueueConfig(name=name, max=Maximum.of(cpu=1000 * cores), **more)  # type: ignore[arg-type]


def drivers_without_executors(apps: list[App]) -> list[str]:
    """Released drivers whose minimum has neither pods nor slots."""
    return [app.key for app in apps if app.status.phase is Phase.RUNNING and len(app.slots()) == 0]


@pytest.mark.parametrize("issue", ["SO#594", "SO#883", "SO#1757", "SO#1220"])
def test_drivers_do_not_fill_the_cluster_so_that_no_executor_fits(cluster: Cluster, issue: str) -> None:
    apps = [cluster.with_nodes(1).submit(static(3)), *(cluster.submit(static(3)) for _ in range(19))]

    running = [app for app in apps if not app.driver.gated]
    assert len(running) == 1, f"{issue}: 8 drivers would fit, and not one executor beside them"
    assert sum(sum(app.slots().values()) for app in running) == 3


def test_so_1343_a_driver_is_not_started_for_a_gang_of_one(cluster: Cluster) -> None:
    app = cluster.with_nodes(1).submit(static(4)).expect_held("ExceedsCluster")
    assert app.driver.gated, "the driver alone would fit"


def test_vc_2037_what_a_gang_was_promised_is_reserved_not_only_tested(cluster: Cluster) -> None:
    first = cluster.with_nodes(1).submit(static(3)).expect_started()
    cluster.submit(static(0).named("intruder")).expect_started()
    assert cluster.free_cpu() == 0, "driver, three executors still to come, and the intruder's driver"
    assert [pod.node for pod in first.start_executors(3)] == ["node-1"] * 3


def test_astraea_201_forty_applications_of_ten_executors_all_come_to_their_end(cluster: Cluster) -> None:
    cluster.with_nodes(6)
    waiting = [cluster.submit(static(10)) for _ in range(40)]
    rounds = 0
    while waiting:
        running = [app for app in waiting if not app.driver.gated]
        assert running, "all wait, and nobody runs"
        for app in running:
            app.start_executors(10)
            app.expect_running(10)
            app.end().collect()
            waiting.remove(app)
        rounds += 1
    assert rounds == 20, "two at a time, never a part of a third"


@pytest.mark.parametrize("issue", ["VC#4710", "YUNIKORN-1936", "kubernetes/autoscaler#9828", "KAI-Scheduler#1615"])
def test_what_waits_for_quota_does_not_ask_for_nodes(cluster: Cluster, issue: str) -> None:
    cluster.with_nodes(2).with_queues(capped("team", 7))
    cluster.submit(static(3).queued("team")).expect_started()

    second = cluster.submit(static(3).queued("team")).expect_held("OverQuota")

    assert second.key not in cluster.scheduler.demands(), issue
    assert "cpu 7" in second.status.message, "it says which limit, and how much it is"
    assert not [each for each in cluster.decided(Demand) if each.key == second.key and each.missing]


def test_vc_4710_executors_above_a_minimum_that_wait_for_quota_do_not_ask_for_nodes_either(cluster: Cluster) -> None:
    cluster.with_nodes(2).with_queues(capped("team", 3))
    app = cluster.submit(dynamic(1, 6).queued("team")).expect_started()

    pods = app.start_executors(6)

    assert [pod.gated for pod in pods] == [False] + [True] * 5, "a driver and one executor fill the quota"
    assert cluster.scheduler.demands() == {}


@pytest.mark.parametrize("issue", ["VC#3976", "VC#2558", "VC#3910"])
def test_what_waits_for_room_asks_for_all_of_it_at_once(cluster: Cluster, issue: str) -> None:
    cluster.with_nodes(1).submit(static(3)).expect_started()
    app = cluster.submit(static(3)).expect_held("WaitingForCapacity")
    assert [count for _, count in cluster.scheduler.demands()[app.key]] == [1, 3], issue


def test_so_2176_python_memory_is_part_of_the_slot_so_the_executor_fits_it(cluster: Cluster) -> None:
    properties = {
        "spark.executor.memory": "4g",
        "spark.executor.pyspark.memory": "2g",
        "spark.kubernetes.resource.type": "python",
    }
    size = executor_size(properties, "4.0.0")
    # ResourceProfile.getResourcesForClusterManager: heap, a tenth of it as overhead, and what Python may use, in MiB
    assert size.requests.get("memory") == (4096 + 409 + 2048) * 2**20
    executor = {"cpu": 1000, "memory": size.requests.get("memory")}
    app = cluster.with_nodes(1).submit(static(2).with_executor(**executor)).expect_started()

    app.start_executors(2)

    assert app.status.running == 2
    assert app.status.extras == 0, "both are in their own slots"


@pytest.mark.parametrize(
    ("properties", "minimum"),
    [
        ({"spark.dynamicAllocation.enabled": "true", "spark.dynamicAllocation.initialExecutors": "5"}, 5),
        ({"spark.dynamicAllocation.enabled": "true", "spark.dynamicAllocation.minExecutors": "3"}, 3),
        ({"spark.executor.instances": "7"}, 7),
    ],
)
def test_so_2244_and_armada_4455_the_gang_is_what_dynamic_allocation_begins_with(
    properties: dict[str, str], minimum: int
) -> None:
    assert executor_counts(properties).minimum == minimum


@pytest.mark.parametrize("issue", ["KQ#12047", "SPARK-59490", "SO#2244"])
def test_dynamic_allocation_is_neither_refused_nor_ignored(cluster: Cluster, issue: str) -> None:
    app = cluster.with_nodes(2).submit(dynamic(1, 5)).expect_started()
    app.start_executors(4)
    assert (app.status.running, app.status.extras) == (4, 3), issue


@pytest.mark.parametrize("issue", ["VC#2633", "yunikorn-core#556"])
def test_an_application_that_ended_keeps_nothing(cluster: Cluster, issue: str) -> None:
    cluster.with_nodes(1).with_queues(capped("team", 8))
    first = cluster.submit(static(3).queued("team")).expect_started()
    first.start_executors(1)

    first.end().collect()

    assert cluster.free_cpu() == 8000, issue
    cluster.submit(static(3).queued("team")).expect_started()


def test_so_2512_a_job_too_big_for_any_node_does_not_hold_up_the_small_ones_behind_it(cluster: Cluster) -> None:
    cluster.with_nodes(2).submit(static(1).with_executor(cpu=64_000, memory=GIB)).expect_held("ExceedsCluster")
    cluster.submit(static(2)).expect_started()


def test_so_2512_nor_does_one_that_is_too_big_for_its_queue(cluster: Cluster) -> None:
    cluster.with_nodes(3).with_queues(capped("team", 8))
    cluster.submit(static(6).queued("team")).expect_held("ExceedsQueue")
    cluster.submit(static(2).queued("team")).expect_started()


@pytest.mark.parametrize("issue", ["scheduler-plugins#713", "scheduler-plugins#874"])
def test_a_group_that_waits_for_its_nodes_does_not_hold_up_who_cannot_use_them(cluster: Cluster, issue: str) -> None:
    cluster.with_nodes(1, pool="gpu").with_nodes(1, pool="cpu").with_queues()
    cluster.submit(static(3).in_pool("gpu")).expect_started()
    cluster.submit(static(3).in_pool("gpu")).expect_held("WaitingForCapacity")
    cluster.submit(static(3).in_pool("cpu")).expect_started()


def test_data_on_eks_690_a_driver_that_waits_for_quota_starts_when_it_comes_free(cluster: Cluster) -> None:
    cluster.with_nodes(2).with_queues(capped("team", 8))
    first = cluster.submit(static(3).queued("team")).expect_started()
    second = cluster.submit(static(3).queued("team")).expect_held("OverQuota")

    first.end()

    second.expect_started()


@pytest.mark.parametrize("issue", ["VC#3558", "VC#1860"])
def test_a_queue_never_holds_more_than_its_maximum(cluster: Cluster, issue: str) -> None:
    cluster.with_nodes(4).with_queues(capped("team", 10))
    apps = [cluster.submit(dynamic(1, 8).queued("team")) for _ in range(4)]
    for app in apps:
        if not app.driver.gated:
            app.start_executors(8)
    used = sum(pod.requests.get("cpu") for pod in cluster.pods.values() if pod.node)
    assert used == 9000, f"{issue}: three of a driver and an executor; no executor more fits into what is left"


@pytest.mark.parametrize("issue", ["VC#4716", "VC#1009"])
def test_a_queue_runs_no_more_applications_than_it_may(cluster: Cluster, issue: str) -> None:
    cluster.with_nodes(4).with_queues(QueueConfig(name="team", max_applications=2))
    apps = [cluster.submit(static(1).queued("team")) for _ in range(4)]
    assert [app.driver.gated for app in apps] == [False, False, True, True], issue
    apps[0].end()
    assert [app.driver.gated for app in apps] == [False, False, False, True]


def test_one_user_does_not_take_the_queue_from_the_others(cluster: Cluster) -> None:
    limit = Limit(users=("*",), max=Maximum.of(cpu=8000))
    cluster.with_nodes(3).with_queues(QueueConfig(name="team", limits=(limit,)))
    cluster.submit(static(3).queued("team", "ann")).expect_started()
    cluster.submit(static(3).queued("team", "ann")).expect_held("OverQuota")
    cluster.submit(static(3).queued("team", "bob")).expect_started()


@pytest.mark.parametrize("issue", ["VC#2734", "VC#2735"])
def test_a_driver_is_not_reclaimed(issue: str) -> None:
    cluster = Cluster(SchedulerConfig(pressure=PressureConfig(after=1.0)))
    cluster.with_nodes(1).with_queues(
        QueueConfig(name="low"), QueueConfig(name="high", guaranteed=Resources.of(cpu=8000))
    )
    low = cluster.submit(dynamic(1, 4).queued("low")).expect_started()
    low.start_executors(3)
    cluster.submit(static(1).queued("high")).expect_held("WaitingForCapacity")

    cluster.wait(30).wait(90)

    taken = [decision.pod.name for decision in cluster.decided(Evict)]
    assert taken and low.driver.name not in taken, f"{issue}: executors above the minimum go, nothing else does"
    assert low.status.running >= 1


def test_so_2666_and_vc_4668_a_queue_gets_its_guarantee_back_where_whole_applications_may_be_preempted() -> None:
    cluster = Cluster(SchedulerConfig(pressure=PressureConfig(after=1.0)))
    cluster.with_nodes(2).with_queues(
        QueueConfig(name="low", preemption=Preemption.APPLICATIONS, min_runtime=0.0),
        QueueConfig(name="high", guaranteed=Resources.of(cpu=8000)),
    )
    borrowers = [cluster.submit(static(3).queued("low")).expect_started() for _ in range(2)]
    for borrower in borrowers:
        borrower.start_executors(3)
    owner = cluster.submit(static(3).queued("high")).expect_held("WaitingForCapacity")

    cluster.wait(30).wait(90)

    owner.expect_started()
    assert sum(borrower.status.phase is Phase.RUNNING for borrower in borrowers) == 1, "and only one had to go"


@pytest.mark.parametrize("issue", ["VC#1094", "VC#2876", "VC#3220", "VC#4471", "SO#498"])
def test_whoever_waits_is_told_why_and_who_is_ahead(cluster: Cluster, issue: str) -> None:
    first = cluster.with_nodes(1).submit(static(3)).expect_started()
    second = cluster.submit(static(3))
    third = cluster.submit(static(3))
    explanation = cluster.explain(third.key)
    assert explanation.position == 2, issue
    assert [other.key for other in explanation.ahead] == [second.key]
    assert first.key not in [other.key for other in explanation.ahead]
    assert explanation.reason == "BehindEarlier"


def test_palantir_137_the_number_of_pods_that_a_node_takes_counts(cluster: Cluster) -> None:
    cluster.with_nodes(1, cpu=1000 * 400, memory=800 * GIB)
    cluster.submit(static(108).with_executor(cpu=100, memory=GIB)).expect_started()
    cluster.submit(static(1).with_executor(cpu=100, memory=GIB)).expect_held("WaitingForCapacity")


@pytest.mark.parametrize("issue", ["palantir/k8s-spark-scheduler#150", "VC#2359"])
def test_client_mode_is_served(cluster: Cluster, issue: str) -> None:
    cluster.with_nodes(1)
    app = App(cluster, "default/notebook", static(0))
    pods = [app.start_executor(owner="", gang_count=3) for _ in range(3)]
    assert [cluster.pods[pod.namespace, pod.name].node for pod in pods] == ["node-1"] * 3, issue


def test_a_promise_is_not_given_twice_when_the_driver_asks_late(cluster: Cluster) -> None:
    """astraea#201, YuniKorn's placeholders: a gang's room is kept for as long as its driver takes to ask for it."""
    app = cluster.with_nodes(1).submit(static(3)).expect_started()
    cluster.wait(3600)
    cluster.submit(static(3)).expect_held("WaitingForCapacity")
    assert all(cluster.ask(app.executor()).mode is Mode.BIND for _ in range(3))


def test_fair_queues_share_by_what_is_dominant_for_each(cluster: Cluster) -> None:
    """YARN's and Volcano's DRF: of two queues the one that holds less of its dominant resource goes next."""
    cluster.with_nodes(2).with_queues(
        QueueConfig(name="a", policy=Policy.FIFO), QueueConfig(name="b", policy=Policy.FIFO)
    )
    holder = cluster.submit(static(7).named("holder").queued("default")).expect_started()
    first = [cluster.submit(static(3).queued("a")) for _ in range(3)]
    later = [cluster.submit(static(3).queued("b")) for _ in range(3)]

    holder.end()

    started = [app for app in (*first, *later) if not app.driver.gated]
    assert len([app for app in started if app in first]) == 1, "b goes second, though all of a came before it"
    assert len([app for app in started if app in later]) == 1
