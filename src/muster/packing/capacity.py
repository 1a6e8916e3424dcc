"""Capacities of the rows in question, before and after a driver takes its share."""

from __future__ import annotations

from muster.cluster.capacity import UNLIMITED, capacities
from muster.packing.model import Bools, Gang, Int64s


def in_order(gang: Gang, rows: Int64s) -> Int64s:
    """[M] executors that fit on each of ``rows``; a copy the caller may change."""
    if gang.capacity is not None:
        return gang.capacity.take(rows)
    return capacities(gang.available[:, rows], gang.executor)


def beside_driver(gang: Gang, driver: Int64s, rows: Int64s) -> Int64s:
    """[M] executors that still fit on each of ``rows`` when the driver is there."""
    left = gang.available[:, rows]
    left[: len(driver)] -= driver[:, None]
    return capacities(left, gang.executor)


def beside_driver_on(gang: Gang, driver: Int64s, row: int) -> int:
    """``beside_driver`` for one row: ten times as fast without arrays."""
    left = gang.available[:, row].tolist()
    for dimension, amount in enumerate(driver.tolist()):
        left[dimension] -= amount
    if min(left) < 0:
        return 0
    return min((left[at] // asked for at, asked in enumerate(gang.executor.tolist()) if asked > 0), default=UNLIMITED)


def room_for(gang: Gang, driver: Int64s) -> Bools:
    """[N] rows that have room for the driver."""
    fits: Bools = gang.available[0] >= driver[0]
    wanted = driver.tolist() + [0] * (len(gang.available) - len(driver))
    for amounts, required in zip(gang.available[1:], wanted[1:], strict=True):
        fits &= amounts >= required
    return fits


__all__ = ["UNLIMITED", "beside_driver", "beside_driver_on", "capacities", "in_order", "room_for"]
