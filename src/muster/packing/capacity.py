"""Capacities of the rows in question, before and after a driver takes its share."""

from __future__ import annotations

import numpy as np

from muster.cluster.capacity import UNLIMITED, capacities
from muster.packing.model import Gang, Int64s


def in_order(gang: Gang, rows: Int64s) -> Int64s:
    """[M] executors that fit on each of ``rows``; a copy the caller may change."""
    if gang.capacity is not None:
        return gang.capacity.take(rows)
    return capacities(gang.available.take(rows, axis=1), gang.executor)


def beside_driver(gang: Gang, driver: Int64s, rows: Int64s) -> Int64s:
    """[M] executors that still fit on each of ``rows`` when the driver is there."""
    left = gang.available.take(rows, axis=1)
    left[: len(driver)] -= driver[:, None]
    return capacities(left, gang.executor)


def driver_rows(gang: Gang, driver: Int64s, rows: Int64s) -> Int64s:
    """Those of ``rows`` that have room for the driver, in order."""
    fits = np.ones(len(rows), dtype=np.bool_)
    amounts_wanted = driver.tolist() + [0] * (len(gang.available) - len(driver))
    for amounts, wanted in zip(gang.available, amounts_wanted, strict=True):
        fits &= amounts.take(rows) >= wanted
    return rows[fits]


__all__ = ["UNLIMITED", "beside_driver", "capacities", "driver_rows", "in_order"]
