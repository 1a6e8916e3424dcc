"""How many whole pods of one size fit: the number that every packing decision rests on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]

UNLIMITED = np.iinfo(np.int64).max
"""Capacity for a pod that asks for nothing."""


def capacities(available: Int64s, vector: Int64s) -> Int64s:
    """[N] pods of size ``vector`` [R] that fit in ``available`` [R, N]; 0 where any amount is overdrawn.

    Source: ``GetNodeCapacity`` of palantir/k8s-spark-scheduler-lib: the minimum over resources of the floor division,
    no limit from a resource that is not asked for, nothing on a node that is over-reserved in any resource.
    """
    required_amounts = vector.tolist() + [0] * (len(available) - len(vector))
    result: Int64s | None = None
    overdrawn: npt.NDArray[np.bool_] | None = None
    for amounts, required in zip(available, required_amounts, strict=True):
        if required > 0:
            fit = amounts // required
            result = fit if result is None else np.minimum(result, fit, out=result)
        elif amounts.size and amounts.min() < 0:
            negative = amounts < 0
            overdrawn = negative if overdrawn is None else overdrawn | negative
    if result is None:
        result = np.full(available.shape[1], UNLIMITED, dtype=np.int64)
    np.maximum(result, 0, out=result)
    if overdrawn is not None:
        result[overdrawn] = 0
    return result
