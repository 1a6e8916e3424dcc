"""What reservations take on each node: counted on from the last time, the same as counted anew."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from muster.cluster.nodes import NodeTable
from muster.control.extender.gauges import NodeUsage
from muster.control.extender.legacy_metrics import LegacyMetrics
from muster.control.extender.reservations import ReservationSpec, ResourceReservation, Slot, bound, new_reservation
from muster.control.extender.usage import SLICE, Usage
from muster.control.facts import node_from
from muster.kube.objects import Node
from tests.extender.spark_objects import driver_pod

SIZE = {"cpu": "500m", "memory": "1Gi", "nvidia.com/gpu": "1"}
PREFIX = "foundry_spark_scheduler_"


def reservation(app: str, *nodes: str) -> ResourceReservation:
    return new_reservation(driver_pod(), app, "n0", nodes, SIZE, SIZE)


def counted(usage: Usage, reservations: Iterable[ResourceReservation]) -> int:
    """How often it gave way."""
    return sum(1 for _ in usage.count(reservations))


@given(data=st.data())
def test_counting_on_is_counting_anew(data: st.DataObject) -> None:
    usage, there = Usage(), {}
    for _ in range(data.draw(st.integers(1, 8))):
        app = data.draw(st.sampled_from(["a", "b", "c"]))
        if data.draw(st.booleans()):
            made = reservation(app, *data.draw(st.lists(st.sampled_from(["n1", "n2"]), max_size=3)))
            there[app] = bound(made, "executor-1", "e1") if "executor-1" in made.spec.reservations else made
        else:
            there.pop(app, None)

        counted(usage, there.values())

        slots = Counter(slot.node for each in there.values() for _, slot, _ in each.slots())
        free = sum(1 for each in there.values() for _, _, pod in each.slots() if not pod)
        assert usage.nodes == {node: (500 * n, n * 2**30, n) for node, n in slots.items()}
        assert usage.unbound == (500 * free, free * 2**30, free)


def test_it_gives_way_and_looks_only_at_what_changed() -> None:
    usage = Usage()
    huge = reservation("huge", *["n1"] * SLICE)
    assert counted(usage, [huge, reservation("small", "n2")]) == 1
    assert counted(usage, [huge]) == 0


def test_amounts_that_cannot_be_read_count_for_nothing() -> None:
    usage = Usage()
    odd = msgspec.structs.replace(
        reservation("odd"),
        spec=ReservationSpec({"driver": Slot("n1", {"cpu": "many"}), "executor-1": Slot("n2", SIZE)}),
    )
    counted(usage, [odd])
    assert usage.nodes == {"n2": (500, 2**30, 1)}


def node(name: str, group: str) -> Node:
    labels = {"resource_channel": group} if group else {}
    return msgspec.convert({"metadata": {"name": name, "labels": labels}, "status": {}}, Node)


def test_nodes_are_told_of_while_they_have_slots_and_a_group() -> None:
    registry, table = CollectorRegistry(), NodeTable()
    metrics = LegacyMetrics(registry)
    gauges = NodeUsage(metrics, "resource_channel")
    for each in (node("n0", "batch"), node("n1", "Batch/Large"), node("n2", "")):
        table.upsert(node_from(each))

    def told(*reservations: ResourceReservation) -> dict[tuple[str, str], float]:
        list(gauges.refresh(reservations, table))
        families = text_string_to_metric_families((generate_latest(registry) + metrics.render()).decode())
        return {
            (sample.labels["nodename"], sample.labels["instance_group"]): sample.value
            for family in families
            for sample in family.samples
            if sample.name == PREFIX + "resource_usage_cpu"
        }

    assert told(reservation("a", "n1", "n2")) == {("n0", "batch"): 0.5, ("n1", "batch/large"): 0.5}
    table.upsert(node_from(node("n0", "other")))
    assert told(reservation("a", "n1", "n1")) == {("n0", "other"): 0.5, ("n1", "batch/large"): 1.0}
    assert told() == {}
    assert f"{PREFIX}reservations_unbound_cpu 0.0" in generate_latest(registry).decode()
