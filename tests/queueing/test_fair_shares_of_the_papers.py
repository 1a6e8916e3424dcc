"""Fair shares against the optimum that the papers work out, with gangs of one unit each.

Ghodsi et al., "Dominant Resource Fairness", NSDI 2011 (the example of §4.1; weights: §4.3). Bhattacharya et al.,
"Hierarchical Scheduling for Diverse Datacenter Workloads", SoCC 2013 (rescaling, blocked nodes); Volcano tests its
hierarchical DRF with the same two, which is where these numbers are from (``drf/hdrf_test.go``).
"""

from __future__ import annotations

import pytest

from muster.cluster.resources import Resources
from muster.queueing.config import DEFAULT, Policy, QueueConfig
from muster.queueing.order import Queues
from muster.queueing.tree import QueueTree
from muster.queueing.usage import Charge
from tests.queueing.round_of_turns import fill, tasks

CPU, GB = Resources.of(cpu=1000), Resources.of(memory=10**9)


def queue(name: str, parent: str = "", weight: int = 1) -> QueueConfig:
    return QueueConfig(name=name, parent=parent, policy=Policy.FAIR, weight=weight)


def vector(cpus: int, gigabytes: int) -> Resources:
    return CPU.times(cpus) + GB.times(gigabytes)


def test_drf_between_users_of_a_queue() -> None:
    """9 CPUs and 18 GB; A's tasks take <1 CPU, 4 GB>, B's <3 CPU, 1 GB>: three of A and two of B."""
    queues = Queues(QueueTree([queue(DEFAULT)]))

    started = fill(
        queues,
        vector(9, 18),
        tasks(DEFAULT, 9, vector(1, 4), user="A") + tasks(DEFAULT, 9, vector(3, 1), user="B"),
    )

    assert started == {"A": 3, "B": 2}


def test_drf_between_queues() -> None:
    queues = Queues(QueueTree([queue("A"), queue("B")]))

    started = fill(queues, vector(9, 18), tasks("A", 9, vector(1, 4)) + tasks("B", 9, vector(3, 1)))

    assert started == {"A": 3, "B": 2}


@pytest.mark.parametrize(("weight_a", "weight_b"), [(1, 1), (2, 1), (1, 3), (5, 2)])
def test_weighted_drf_equalises_dominant_shares_over_weights(weight_a: int, weight_b: int) -> None:
    """A takes <1 CPU, 4 GB> and B <3 CPU, 1 GB> of 9,000 CPUs and 18,000 GB.

    Dominant shares: A 4x/18000 (memory), B 3y/9000 (CPU). At the optimum A's is weight_a/weight_b times B's, until the
    first resource is gone: x + 3y <= 9000 and 4x + y <= 18000.
    """
    queues = Queues(QueueTree([queue("A", weight=weight_a), queue("B", weight=weight_b)]))
    a_per_b = (3 / 9000 * weight_a) / (4 / 18000 * weight_b)
    b = min(9000 / (a_per_b + 3), 18000 / (4 * a_per_b + 1))
    count_a, count_b = round(a_per_b * b), round(b)

    started = fill(
        queues,
        vector(9000, 18000),
        tasks("A", 6000, vector(1, 4)) + tasks("B", 4000, vector(3, 1)),
        most=count_a + count_b,  # beyond that, whoever can use what is left gets it
    )

    assert started["A"] == pytest.approx(count_a, rel=0.02)
    assert started["B"] == pytest.approx(count_b, rel=0.02)


def test_rescaling_a_child_that_fills_what_nobody_else_wants_does_not_starve_its_sister() -> None:
    """10 CPUs, 10 GB. sci takes both, eng has a child for each: everybody gets half of the cluster of what they take.

    With the plain dominant share of eng, its memory would count against the CPUs of its other child.
    """
    queues = Queues(QueueTree([queue("sci"), queue("eng"), queue("dev", "eng"), queue("prod", "eng")]))

    started = fill(
        queues,
        vector(10, 10),
        tasks("sci", 10, vector(1, 1)) + tasks("dev", 10, vector(1, 0)) + tasks("prod", 10, vector(0, 1)),
    )

    assert started == {"sci": 5, "dev": 5, "prod": 5}


def test_nodes_that_are_blocked_do_not_hold_back_their_parent() -> None:
    """30 CPUs, 30 GB; three want CPUs, two want memory, one of each below the same parent."""
    queues = Queues(
        QueueTree([queue("n1"), queue("n2"), queue("n3"), queue("n31", "n3"), queue("n32", "n3"), queue("n4")])
    )

    started = fill(
        queues,
        vector(30, 30),
        tasks("n1", 30, vector(1, 0))
        + tasks("n2", 30, vector(1, 0))
        + tasks("n31", 30, vector(1, 0))
        + tasks("n32", 30, vector(0, 1))
        + tasks("n4", 30, vector(0, 1)),
    )

    assert started == {"n1": 10, "n2": 10, "n31": 10, "n32": 15, "n4": 15}


def test_sister_is_not_starved_when_cpus_come_back_one_by_one() -> None:
    """The starvation of naive hierarchies: all GPUs go to one child, whose sister then never gets a CPU again."""
    queues = Queues(QueueTree([queue("n1"), queue("n2"), queue("cpu", "n2"), queue("memory", "n2")]))
    total = vector(100, 100)
    fill(queues, total, tasks("memory", 100, vector(0, 1)))
    started = {"n1": 0, "cpu": 0}
    for entry, _ in tasks("n1", 100, vector(1, 0)) + tasks("cpu", 100, vector(1, 0)):
        queues.add(entry)

    for _ in range(100):  # one CPU becomes free at a time
        turns = queues.turns("", total)
        key = turns.next()
        assert key is not None
        name = key.partition("/")[0]
        started[name] += 1
        queues.discard(key)
        queues.charge(key, Charge(name, used=CPU))

    assert started == {"n1": 50, "cpu": 50}


def test_children_below_their_guarantee_go_first() -> None:
    """100 CPUs: b is guaranteed 60, a nothing: a gets what is left, though its share is smaller all the time."""
    guaranteed = QueueConfig(name="b", guaranteed=CPU.times(60))
    queues = Queues(QueueTree([queue("a"), guaranteed]))

    started = fill(queues, vector(100, 0), tasks("a", 100, CPU) + tasks("b", 60, CPU))

    assert started == {"a": 40, "b": 60}
