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
    wanted = vector.tolist()
    result: Int64s | None = None
    for amounts, required in zip(available, wanted, strict=False):
        if required > 0:
            fit = amounts // required
            result = fit if result is None else np.minimum(result, fit, out=result)
    if result is None:
        result = np.full(available.shape[1], UNLIMITED, dtype=np.int64)
    np.maximum(result, 0, out=result)
    # Divided amounts are 0 when overdrawn already; nearly always nothing is overdrawn at all.
    if available.size and available.min() < 0:
        result[(available < 0).any(axis=0)] = 0
    return result
