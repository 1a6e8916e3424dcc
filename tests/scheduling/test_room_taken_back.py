"""Dynamic allocation under pressure: what was lent is called back when a gang has waited long enough for it."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from muster.queueing.preemption import ExecutorLoss
from muster.scheduling.config import PressureConfig
from muster.scheduling.decisions import Appraise, Evict, Publish
from muster.scheduling.events import LossesKnown
from muster.scheduling.model import Pod
from tests.scheduling.cluster_story import App, Cluster, Spec, dynamic, static

Clusters = Callable[..., Cluster]
FIVE = replace(static(1), name="waits")
"""Driver and executor: three cores of the node's eight."""


def lender_fills(cluster: Cluster, spec: Spec = dynamic(1), executors: int = 3) -> App:  # noqa: B008
    """An application whose extras take what is left of one node: one core stays free."""
    app = cluster.with_nodes(1).submit(replace(spec, name="lender")).expect_started()
    app.start_executors(executors)
    return app.expect_running(executors)


def evictions(cluster: Cluster) -> list[Evict]:
    return [decision for decision in cluster.decisions if isinstance(decision, Evict)]


def evicted(cluster: Cluster) -> list[str]:
    return [eviction.pod.name for eviction in evictions(cluster)]


def told(cluster: Cluster, reason: str) -> list[Publish]:
    return [one for one in cluster.decisions if isinstance(one, Publish) and one.reason == reason]


def test_an_extra_is_called_back_for_a_gang_that_has_waited_long_enough(cluster: Cluster) -> None:
    lender = lender_fills(cluster)
    waits = cluster.submit(FIVE).expect_held("WaitingForCapacity")
    cluster.wait(9)
    assert evicted(cluster) == []

    cluster.wait(1)

    [eviction] = evictions(cluster)
    assert (eviction.key, eviction.grace_seconds, eviction.reason) == (lender.key, 60.0, "ExecutorCalledBack")
    assert eviction.pod.name.startswith("lender-exec-")
    waits.expect_held("WaitingForCapacity")
    cluster.wait(60)
    waits.expect_started()
    lender.expect_running(2)
    assert len(evicted(cluster)) == 1


def test_its_room_stays_charged_until_the_pod_is_gone_and_then_goes_to_nobody_else(cluster: Cluster) -> None:
    lender = lender_fills(cluster)
    waits = cluster.submit(FIVE)
    free = cluster.free_cpu()
    cluster.wait(10)
    assert cluster.free_cpu() == free
    held = lender.start_executor()  # the replacement that Spark asks for at once
    assert held.gated
    small = cluster.submit(static(0)).expect_held("BehindEarlier")

    cluster.wait(60)

    waits.expect_started()
    assert cluster.pods[held.namespace, held.name].gated
    small.expect_held("WaitingForCapacity")


def test_no_more_is_called_back_while_enough_is_on_its_way(clusters: Clusters) -> None:
    cluster = clusters(pressure=PressureConfig(grace=300, interval=1))
    lender_fills(cluster)
    cluster.submit(FIVE)
    for _ in range(100):
        cluster.wait(2)
    assert len(evicted(cluster)) == 1


def test_the_minimum_is_not_lent(cluster: Cluster) -> None:
    lender_fills(cluster, static(3))
    cluster.submit(FIVE).expect_held("WaitingForCapacity")
    cluster.wait(100)
    assert evicted(cluster) == []


def test_nothing_is_called_back_in_vain(cluster: Cluster) -> None:
    """Both extras together would leave five cores: not enough for a driver and three executors."""
    lender_fills(cluster)
    cluster.submit(static(3)).expect_held("WaitingForCapacity")
    cluster.wait(100)
    assert evicted(cluster) == []


def test_as_few_as_will_do_go_of_all_that_are_above_the_minimum(cluster: Cluster) -> None:
    lender_fills(cluster)
    cluster.submit(static(2)).expect_held("WaitingForCapacity")
    cluster.wait(10)
    assert len(evicted(cluster)) == 2
    assert not any("driver" in name for name in evicted(cluster))


def test_extras_on_nodes_that_the_waiting_gang_may_not_use_are_left_alone(cluster: Cluster) -> None:
    cluster.with_nodes(1, pool="other")
    elsewhere = cluster.submit(dynamic(1).in_pool("other").named("elsewhere")).expect_started()
    elsewhere.start_executors(3)
    cluster.with_nodes(1, pool="here")
    lender = cluster.submit(dynamic(1).in_pool("here").named("lender")).expect_started()
    cluster.wait(30)
    lender.start_executors(3)
    cluster.submit(static(1).in_pool("here")).expect_held("WaitingForCapacity")
    cluster.wait(10)
    assert [name[:6] for name in evicted(cluster)] == ["lender"]


def test_a_pod_that_needs_longer_by_its_own_word_gets_longer(cluster: Cluster) -> None:
    lender = cluster.with_nodes(1).submit(dynamic(1)).expect_started()
    for _ in range(3):
        lender.start_executor(grace=240.0)
    cluster.submit(FIVE)
    cluster.wait(10)
    assert [eviction.grace_seconds for eviction in evictions(cluster)] == [240.0]


def test_the_pod_and_its_driver_are_told_why(cluster: Cluster) -> None:
    lender = lender_fills(cluster)
    cluster.submit(FIVE)
    cluster.wait(10)
    [pod, driver] = told(cluster, "ExecutorCalledBack")
    assert [pod.pod.name] == evicted(cluster)
    assert pod.message.startswith("default/waits waits for its minimum: default/lender-exec-")
    assert driver.pod.name == lender.driver.name
    assert driver.message == (
        "1 executor(s) above its minimum are called back for default/waits, which waits for its minimum; "
        "at most 22 core-seconds are lost"  # two cores for eleven seconds
    )


def test_the_youngest_extra_goes_when_nothing_is_known(cluster: Cluster) -> None:
    lender = cluster.with_nodes(1).submit(dynamic(1)).expect_started()
    pods = []
    for _ in range(3):
        pods.append(lender.start_executor())
        cluster.wait(20)
    cluster.submit(FIVE)
    cluster.wait(10)
    assert evicted(cluster) == [pods[-1].name]


def test_drivers_are_asked_first_and_executors_without_shuffle_data_go(clusters: Clusters) -> None:
    cluster = clusters(pressure=PressureConfig(loss_wait=2.0))
    lender = lender_fills(cluster)
    cluster.submit(FIVE)
    cluster.wait(10)
    assert [one.key for one in cluster.decisions if isinstance(one, Appraise)] == [lender.key]
    assert evicted(cluster) == []
    keeps = ExecutorLoss(10.0, has_shuffle=True)
    losses = (("1", keeps), ("2", ExecutorLoss(500.0, has_shuffle=False)), ("3", keeps))

    cluster.at += 1
    cluster.tell(LossesKnown(cluster.at, lender.key, losses))
    cluster.wait(1)

    assert [(one.pod.name, one.core_seconds) for one in evictions(cluster)] == [("lender-exec-2", 500.0)]


def test_a_driver_that_does_not_answer_holds_nobody_up(clusters: Clusters) -> None:
    cluster = clusters(pressure=PressureConfig(loss_wait=2.0))
    lender_fills(cluster)
    cluster.submit(FIVE)
    cluster.wait(10).wait(2)
    assert len(evicted(cluster)) == 1


def test_nothing_is_called_back_when_an_application_is_known_to_end_before_that_would_help(cluster: Cluster) -> None:
    ends = replace(dynamic(1), run_seconds=90.0)
    lender_fills(cluster, ends)
    cluster.wait(30)
    cluster.submit(FIVE)
    cluster.wait(10)
    assert evicted(cluster) == []


def test_but_it_is_when_that_one_has_outlived_its_estimate(cluster: Cluster) -> None:
    ends = replace(dynamic(1), run_seconds=90.0)
    lender_fills(cluster, ends)
    cluster.wait(30)
    cluster.submit(FIVE)
    for _ in range(20):
        cluster.wait(10)
    assert len(evicted(cluster)) == 1


def test_a_running_gang_that_lost_part_of_its_minimum_gets_room_back_too(cluster: Cluster) -> None:
    hit = cluster.with_nodes(2).submit(static(5).named("hit")).expect_started()
    hit.start_executors(5)
    [other] = {"node-1", "node-2"} - {hit.driver.node}
    cluster.daemon(other, cpu=4000)
    cluster.daemon(hit.driver.node, cpu=1000)
    lender = cluster.with_nodes(1).submit(dynamic(1).named("lender")).expect_started()
    lender.start_executors(3)
    cluster.lose_node(other)
    cluster.collect_pods_of(other)
    cluster.wait(1)
    assert evicted(cluster) == []

    cluster.wait(10)

    assert [name[:6] for name in evicted(cluster)] == ["lender", "lender"]
    cluster.wait(60)
    assert hit.slots() == {hit.driver.node: 3, lender.driver.node: 2}


def test_a_new_leader_counts_on_pods_that_end_already(cluster: Cluster) -> None:
    lender_fills(cluster)
    waits = cluster.submit(FIVE)
    cluster.wait(10)
    assert len(evicted(cluster)) == 1
    cluster.restart()
    cluster.wait(12).wait(12)
    assert len(evicted(cluster)) == 1
    cluster.wait(60)
    waits.expect_started()


def test_an_extra_that_the_minimum_needs_meanwhile_is_not_given_away(cluster: Cluster) -> None:
    """The other executors die while one is being called back: its room is their slot now, and more has to go."""
    lender = lender_fills(cluster)
    waits = cluster.submit(FIVE)
    cluster.wait(10)
    [gone] = evicted(cluster)
    for pod in _executors(cluster, lender):
        if pod.name != gone:
            cluster.remove(pod)
    waits.expect_started()  # their room was enough
    cluster.wait(60)
    assert sum(lender.slots().values()) == 1


def test_room_is_lent_first_to_the_application_that_has_least_above_its_minimum(cluster: Cluster) -> None:
    """The rich one asked first and has more; what becomes free goes to the poor one until they are even."""
    cluster.with_nodes(2)
    filler = cluster.submit(static(3).named("filler")).expect_started()
    filler.start_executors(3)
    rich = cluster.submit(dynamic(0).named("rich")).expect_started()
    rich.start_executors(3)
    poor = cluster.submit(dynamic(0).named("poor")).expect_started()
    asked = rich.start_executors(3)
    cluster.at += 1
    asked += poor.start_executors(3)
    assert all(pod.gated for pod in asked)

    filler.end()
    filler.collect()

    assert (rich.status.running, poor.status.running) == (3, 3)


def test_an_ending_executor_of_a_minimum_makes_no_room_for_others(cluster: Cluster) -> None:
    """Somebody deletes it; its room is its application's slot again."""
    sure = cluster.with_nodes(1).submit(static(1).named("sure")).expect_started()
    [needed] = sure.start_executors(1)
    lender = cluster.submit(dynamic(1).named("lender")).expect_started()
    lender.start_executors(2)
    assert cluster.free_cpu() == 0
    cluster.submit(static(0)).expect_held("WaitingForCapacity")
    cluster.change(needed, terminating=True)
    cluster.wait(10)
    assert [name[:6] for name in evicted(cluster)] == ["lender"]


def test_it_can_be_switched_off(clusters: Clusters) -> None:
    cluster = clusters(pressure=PressureConfig(enabled=False))
    lender_fills(cluster)
    cluster.submit(FIVE)
    cluster.wait(100)
    assert evicted(cluster) == []


def test_where_an_external_scheduler_decides_nobody_is_called_back(clusters: Clusters) -> None:
    cluster = clusters(asked=True).with_nodes(1)
    lender = App(cluster, "default/lender", dynamic(1))
    lender.submit(found=True, gated=False)
    cluster.bind(lender.driver, "node-1")
    for _ in range(3):
        cluster.bind(cluster.see(replace(lender.executor(), uid=cluster.uid(), created=cluster.at)), "node-1")
    cluster.submit(FIVE)
    cluster.wait(100)
    assert evicted(cluster) == []


def _executors(cluster: Cluster, app: App) -> list[Pod]:
    return [pod for pod in cluster.pods.values() if pod.application == app.key and "exec" in pod.name]


def test_nobody_passes_on_the_strength_of_room_that_is_called_back_together_with_what_is_free(cluster: Cluster) -> None:
    """The core that is free is part of what the waiting gang will have; a short application would fit there now."""
    lender_fills(cluster, replace(dynamic(1), run_seconds=1000.0))
    waits = cluster.submit(FIVE)
    cluster.wait(10)
    assert len(evicted(cluster)) == 1

    cluster.submit(replace(static(0), run_seconds=100.0)).expect_held("BehindEarlier")

    cluster.wait(60)
    waits.expect_started()
