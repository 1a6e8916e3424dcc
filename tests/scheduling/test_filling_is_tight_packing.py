"""Gangs of everyday size are placed without sorting the nodes, exactly where ``tightly-pack`` puts them."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from muster.cluster.constraints import PodConstraints, Taint, Toleration
from muster.cluster.nodes import Node
from muster.cluster.resources import Resources
from muster.packing import find_packer
from muster.packing.model import Gang
from muster.scheduling import plans
from muster.scheduling.config import SchedulerConfig
from muster.scheduling.model import PodShape
from muster.scheduling.state import State

ZONE = "topology.kubernetes.io/zone"
sizes = st.tuples(st.sampled_from([0, 500, 1000, 2000, 4000]), st.sampled_from([0, 1, 2, 4, 8]))
constraints = st.sampled_from(
    [
        PodConstraints(),
        PodConstraints(node_selector=(("disk", "nvme"),)),
        PodConstraints(tolerations=(Toleration("dedicated", "Exists"),)),
    ]
)


@st.composite
def nodes(draw: st.DrawFn) -> Node:
    cpu, memory = draw(st.sampled_from([2000, 4000, 8000])), draw(st.sampled_from([2, 4, 8, 16]))
    labels = {ZONE: draw(st.sampled_from("abc"))}
    if draw(st.booleans()):
        labels["disk"] = "nvme"
    taints = (Taint("dedicated", "NoSchedule"),) if draw(st.integers(0, 3)) == 0 else ()
    name = draw(st.text("abcxyz", min_size=1, max_size=3))
    return Node(name, Resources.of(cpu=cpu, memory=memory, pods=draw(st.integers(1, 6))), labels, taints)


def shape(size: tuple[int, int], where: PodConstraints) -> PodShape:
    return PodShape(Resources.of(cpu=size[0], memory=size[1]), where)


@settings(max_examples=600)
@given(
    st.lists(nodes(), min_size=1, max_size=14),
    st.lists(st.tuples(st.integers(0, 13), sizes, st.integers(1, 2)), max_size=10),
    sizes,
    constraints,
    sizes,
    constraints,
    st.integers(1, 20),
    st.booleans(),
)
def test_the_plan_is_the_packers(
    some: list[Node],
    charged: list[tuple[int, tuple[int, int], int]],
    driver_size: tuple[int, int],
    driver_where: PodConstraints,
    executor_size: tuple[int, int],
    executor_where: PodConstraints,
    count: int,
    client: bool,
) -> None:
    state = State(SchedulerConfig(packer="tightly-pack"))
    table = state.table
    for node in some:
        table.upsert(node)
    for row, size, times in charged:
        table.charge(row % len(table.index), table.vector(shape(size, PodConstraints()).requests), times)
    driver = None if client else shape(driver_size, driver_where)
    executor = shape(executor_size, executor_where)

    wanted = table.vector(executor.requests)
    packing = find_packer("tightly-pack").pack(
        Gang(
            available=table.free,
            schedulable=table.schedulable,
            driver=None if driver is None else table.vector(driver.requests),
            executor=wanted,
            count=count,
            driver_order=table.order(table.eligible(driver.constraints if driver else executor.constraints)),
            executor_order=table.order(table.eligible(executor.constraints)),
            zones=table.zones,
        )
    )
    plan = plans.plan_gang(state, driver, executor, count)
    assert (plan is None) == (packing is None)
    if plan is not None and packing is not None:
        assert plan.driver == packing.driver_row
        assert plan.rows.tolist() == packing.rows.tolist()
        assert plan.counts.tolist() == packing.counts.tolist()
