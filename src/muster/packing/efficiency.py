"""How well nodes are used once a gang is placed.

Source: ``pkg/binpack/efficiency.go`` of palantir/k8s-spark-scheduler-lib. Amounts are rounded up to whole cores,
bytes and devices before they are divided.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from muster.packing.model import Bools, Float64s, Gang, Int64s, Packing

_UNITS = np.array([[1000], [1], [1]], dtype=np.int64)
"""Base units (millicores, bytes, devices) per whole unit."""

_LISTED = 2**13


class Efficiency(NamedTuple):
    """Used share of schedulable, averaged over nodes: 0 to 1 (above 1 when overdrawn)."""

    cpu: float
    memory: float
    gpu: float
    """Over nodes that have GPUs; 1 when none has."""
    maximum: float
    """Average of each node's largest share."""


def node_efficiencies(available: Int64s, schedulable: Int64s, charged: Int64s) -> Float64s:
    """[3, M] used share of cpu, memory, gpu per node, from amounts [3, M]; gpu is 0 on nodes without."""
    capacity = _whole(schedulable)
    shares = _whole(schedulable - available + charged) / np.where(capacity == 0, 1, capacity)
    shares[2][schedulable[2] == 0] = 0
    return shares


def average_efficiency(shares: Float64s, has_gpu: Bools) -> Efficiency:
    """The averages over M nodes of ``node_efficiencies``; zeros for no nodes at all."""
    if shares.shape[1] == 0:
        return Efficiency(0.0, 0.0, 0.0, 0.0)
    gpu = float(shares[2][has_gpu].mean()) if has_gpu.any() else 1.0
    return Efficiency(float(shares[0].mean()), float(shares[1].mean()), gpu, float(shares.max(axis=0).mean()))


def cluster_efficiency(gang: Gang, packing: Packing, rows: Int64s, *, charge_executors: bool = True) -> Efficiency:
    """Averages over ``rows`` as they would be with the packing in place."""
    charged = np.zeros_like(gang.available[:3])
    _charge(charged, gang, packing, charge_executors)
    available, schedulable = gang.available[:3, rows], gang.schedulable[:3, rows]
    shares = node_efficiencies(available, schedulable, charged[:, rows])
    return average_efficiency(shares, schedulable[2] != 0)


def placed_efficiency(gang: Gang, packing: Packing, *, charge_executors: bool) -> float:
    """Average of the largest share over [driver's node, each executor's node …]: a node counts once per pod.

    Summed one by one in this order, as the original does, so that zones which it takes for equal are equal here; only
    gangs beyond any tie are summed by node.
    """
    rows, pods = packing.rows, packing.counts
    charged = gang.executor[:3, None] * (pods if charge_executors else np.zeros_like(pods))
    if gang.driver is not None:
        beside = (rows == packing.driver_row).nonzero()[0]
        if len(beside):
            charged[:, beside] += gang.driver[:3, None]
            driver_at = int(beside[0])
        else:
            driver_at = len(rows)
            rows = np.append(rows, packing.driver_row)
            charged = np.concatenate([charged, gang.driver[:3, None]], axis=1)
    available, schedulable = gang.available[:3, rows], gang.schedulable[:3, rows]
    largest = node_efficiencies(available, schedulable, charged).max(axis=0)
    total = float(largest[driver_at]) if gang.driver is not None else 0.0
    placed = int(pods.sum())
    if placed <= _LISTED:
        # Adding begins with the driver's node: cumsum adds one by one, where sum adds in pairs.
        listed = np.repeat(largest[: len(pods)], pods)
        total = float(np.concatenate([[total], listed]).cumsum()[-1])
    else:
        total += float(largest[: len(pods)] @ pods)
    nodes = placed + (gang.driver is not None)
    return total / nodes if nodes else 0.0


def _charge(charged: Int64s, gang: Gang, packing: Packing, charge_executors: bool) -> None:
    if charge_executors:
        charged[:, packing.rows] += gang.executor[:3, None] * packing.counts
    if gang.driver is not None:
        charged[:, packing.driver_row] += gang.driver[:3]


def _whole(amounts: Int64s) -> Int64s:
    """Rounded away from 0, as ``Quantity.Value`` does."""
    return np.sign(amounts) * -(-np.abs(amounts) // _UNITS)
