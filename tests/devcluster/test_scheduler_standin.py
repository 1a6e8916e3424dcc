"""The stand-in for kube-scheduler places pods as the default profile would, one by one."""

import pytest

from muster.cluster.constraints import PodConstraints, Requirement, Taint, Term, Toleration
from muster.cluster.nodes import Node
from muster.cluster.resources import Resources
from muster.devcluster.scheduler import Assignments

POD = Resources.of(cpu=1000, memory=2**30, pods=1)


def node(name: str, cpu: int = 4000, **traits: object) -> Node:
    allocatable = Resources.of(cpu=cpu, memory=64 * 2**30, pods=110)
    return Node(name, allocatable, **traits)  # type: ignore[arg-type]


class Cluster:
    def __init__(self, *nodes: Node) -> None:
        self.assignments = Assignments()
        for each in nodes:
            self.assignments.node_seen(each)

    def waits(
        self,
        uid: str,
        requests: Resources = POD,
        constraints: PodConstraints = PodConstraints(),  # noqa: B008  (immutable)
        priority: int = 0,
    ) -> None:
        self.assignments.pod_waits("default", uid, uid, requests, constraints, priority)

    def assign(self) -> dict[str, str]:
        return {pod.uid: chosen for pod, chosen in self.assignments.assign()}

    def why_not(self, uid: str) -> str:
        return self.assignments.why_not(self.assignments.pending[uid])


def pinned_to(name: str) -> PodConstraints:
    return PodConstraints(terms=(Term(fields=(Requirement("metadata.name", "In", (name,)),)),))


def test_pods_spread_to_the_emptiest_node() -> None:
    cluster = Cluster(node("a"), node("b"))
    for uid in "1234":
        cluster.waits(uid)
    assert sorted(cluster.assign().values()) == ["a", "a", "b", "b"]


def test_what_does_not_fit_waits_until_something_ends() -> None:
    cluster = Cluster(node("a", cpu=2000))
    for uid in "123":
        cluster.waits(uid)
    assert set(cluster.assign()) == {"1", "2"}
    assert cluster.why_not("3") == "0/1 nodes are available: 1 Insufficient cpu."
    assert cluster.assignments.pod_gone("1")
    assert cluster.assign() == {"3": "a"}


def test_a_pod_that_is_told_again_as_bound_is_counted_once() -> None:
    cluster = Cluster(node("a", cpu=2000))
    cluster.waits("1")
    cluster.assign()
    cluster.assignments.pod_bound("1", "a", POD)
    cluster.assignments.pod_bound("1", "a", POD)
    cluster.waits("2")
    assert cluster.assign() == {"2": "a"}


def test_a_pod_bound_elsewhere_than_decided_moves_its_room() -> None:
    cluster = Cluster(node("a", cpu=1000), node("b", cpu=1000))
    cluster.assignments.pod_bound("1", "a", POD)
    cluster.assignments.pod_bound("1", "b", POD)
    cluster.waits("2")
    assert cluster.assign() == {"2": "a"}


def test_higher_priority_goes_first_then_who_came_first() -> None:
    cluster = Cluster(node("a", cpu=2000))
    cluster.waits("old")
    cluster.waits("new")
    cluster.waits("urgent", priority=100)
    assert list(cluster.assign()) == ["urgent", "old"]


def test_a_pinned_pod_goes_to_its_node_only() -> None:
    cluster = Cluster(node("a"), node("b", cpu=1000))
    for uid in "12":
        cluster.waits(uid, constraints=pinned_to("b"))
    assert cluster.assign() == {"1": "b"}
    assert cluster.why_not("2") == (
        "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) didn't match Pod's node affinity/selector."
    )


def test_selectors_taints_cordon_and_readiness_turn_nodes_away() -> None:
    gpu = Taint("gpu", "NoSchedule", "yes")
    cluster = Cluster(
        node("cordoned", unschedulable=True),
        node("down", ready=False),
        node("tainted", taints=(gpu,), labels={"zone": "a"}),
        node("labelled", labels={"zone": "a"}),
        node("other", labels={"zone": "b"}),
    )
    in_zone = PodConstraints(node_selector=(("zone", "a"),))
    cluster.waits("plain", constraints=in_zone)
    assert cluster.assign() == {"plain": "labelled"}
    tolerating = PodConstraints(
        terms=(Term(expressions=(Requirement("zone", "In", ("a",)),)),), tolerations=(Toleration("gpu", "Exists"),)
    )
    cluster.waits("tolerant", constraints=tolerating)
    assert cluster.assign() == {"tolerant": "tainted"}
    cluster.waits("huge", Resources.of(cpu=10**6, pods=1), in_zone)
    assert cluster.assign() == {}
    assert cluster.why_not("huge") == (
        "0/5 nodes are available: 1 Insufficient cpu, 1 node(s) didn't match Pod's node affinity/selector, "
        "1 node(s) had untolerated taint {gpu: yes}, "
        "1 node(s) had untolerated taint {node.kubernetes.io/not-ready: }, 1 node(s) were unschedulable."
    )


def test_extended_resources_are_counted() -> None:
    gpu = Resources.of(cpu=100, pods=1, **{"nvidia.com/gpu": 1})
    with_gpu = Node("g", Resources.of(cpu=4000, pods=110, **{"nvidia.com/gpu": 1}))
    cluster = Cluster(node("a"), with_gpu)
    cluster.waits("1", gpu)
    cluster.waits("2", gpu)
    assert cluster.assign() == {"1": "g"}
    assert "2 Insufficient nvidia.com/gpu" in cluster.why_not("2")


def test_the_number_of_pods_is_a_limit() -> None:
    cluster = Cluster(Node("a", Resources.of(cpu=4000, memory=2**34, pods=1)))
    cluster.waits("1")
    cluster.waits("2")
    assert cluster.assign() == {"1": "a"}
    assert cluster.why_not("2") == "0/1 nodes are available: 1 Too many pods."


def test_a_node_that_comes_back_still_holds_its_pods() -> None:
    cluster = Cluster(node("a", cpu=1000))
    cluster.assignments.pod_bound("1", "a", POD)
    cluster.assignments.node_gone("a")
    cluster.assignments.node_seen(node("a", cpu=1000))
    cluster.waits("2")
    assert cluster.assign() == {}


def test_pods_told_before_their_node_hold_room_on_it() -> None:
    cluster = Cluster()
    cluster.assignments.pod_bound("1", "a", POD)
    cluster.assignments.node_seen(node("a", cpu=1000))
    cluster.waits("2")
    assert cluster.assign() == {}


@pytest.mark.parametrize("shape", [POD, Resources.of(cpu=1, pods=1)])
def test_without_nodes_the_reason_says_so(shape: Resources) -> None:
    cluster = Cluster()
    cluster.waits("1", shape)
    assert cluster.assign() == {}
    assert cluster.why_not("1") == "no nodes available to schedule pods"
