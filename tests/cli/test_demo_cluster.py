"""The demo's cluster, and planned applications as spark-submit would be told."""

from __future__ import annotations

import pytest

from muster.cli.demo.cluster import executor_requests, heap_mib, node_pools, virtual_application
from muster.cli.demo.real import java_version, real_jobs
from muster.cli.demo.workload import PlannedApplication, build
from muster.devcluster.node_pool import allocatable

PLANNED = {application.name: application for application in build(seed=7)}


def planned(name: str) -> PlannedApplication:
    return PLANNED[name]


@pytest.mark.parametrize("nodes", [1, 2, 3, 7, 10, 55, 200])
def test_there_are_as_many_nodes_as_asked_for_and_a_large_one_among_them(nodes: int) -> None:
    pools = node_pools(nodes)
    assert sum(pool.count for pool in pools) == nodes
    assert any(pool.cpu == 24 for pool in pools)
    assert all(len(pool.zones) == 3 for pool in pools)


# heap → pod: the values of Spark's BasicExecutorFeatureStep, overhead max(384, 10 %)
@pytest.mark.parametrize(("pod", "heap"), [(896, 512), (1408, 1024), (4505, 4096), (9011, 8192), (27033, 24576)])
def test_heaps_are_those_from_which_spark_makes_the_recorded_pods(pod: int, heap: int) -> None:
    assert heap_mib(pod) == heap


def test_every_pod_is_at_most_a_mebibyte_below_its_recorded_size() -> None:
    for application in PLANNED.values():
        difference = (application.executor.memory_mib << 20) - executor_requests(application).get("memory")
        assert 0 <= difference <= 1 << 20


def test_every_recorded_pod_fits_the_largest_node() -> None:
    largest = allocatable(node_pools(200)[-1])
    cores = int(largest["cpu"].removesuffix("m"))
    mebibytes = int(largest["memory"].removesuffix("Ki")) // 1024
    for application in PLANNED.values():
        for pod in (application.driver, application.executor):
            assert pod.cpu_m <= cores
            assert pod.memory_mib <= mebibytes


def test_a_static_application_asks_for_its_executors_and_a_dynamic_one_for_a_range() -> None:
    static = virtual_application(planned("nds-power-run"))
    assert (static.executors, static.dynamic, static.max_executors) == (8, False, None)
    growing = virtual_application(planned("spark-shell"))
    assert (growing.executors, growing.dynamic, growing.max_executors) == (3, True, 8)


def test_nothing_is_said_to_muster() -> None:
    for application in map(virtual_application, PLANNED.values()):
        assert not application.driver_annotations
        assert not application.executor_annotations
        assert not application.properties
    for real in real_jobs():
        assert not any("muster" in f"{key}{value}" for key, value in real.job.conf.items())


def test_the_real_applications_are_one_static_and_one_dynamic() -> None:
    static, dynamic = real_jobs()
    assert (static.minimum, static.job.conf) == (2, {"spark.executor.instances": "2"})
    assert dynamic.minimum == 1
    assert dynamic.job.conf["spark.dynamicAllocation.enabled"] == "true"


@pytest.mark.parametrize(
    ("told", "version"),
    [
        ('openjdk version "17.0.12" 2024-07-16\nOpenJDK Runtime Environment', 17),
        ('openjdk version "21" 2023-09-19', 21),
        ('java version "1.8.0_402"', 8),
        ("command not found", None),
    ],
)
def test_javas_version_is_read_as_java_tells_it(told: str, version: int | None) -> None:
    assert java_version(told) == version
