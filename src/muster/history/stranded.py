"""Capacity that is free and of no use, because the same node has nothing left of the other resource. Pure."""

from __future__ import annotations

import numpy as np

from muster.cluster.nodes import NodeTable
from muster.cluster.resources import CPU, MEMORY
from muster.history.records import StrandedSample

NOTHING_LEFT = 0.05
"""A node has nothing left of a resource when less than this share of its allocatable amount is free."""


def stranded(table: NodeTable, pool_label: str, at: float) -> tuple[StrandedSample, ...]:
    """One sample for each pool (value of ``pool_label``) with usable nodes (Ready, not cordoned), sorted by pool."""
    cpu, memory = table.dimension(CPU), table.dimension(MEMORY)
    free = np.maximum(table.free[[cpu, memory]], 0)
    allocatable = table.allocatable[[cpu, memory]]
    empty = free < allocatable * NOTHING_LEFT
    lost = np.where(empty[::-1], free, 0)
    usable = table.present & table.usable
    column = table.labels.label(pool_label)
    codes = np.zeros(len(usable), dtype=np.int32) if column is None else column.codes[: len(usable)]
    names = [None] if column is None else column.values
    samples = []
    for code in np.unique(codes[usable]).tolist():
        rows = usable & (codes == code)
        totals = [amounts[:, rows].sum(axis=1).tolist() for amounts in (allocatable, free, lost)]
        samples.append(StrandedSample(at, names[code] or "", int(rows.sum()), *totals[0], *totals[1], *totals[2]))
    return tuple(sorted(samples, key=lambda sample: sample.pool))
