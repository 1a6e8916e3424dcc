"""The row for one extra executor is the first one of the verified node order that has room."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from muster.cluster.constraints import PodConstraints
from muster.cluster.nodes import Node, NodeTable
from muster.cluster.resources import Resources
from muster.packing import find_packer
from muster.scheduling.filling import with_room
from muster.scheduling.plans import first_row
from muster.scheduling.zones import Zones

GIB = 2**30
sizes = st.tuples(st.integers(0, 3), st.integers(0, 3), st.sampled_from(["", "a", "b", "c"]), st.booleans())


@given(st.lists(sizes, min_size=1, max_size=8), st.sampled_from([1, 2**20]))
def test_it_is_the_first_in_order(nodes: list[tuple[int, int, str, bool]], scale: int) -> None:
    """``scale`` makes sums too large for doubles."""
    table = NodeTable()
    for number, (cpu, memory, zone, usable) in enumerate(nodes):
        labels = {"topology.kubernetes.io/zone": zone} if zone else {}
        allocatable = Resources.of(cpu=cpu * 1000, memory=memory * GIB * scale, pods=5)
        table.upsert(Node(f"node-{len(nodes) - number}", allocatable, labels, unschedulable=not usable))
    vector, anywhere = table.vector(Resources.of(cpu=1000, memory=GIB)), PodConstraints()
    capacity, eligible = table.capacity(vector, anywhere), table.eligible(anywhere)

    row = first_row(table, with_room(table, vector), Zones(table).of(anywhere, 0))

    nothing_used = np.zeros(len(eligible), dtype=np.bool_)
    assert row == find_packer("tightly-pack").one_more(capacity, table.order(eligible), nothing_used)
