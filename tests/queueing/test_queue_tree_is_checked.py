"""What a configuration of queues may say; each error names the queue, the field, the value and what is allowed."""

from __future__ import annotations

import pytest

from muster.cluster.resources import Resources
from muster.queueing.config import DEFAULT, Limit, Maximum, QueueConfig, QueueConfigError
from muster.queueing.tree import QueueTree

MANY = Maximum.of(cpu=1000)


def test_there_is_always_a_default_queue() -> None:
    assert QueueTree([]).leaves == (DEFAULT,)
    assert QueueTree([QueueConfig(name="etl")]).leaves == (DEFAULT, "etl")
    assert QueueTree([QueueConfig(name=DEFAULT, weight=3)]).config(DEFAULT).weight == 3


def test_applications_wait_in_leaves_only() -> None:
    tree = QueueTree([QueueConfig(name="nightly", parent="etl"), QueueConfig(name="etl")])

    assert tree.path("nightly") == ("etl", "nightly")
    assert tree.leaf("nightly")
    assert not tree.leaf("etl")
    assert not tree.leaf("nowhere")
    assert "nowhere" not in tree


def test_node_pools_of_ancestors_hold_for_all_below() -> None:
    tree = QueueTree([QueueConfig(name="etl", node_pools=("spot", "")), QueueConfig(name="nightly", parent="etl")])

    assert tree.allows("nightly", "spot")
    assert tree.allows("nightly", "")
    assert not tree.allows("nightly", "gpu")
    assert tree.allows(DEFAULT, "gpu")
    assert not tree.allows("nowhere", "spot")


def q(name: str, parent: str = "", **fields: object) -> QueueConfig:
    return QueueConfig(name=name, parent=parent, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("configs", "message"),
    [
        ([q("")], 'queue "": name: is empty; every queue needs a name of its own'),
        ([q("a"), q("a")], 'queue "a": name: is used twice; names are unique in the whole tree'),
        (
            [q("a", "x"), q("b")],
            'queue "a": parent: there is no queue "x"; there are "b", "default" and "" for the root',
        ),
        ([q("a", "a")], 'queue "a": parent: is below itself: a -> a'),
        ([q("a", "c"), q("b", "a"), q("c", "b"), q("d", "a")], 'queue "a": parent: is below itself: a -> c -> b -> a'),
        (
            [q("q0"), *[q(f"q{depth}", f"q{depth - 1}") for depth in range(1, 5000)]],
            'queue "q32": parent: below "q31" it is more than 32 levels deep, which is the most',
        ),
        ([q("a", weight=0)], 'queue "a": weight: 0 is not allowed; the least is 1'),
        ([q("a", max_applications=0)], 'queue "a": maxApplications: 0 is not allowed; the least is 1'),
        ([q("a", min_runtime=-1.0)], 'queue "a": minRuntimeSeconds: -1.0 is not allowed; the least is 0'),
        ([q("a", driver_share=0)], 'queue "a": driverShare: 0 is not a percentage from 1 to 100'),
        ([q("a", driver_share=101)], 'queue "a": driverShare: 101 is not a percentage from 1 to 100'),
        ([q("a", guaranteed=Resources.of(cpu=-1))], 'queue "a": guaranteed: cpu: -1m is not allowed; the least is 0'),
        ([q("a", max=Maximum.of(memory=-1))], 'queue "a": max: memory: -1 is not allowed; the least is 0'),
        (
            [q("a", guaranteed=Resources.of(memory=2**31), max=Maximum.of(memory=2**30))],
            'queue "a": guaranteed: memory: 2Gi is more than max, which is 1Gi',
        ),
        (
            [q("a", max=Maximum.of(cpu=1000)), *[q(n, "a", guaranteed=Resources.of(cpu=600)) for n in ("b", "c")]],
            'queue "a": max: cpu: 1 is less than what is guaranteed to the queues below it, which is 1200m together',
        ),
        (
            [q("a", max=Maximum.of(cpu=1000)), q("b", "a"), q("c", "b", guaranteed=Resources.of(cpu=1500))],
            'queue "a": max: cpu: 1 is less than what is guaranteed to the queues below it, which is 1500m together',
        ),
        (
            [q("a", node_pools=("spot",)), q("b", "a"), q("c", "b", node_pools=("gpu",))],
            'queue "c": nodePools: "gpu" is not among those of "a" above it: "spot"',
        ),
        (
            [q("a", limits=(Limit(max=MANY),))],
            'queue "a": limits[0]: speaks of nobody; it needs users or groups',
        ),
        (
            [q("a", limits=(Limit(users=("sue",)),))],
            'queue "a": limits[0]: limits nothing; it needs max or maxApplications',
        ),
        (
            [q("a", limits=(Limit(users=("sue",), max_applications=0),))],
            'queue "a": limits[0].maxApplications: 0 is not allowed; the least is 1',
        ),
        (
            [q("a", limits=(Limit(users=("sue",), max=MANY), Limit(users=("bob", "sue"), max=MANY)))],
            'queue "a": limits[1].users: "sue" has a limit already, in limits[0]',
        ),
        (
            [q("a", limits=(Limit(users=("*", "sue"), max=MANY),))],
            'queue "a": limits[0].users: "*" stands alone; here are "*", "sue"',
        ),
        (
            [q("a", limits=(Limit(groups=("*",), max=MANY),))],
            'queue "a": limits: a limit for the groups "*" needs one for a named group beside it; alone, use max',
        ),
    ],
)
def test_errors_say_what_is_wrong_and_what_is_allowed(configs: list[QueueConfig], message: str) -> None:
    with pytest.raises(QueueConfigError) as caught:
        QueueTree(configs)

    assert str(caught.value) == message
    assert caught.value.queue in [config.name for config in configs]


def test_what_is_unlimited_and_what_is_none() -> None:
    most = Maximum.parse({"cpu": "1500m", "nvidia.com/gpu": 0})

    assert most.amounts == (("cpu", 1500), ("nvidia.com/gpu", 0))
