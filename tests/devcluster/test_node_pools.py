"""Node pools: shapes, what is left for pods, and the short form of the command line."""

import pytest

from muster.devcluster.node_pool import (
    NodePool,
    NodeTaint,
    allocatable,
    node_objects,
    parse_node_pools,
    reserved_mib,
    reserved_millicores,
)


@pytest.mark.parametrize(
    ("cores", "reserved"),
    # "Plan GKE Standard node sizes": 60m of the first core, 10m of the second, 5m of the next two, 2.5m of the rest
    [(1, 60), (2, 70), (4, 80), (16, 110), (32, 150)],
)
def test_cpu_that_a_cloud_provider_keeps_for_the_system(cores: int, reserved: int) -> None:
    assert reserved_millicores(cores) == reserved


@pytest.mark.parametrize(
    ("memory_gib", "reserved"),
    # The same source: 1 GiB of the first 4, 0.8 of the next 4, 0.8 of the next 8, and 100 MiB for eviction
    [(4, 1024 + 100), (8, 1843 + 100), (16, 2662 + 100), (128, 2662 + 6881 + 100), (256, 2662 + 6881 + 2621 + 100)],
)
def test_memory_that_a_cloud_provider_keeps_for_the_system(memory_gib: int, reserved: int) -> None:
    assert reserved_mib(memory_gib) == pytest.approx(reserved, abs=2)


def test_nodes_are_spread_over_zones_in_turn() -> None:
    nodes = node_objects(NodePool(count=4, zones=("a-1a", "a-1b")), "2026-01-31T12:00:00Z")
    assert [node["metadata"]["labels"]["topology.kubernetes.io/zone"] for node in nodes] == [
        "a-1a",
        "a-1b",
        "a-1a",
        "a-1b",
    ]
    assert {node["metadata"]["labels"]["topology.kubernetes.io/region"] for node in nodes} == {"a-1"}


def test_every_node_has_a_name_a_hostname_label_and_a_network_of_its_own() -> None:
    nodes = node_objects(NodePool(name="n", count=300), "2026-01-31T12:00:00Z", first_number=5)
    assert len({node["metadata"]["name"] for node in nodes}) == 300
    assert len({node["spec"]["podCIDR"] for node in nodes}) == 300
    assert all(node["metadata"]["labels"]["kubernetes.io/hostname"] == node["metadata"]["name"] for node in nodes)


def test_extended_resources_are_allocatable_in_full_and_taints_are_kept() -> None:
    pool = NodePool(extended={"nvidia.com/gpu": 4}, taints=(NodeTaint("nvidia.com/gpu"),), count=1)
    (node,) = node_objects(pool, "2026-01-31T12:00:00Z")
    assert node["status"]["allocatable"]["nvidia.com/gpu"] == "4"
    assert node["spec"]["taints"] == [{"key": "nvidia.com/gpu", "effect": "NoSchedule", "value": ""}]


def test_allocatable_is_below_capacity() -> None:
    assert allocatable(NodePool(cpu=16, memory_gib=64))["cpu"] == "15890m"


def test_the_short_form_names_several_pools() -> None:
    first, second = parse_node_pools("200x16,64; gpu=2x8,32Gi")
    assert (first.name, first.count, first.cpu, first.memory_gib) == ("spark", 200, 16, 64)
    assert (second.name, second.count, second.cpu, second.memory_gib) == ("gpu", 2, 8, 32)


@pytest.mark.parametrize("text", ["", "200", "x16,64", "2x16", "0x16,64", "2x-1,64", "2x16,64,1"])
def test_a_malformed_short_form_is_refused_and_the_form_shown(text: str) -> None:
    with pytest.raises(ValueError, match=r"200x16,64|must be above 0"):
        parse_node_pools(text)
