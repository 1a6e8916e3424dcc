"""The question put to a packer and its answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import repeat

import msgspec
import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Float64s = npt.NDArray[np.float64]

NO_DRIVER = -1


class Gang(msgspec.Struct, frozen=True, eq=False):
    """What is to be placed, and where it may go. R resources (cpu, memory, nvidia.com/gpu first) × N rows."""

    available: Int64s
    """[R, N] free amounts; may be negative."""
    schedulable: Int64s
    """[R, N] what a node could give to Spark when it held none of it; only efficiencies look at it."""
    driver: Int64s | None
    """[R or fewer] the driver's request; ``None`` in client mode, when the driver is nobody to place."""
    executor: Int64s
    """[R or fewer] the request of each executor."""
    count: int
    """Executors to place; 0 is allowed."""
    driver_order: Int64s
    """Rows the driver may use, most wanted first."""
    executor_order: Int64s
    """Rows executors may use, most wanted first; each at most once."""
    zones: Int64s
    """[N] zone code per row."""
    capacity: Int64s | None = None
    """[N] executors that fit per row of ``available``, when the caller knows it already (``NodeTable.capacity``)."""


class Packing(msgspec.Struct, frozen=True, eq=False):
    """Where a gang goes: ``counts[i]`` executors on ``rows[i]``; rows are distinct, in placement order."""

    driver_row: int
    """``NO_DRIVER`` in client mode."""
    rows: Int64s
    counts: Int64s
    interleaved: bool = False
    """Placed round by round, one executor per row and round; else each row is filled before the next."""

    def runs(self) -> Iterator[tuple[int, int]]:
        """(row, how many in a row) in the order in which single executors were placed."""
        rows, counts = self.rows.tolist(), self.counts.tolist()
        if not self.interleaved:
            yield from zip(rows, counts, strict=True)
            return
        left = list(zip(rows, counts, strict=True))
        while len(left) > 1:
            yield from zip((row for row, _ in left), repeat(1))
            left = [(row, count - 1) for row, count in left if count > 1]
        yield from left


Pack = Callable[[Gang], Packing | None]
"""A packer: ``None`` when the gang does not fit as a whole."""

Place = Callable[[Int64s, int], tuple[Int64s, Int64s]]
"""(capacities [M] in order, k ≤ their sum) -> (positions, executors on each) in placement order."""


class UnknownPackerError(ValueError):
    """A packer's name that is none."""

    def __init__(self, name: str, allowed: tuple[str, ...]) -> None:
        self.name = name
        self.allowed = allowed
        super().__init__(f'there is no packer "{name}"; allowed are {", ".join(allowed)}')
