"""What the archived scheduler measured of a gang that was just placed, and of the pods of an application. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

import msgspec

UNKNOWN_ZONE = "unknown-zone"


class Collocation(StrEnum):
    """The tag ``collocation-type``."""

    NONE = "no-collocation"
    ALL = "driver-collocated-with-all-executors"
    SOME = "driver-collocated-with-some-executors"


class InitialPlacement(msgspec.Struct, frozen=True):
    collocation: Collocation
    executor_nodes: int
    """Different nodes of executors; nothing is reported when there are none."""
    executors_per_node: int
    """Rounded down; 0 without executors."""


class Traffic(msgspec.Struct, frozen=True):
    """Pairs of an application's pods, each of which may shuffle with each."""

    cross_zone: int
    total: int


def initial_placement(driver_node: str, executors: Mapping[str, int]) -> InitialPlacement:
    """``executors``: how many are on which node."""
    count = sum(executors.values())
    beside_driver = executors.get(driver_node, 0)
    if not beside_driver:
        collocation = Collocation.NONE
    else:
        collocation = Collocation.ALL if beside_driver == count else Collocation.SOME
    hosts = [node for node, number in executors.items() if number]
    return InitialPlacement(
        collocation=collocation,
        executor_nodes=len(hosts),
        executors_per_node=count // len(hosts) if hosts else 0,
    )


def zone_traffic(pods_by_zone: Iterable[int]) -> Traffic:
    """``pods_by_zone``: how many pods of one application are in each zone."""
    counts = list(pods_by_zone)
    pods = sum(counts)
    total = _pairs(pods)
    return Traffic(cross_zone=total - sum(map(_pairs, counts)), total=total)


def _pairs(count: int) -> int:
    return count * (count - 1) // 2
