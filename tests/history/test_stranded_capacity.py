"""Free capacity on nodes that have nothing left of the other resource."""

from __future__ import annotations

from muster.cluster.nodes import Node, NodeTable
from muster.cluster.resources import Resources
from muster.history.records import StrandedSample
from muster.history.stranded import stranded

POOL = "muster.dev/pool"
NOW = 100.0


def table(*nodes: tuple[str, str, int, int], **more: bool) -> NodeTable:
    """Nodes of 10 cores and 100 bytes, with their pool, cores and bytes that are taken."""
    result = NodeTable()
    for name, pool, cores, memory in nodes:
        labels = {POOL: pool} if pool else {}
        row = result.upsert(
            Node(name, Resources.of(cpu=10_000, memory=100, pods=10), labels, ready=more.get(name, True))
        )
        result.charge(row, result.vector(Resources.of(cpu=1000 * cores, memory=memory)))
    return result


def test_cpu_without_memory_and_memory_without_cpu_are_stranded() -> None:
    pool = table(("no-memory", "p", 4, 96), ("no-cpu", "p", 10, 30), ("room", "p", 5, 50), ("full", "p", 10, 100))
    assert stranded(pool, POOL, NOW) == (
        StrandedSample(
            NOW, "p", nodes=4, cpu=40_000, memory=400, free_cpu=11_000, free_memory=124, stranded_cpu=6000,
            stranded_memory=70,
        ),
    )  # fmt: skip


def test_each_pool_is_told_by_itself_and_nodes_without_one_together() -> None:
    pools = table(("a", "x", 0, 100), ("b", "y", 10, 0), ("c", "", 0, 0))
    told = [(one.pool, one.nodes, one.stranded_cpu, one.stranded_memory) for one in stranded(pools, POOL, NOW)]
    assert told == [("", 1, 0, 0), ("x", 1, 10_000, 0), ("y", 1, 0, 100)]


def test_nodes_that_take_no_pods_are_left_out() -> None:
    assert stranded(table(("a", "x", 0, 100), a=False), POOL, NOW) == ()
    assert stranded(NodeTable(), POOL, NOW) == ()


def test_an_overdrawn_node_strands_nothing_negative() -> None:
    [sample] = stranded(table(("a", "x", 12, 40)), POOL, NOW)
    assert (sample.free_cpu, sample.stranded_cpu, sample.stranded_memory) == (0, 0, 60)


def test_without_any_pool_label_there_is_one_pool() -> None:
    [sample] = stranded(table(("a", "", 0, 100)), POOL, NOW)
    assert (sample.pool, sample.stranded_cpu) == ("", 10_000)
