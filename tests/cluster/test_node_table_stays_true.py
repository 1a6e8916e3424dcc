"""Whatever happens to a node table, what it keeps incrementally is what a fresh computation gives."""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from muster.cluster.breakdown import breakdown
from muster.cluster.changes import ChangeLog
from muster.cluster.constraints import PodConstraints, Requirement, Taint, Term, Toleration
from muster.cluster.nodes import PODS_LIMIT, Node, NodeTable
from muster.cluster.resources import Resources

NAMES = st.sampled_from([f"node-{letter}" for letter in "abcdefghijkl"])
SIZES = st.builds(
    lambda cpu, memory, disk: Resources.of(cpu=cpu, memory=memory, **{"example.com/disk": disk}),
    st.integers(0, 4).map(lambda c: 500 * c),
    st.integers(0, 4),
    st.sampled_from([0, 0, 1]),
)
CONSTRAINTS = (
    PodConstraints(),
    PodConstraints(node_selector=(("pool", "spark"),)),
    PodConstraints(
        terms=(Term((Requirement("pool", "NotIn", ("web",)),)),), tolerations=(Toleration("spot", "Exists"),)
    ),
    PodConstraints(terms=(Term(fields=(Requirement("metadata.name", "In", ("node-c",)),)),)),
)


class TableUnderChange(RuleBasedStateMachine):
    """Keeps nodes and charges in plain dicts beside the table."""

    def __init__(self) -> None:
        super().__init__()
        self.table = NodeTable()
        self.nodes: dict[str, Node] = {}
        self.charged: dict[str, Resources] = {}
        self.outside: dict[str, Resources] = {}

    @rule(
        name=NAMES,
        allocatable=SIZES,
        pool=st.sampled_from(["spark", "web", ""]),
        zone=st.sampled_from(["z1", "z2", ""]),
        deprecated=st.booleans(),
        spot=st.booleans(),
        ready=st.booleans(),
        cordoned=st.booleans(),
    )
    def node_seen(
        self,
        name: str,
        allocatable: Resources,
        pool: str,
        zone: str,
        deprecated: bool,
        spot: bool,
        ready: bool,
        cordoned: bool,
    ) -> None:
        labels = {"kubernetes.io/hostname": name} | ({"pool": pool} if pool else {})
        if zone:
            key = "failure-domain.beta.kubernetes.io/zone" if deprecated else "topology.kubernetes.io/zone"
            labels[key] = zone
        taints = (Taint("spot", "NoSchedule"),) if spot else ()
        node = Node(name, allocatable.times(3), labels, taints, ready, cordoned)
        row = self.table.upsert(node)
        assert self.table.names[row] == name
        self.nodes[name] = node
        self.charged.setdefault(name, Resources())
        self.outside.setdefault(name, Resources())

    @precondition(lambda self: self.nodes)
    @rule(data=st.data())
    def node_gone(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.nodes)))
        self.table.remove(name)
        for book in (self.nodes, self.charged, self.outside):
            del book[name]

    @precondition(lambda self: self.nodes)
    @rule(data=st.data(), pod=SIZES, count=st.integers(-2, 3), outside=st.booleans())
    def pods_come_and_go(self, data: st.DataObject, pod: Resources, count: int, outside: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.nodes)))
        row, vector = self.table.index[name], self.table.vector(pod)
        book = self.outside if outside else self.charged
        book[name] += (pod + Resources.of(pods=1)).times(count)
        if outside:
            self.table.charge_overhead(row, vector, count)
        else:
            self.table.charge(row, vector, count)

    @precondition(lambda self: self.nodes)
    @rule(data=st.data(), pod=SIZES)
    def gang_charged(self, data: st.DataObject, pod: Resources) -> None:
        counts = data.draw(st.dictionaries(st.sampled_from(sorted(self.nodes)), st.integers(1, 3), min_size=1))
        rows = np.array([self.table.index[name] for name in counts])
        self.table.charge_many(rows, self.table.vector(pod), np.array(list(counts.values())))
        for name, count in counts.items():
            self.charged[name] += (pod + Resources.of(pods=1)).times(count)

    def left(self, name: str, *books: dict[str, Resources]) -> Resources:
        result = self.nodes[name].allocatable + Resources.of(pods=PODS_LIMIT)
        for book in books:
            result -= book[name]
        return result

    @invariant()
    def amounts_are_what_is_left(self) -> None:
        table = self.table
        assert set(table.index) == set(self.nodes)
        assert sorted(np.flatnonzero(table.present).tolist()) == sorted(table.index.values())
        for name, row in table.index.items():
            free, schedulable = self.left(name, self.charged, self.outside), self.left(name, self.outside)
            assert dict(zip(table.dimensions, table.free[:, row].tolist(), strict=True)) == {
                resource: free.get(resource) for resource in table.dimensions
            }
            assert table.schedulable[:, row].tolist() == [schedulable.get(resource) for resource in table.dimensions]
            assert bool(table.usable[row]) == (self.nodes[name].ready and not self.nodes[name].unschedulable)

    @rule()
    def order_is_that_of_a_sort(self) -> None:
        table = self.table
        room = {name: self.left(name, self.charged, self.outside) for name in self.nodes}
        zones: dict[str, list[str]] = {}
        for name, node in self.nodes.items():
            zones.setdefault(node.zone, []).append(name)
        ranked = sorted(
            zones,
            key=lambda z: (sum(room[n].get("memory") for n in zones[z]), sum(room[n].get("cpu") for n in zones[z]), z),
        )
        expected = [
            name
            for zone in ranked
            for name in sorted(zones[zone], key=lambda n: (room[n].get("memory"), room[n].get("cpu"), n))
        ]
        assert [table.names[row] for row in table.order().tolist()] == expected

    @rule(pod=SIZES, constraints=st.sampled_from(CONSTRAINTS))
    def capacity_is_counted_anew(self, pod: Resources, constraints: PodConstraints) -> None:
        fresh = NodeTable()
        for node in self.nodes.values():
            fresh.upsert(node)
        table, vector = self.table, self.table.vector(pod)
        eligible, capacity = table.eligible(constraints), table.capacity(vector, constraints)
        for name, row in table.index.items():
            assert eligible[row] == fresh.eligible(constraints)[fresh.index[name]]
            free = self.left(name, self.charged, self.outside)
            wanted = (pod + Resources.of(pods=1)).amounts
            fits = min(free.get(resource) // amount for resource, amount in wanted)
            overdrawn = any(amount < 0 for _, amount in free.amounts)
            assert capacity[row] == (max(0, fits) if eligible[row] and not overdrawn else 0)
        assert table.total_capacity(vector, constraints) == capacity.sum()
        groups = breakdown(table, constraints, vector)
        assert groups.fit == np.count_nonzero(capacity)
        assert groups.nodes == len(self.nodes)
        assert groups.nodes == sum(
            (groups.not_ready, groups.cordoned, groups.selector, groups.affinity, groups.taint)
        ) + sum((groups.too_small, groups.too_full, groups.fit))


TestTableUnderChange = TableUnderChange.TestCase
TestTableUnderChange.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


def test_a_change_log_gives_all_changes_since_or_says_that_it_forgot() -> None:
    log, told = ChangeLog(), []
    for row in [*range(20_000), *range(8_500)]:
        log.note(row)
        told.append(row)
    for count in (5, 4_000, 4_096, 100, 4_097, 3, 10_000, 7):
        log.note_many(np.arange(count))
        told.extend(range(count))
        remembered = 0
        for position in range(len(told) - 9_000, len(told) + 1):
            since = log.since(position)
            if since is not None:
                assert since.tolist() == told[position:]
                remembered = max(remembered, len(told) - position)
        assert log.head == len(told)
        assert remembered >= count if count <= 4_096 else remembered == 0


def test_a_large_table_is_repaired_as_it_is_rebuilt() -> None:
    random = np.random.default_rng(7)
    table = NodeTable()
    for number in range(600):
        zone = {"topology.kubernetes.io/zone": f"z{number % 4}"}
        table.upsert(Node(f"n{number}", Resources.of(cpu=8000, memory=64), zone))
    pod = table.vector(Resources.of(cpu=1000, memory=8))
    for turn in range(200):
        rows = random.choice(len(table.names), int(random.integers(1, 40)), replace=False)
        table.charge_many(rows, pod, random.integers(-2, 3, len(rows)))
        if turn % 10 == 0:
            table.remove(f"n{turn}")
            zone = {"topology.kubernetes.io/zone": "z1" if turn % 20 else "z9"}
            table.upsert(Node(f"n{599 - turn}x", Resources.of(cpu=8000, memory=64), zone))
        keys = [
            (table.free[1, row], table.free[0, row], table.names[row], table.zone_names[table.zones[row]])
            for row in table.order().tolist()
        ]
        zones = list(dict.fromkeys(zone for *_, zone in keys))
        sums = [(sum(k[0] for k in keys if k[3] == z), sum(k[1] for k in keys if k[3] == z), z) for z in zones]
        assert sums == sorted(sums)
        for zone in zones:
            members = [key for key in keys if key[3] == zone]
            assert members == sorted(members)
        assert len(keys) == 600


def test_names_of_nodes_long_gone_do_not_pile_up() -> None:
    table = NodeTable()
    for number in range(3_000):
        table.upsert(Node(f"n{number}", Resources.of(cpu=1), {"kubernetes.io/hostname": f"n{number}"}))
        table.remove(f"n{number}")
    table.upsert(Node("last", Resources.of(cpu=1), {"kubernetes.io/hostname": "last"}))
    column = table.labels.label("kubernetes.io/hostname")
    assert column is not None
    assert len(column.values) < 1_000
    assert table.eligible(PodConstraints(node_selector=(("kubernetes.io/hostname", "last"),))).tolist() == [True]


def test_what_was_charged_stays_when_a_node_changes() -> None:
    table = NodeTable()
    row = table.upsert(Node("n", Resources.of(cpu=4000, memory=8)))
    table.charge(row, table.vector(Resources.of(cpu=3000, memory=2)))
    table.upsert(Node("n", Resources.of(cpu=2000, memory=16)))
    assert table.free[:2, row].tolist() == [-1000, 14]
    assert table.capacity(table.vector(Resources.of(cpu=1))).tolist() == [0]


def test_a_node_without_a_limit_of_pods_has_none_and_one_with_keeps_it() -> None:
    table = NodeTable()
    table.upsert(Node("free", Resources.of(cpu=10_000)))
    table.upsert(Node("tight", Resources.of(cpu=10_000, pods=2)))
    assert table.capacity(table.vector(Resources.of(cpu=1))).tolist() == [10_000, 2]


def test_a_vector_made_before_a_resource_was_known_stays_valid() -> None:
    table = NodeTable()
    row = table.upsert(Node("n", Resources.of(cpu=4000, memory=8)))
    old = table.vector(Resources.of(cpu=1000))
    table.vector(Resources.of(cpu=1, **{"example.com/fpga": 1}))
    table.charge(row, old)
    table.charge_overhead(row, old)
    table.charge_many(np.array([row]), old, np.array([1]))
    assert table.free[0].tolist() == [1000]
    assert table.capacity(old).tolist() == [1]
    assert breakdown(table, PodConstraints(), old).fit == 1


def test_absurd_amounts_do_not_overflow() -> None:
    table = NodeTable()
    for number in range(300):
        table.upsert(Node(f"n{number}", Resources.of(cpu=2**63 - 1, memory=2**63 - 1)))
    table.charge(0, table.vector(Resources.of(memory=2**63 - 1)))
    assert table.order()[0] == 0
    assert table.total_capacity(table.vector(Resources.of(memory=2**52))) == 2 * 299


def test_an_explanation_names_what_keeps_pods_away() -> None:
    table = NodeTable()
    room, spark = Resources.of(cpu=8000, memory=8), {"pool": "spark", "cores": "8"}
    spot = (Taint("spot", "NoSchedule"),)
    for node in (
        Node("dead", room, spark, ready=False),
        Node("cordoned", room, spark, unschedulable=True),
        Node("web-1", room, {"pool": "web"}),
        Node("web-2", room, {}),
        Node("few-cores", room, {**spark, "cores": "2"}),
        Node("spot", room, spark, spot),
        Node("small", Resources.of(cpu=1000, memory=1), spark),
        Node("full", room, spark),
        Node("open", room, spark),
    ):
        table.upsert(node)
    table.charge(table.index["full"], table.vector(Resources.of(memory=7)))
    asked = PodConstraints((("pool", "spark"),), (Term((Requirement("cores", "Gt", ("4",)),)),))

    groups = breakdown(table, asked, table.vector(Resources.of(cpu=4000, memory=4)))

    assert (groups.nodes, groups.not_ready, groups.cordoned) == (9, 1, 1)
    assert (groups.selector, groups.selector_labels) == (2, (("pool=spark", 2),))
    assert (groups.affinity, groups.affinity_requirements) == (1, (("cores Gt 4", 1),))
    assert (groups.taint, groups.taints) == (1, (("spot:NoSchedule", 1),))
    assert (groups.too_small, groups.too_small_in) == (1, (("cpu", 1), ("memory", 1)))
    assert (groups.too_full, groups.too_full_in) == (1, (("memory", 1),))
    assert groups.fit == 1
