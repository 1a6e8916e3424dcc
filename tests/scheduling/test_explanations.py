"""Why an application waits: one sentence, position, who is ahead, nodes by what keeps pods away; and its story."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from muster.cluster.constraints import Taint
from muster.queueing.config import Maximum, QueueConfig
from muster.scheduling.explaining import MOST_AHEAD, CalledBack, Eta, Explanation, FutureStart, WaitsFor
from tests.scheduling.cluster_story import Cluster, dynamic, static

Clusters = Callable[..., Cluster]


def test_one_who_waits_for_capacity_is_told_how_much_would_fit(cluster: Cluster) -> None:
    cluster.with_nodes(1).submit(static(2)).expect_started()
    app = cluster.submit(static(3)).expect_held("WaitingForCapacity")

    explanation = cluster.explain(app.key)

    assert explanation.sentence == "Its driver and 3 executor(s) do not fit together on the free capacity now."
    assert explanation.waits_for is WaitsFor.CAPACITY
    assert (explanation.position, explanation.ahead) == (1, ())
    assert (explanation.minimum, explanation.executors_fit_now) == (3, 1)


def test_one_who_waits_its_turn_is_told_for_whom(cluster: Cluster) -> None:
    cluster.with_nodes(1).submit(static(2)).expect_started()
    first = cluster.submit(static(3)).expect_held("WaitingForCapacity")
    second = cluster.submit(static(0)).expect_held("BehindEarlier")
    cluster.wait(10)

    explanation = cluster.explain(second.key)

    assert explanation.sentence == "An earlier application of its node pool waits for capacity, and goes first."
    assert explanation.position == 2
    assert [(ahead.key, ahead.age, ahead.blocks, ahead.why) for ahead in explanation.ahead] == [
        (first.key, 11.0, True, "it is older")
    ]


def test_of_a_long_queue_only_the_first_are_told_one_by_one(cluster: Cluster) -> None:
    cluster.with_nodes(1)
    apps = [cluster.submit(static(9)) for _ in range(MOST_AHEAD + 5)]

    explanation = cluster.explain(apps[-1].key)

    assert [ahead.key for ahead in explanation.ahead] == [app.key for app in apps[:MOST_AHEAD]]
    assert (explanation.position, explanation.ahead_more) == (MOST_AHEAD + 5, 4)


def test_one_who_waits_for_quota_is_told_the_limit_and_never_of_nodes(cluster: Cluster) -> None:
    cluster.with_nodes(9).with_queues(QueueConfig("etl", max=Maximum.of(cpu=5000)))
    cluster.submit(static(1).queued("etl")).expect_started()
    app = cluster.submit(static(2).queued("etl")).expect_held("OverQuota")

    explanation = cluster.explain(app.key)

    assert explanation.waits_for is WaitsFor.QUOTA
    assert explanation.quota is not None
    assert (explanation.quota.limit, explanation.quota.used, explanation.quota.asked) == ("5", "3", "5")
    assert [proposal.text for proposal in explanation.proposals] == ["with max of queue etl for cpu 5 → 8"]


def test_the_future_start_tells_by_when_and_on_how_many_ends_it_rests(cluster: Cluster) -> None:
    cluster.with_nodes(2)
    cluster.submit(static(3).running_for(100)).expect_started()
    cluster.submit(static(3).running_for(200)).expect_started()
    first = cluster.submit(static(3)).expect_held("WaitingForCapacity")
    second = cluster.submit(static(3)).expect_held("BehindEarlier")

    future = FutureStart(first.key, 1101.0, 1)
    assert (cluster.explain(first.key).future, cluster.explain(second.key).future) == (future, future)


def test_executors_that_are_called_back_for_it_are_told(cluster: Cluster) -> None:
    lender = cluster.with_nodes(1).submit(dynamic(0)).expect_started()
    lender.start_executors(3)
    app = cluster.submit(static(1)).expect_held("WaitingForCapacity")
    cluster.wait(10)

    assert cluster.explain(app.key).called_back == CalledBack(1, (lender.key,))


def test_the_expected_start_is_told_as_it_was_given(cluster: Cluster) -> None:
    app = cluster.with_nodes(1).submit(static(4))
    eta = Eta(early=1100.0, expected=1200.0, late=None, estimated=3, unknown=1, error=0.2)

    explanation = cluster.scheduler.explain(app.key, cluster.at, eta)

    assert explanation is not None and explanation.eta == eta


def test_one_who_can_never_fit_is_told_which_number_is_too_big(cluster: Cluster) -> None:
    app = cluster.with_nodes(1).submit(static(50))

    sentence = cluster.explain(app.key).sentence

    assert sentence.startswith("It can never start on this cluster: the minimum of 50 executors is too many")
    follower = cluster.submit(static(0)).expect_started()
    assert cluster.explain(follower.key).position is None


def test_nodes_are_counted_by_what_keeps_an_executor_away(cluster: Cluster) -> None:
    cluster.with_nodes(1, pool="a").with_nodes(2, pool="b").with_nodes(
        1, pool="a", taints=(Taint("gpu", "NoSchedule"),)
    )
    cluster.submit(static(3).in_pool("a")).expect_started()
    app = cluster.submit(static(1).in_pool("a")).expect_held("WaitingForCapacity")

    nodes = cluster.explain(app.key).executor_nodes

    assert nodes is not None
    assert (nodes.nodes, nodes.selector, nodes.taint, nodes.too_full, nodes.fit) == (4, 2, 1, 1, 0)


def test_a_driver_whose_sizes_are_unknown_says_so(cluster: Cluster) -> None:
    app = cluster.with_nodes(1).submit(static(1), found=False)

    assert "until its sizes are known" in cluster.explain(app.key).sentence


def test_one_that_runs_is_told_what_it_still_has_coming(cluster: Cluster) -> None:
    app = cluster.with_nodes(1).submit(dynamic(2, 3)).expect_started()
    app.start_executors(4)

    assert cluster.explain(app.key).sentence == (
        "It runs: 3 executor(s) placed, 0 of 2 reserved slot(s) unfilled; "
        "1 executor(s) above that are held until there is room."
    )


def test_the_end_is_remembered(cluster: Cluster) -> None:
    app = cluster.with_nodes(1).submit(static(1)).expect_started()
    app.end().collect()

    assert cluster.explain(app.key).sentence == "It has ended; everything it held is free."
    assert cluster.scheduler.status(app.key) is not None


def test_only_so_many_ends_are_remembered(clusters: Clusters) -> None:
    cluster = clusters(ended_kept=2).with_nodes(1)
    apps = [cluster.submit(static(1)).end().collect() for _ in range(3)]

    assert [cluster.scheduler.explain(app.key, cluster.at) is None for app in apps] == [True, False, False]


def test_nobody_knows_of_an_application_that_never_was(cluster: Cluster) -> None:
    assert cluster.scheduler.explain("default/nobody", cluster.at) is None
    assert cluster.scheduler.story("default/nobody") == ()


def test_explanations_are_json(cluster: Cluster) -> None:
    cluster.with_nodes(1).submit(static(3)).expect_started()
    app = cluster.submit(static(3))

    answer = msgspec.json.decode(msgspec.json.encode(cluster.explain(app.key)))

    assert (answer["state"], answer["reason"], answer["waitsFor"]) == ("Pending", "WaitingForCapacity", "Capacity")
    assert answer["executorNodes"]["nodes"] == 1
    assert msgspec.convert(answer, Explanation) == cluster.explain(app.key)


def test_the_story_says_what_happened_and_why(cluster: Cluster) -> None:
    first = cluster.with_nodes(1).submit(static(3)).expect_started()
    second = cluster.submit(static(3))
    first.end()

    story = [(entry.cause, entry.what) for entry in cluster.scheduler.story(second.key)]

    assert story[0][0] == "ApplicationFound"
    assert story[0][1].startswith("WaitingForCapacity")
    assert story[1] == (f"PodSeen default/{first.driver.name}", "reserved 3 slot(s) on 1 node(s)")
    assert story[-1][1] == "driver bound to node-1"


def test_the_story_is_bounded(clusters: Clusters) -> None:
    cluster = clusters(story_length=3).with_nodes(1)
    app = cluster.submit(static(2)).expect_started()
    for _ in range(5):
        cluster.change_node("node-1", unschedulable=True)
        cluster.change_node("node-1", unschedulable=False)

    assert len(cluster.scheduler.story(app.key)) == 3
