"""Which rows changed since when, so that what is derived from rows is repaired there and nowhere else."""

from __future__ import annotations

from copy import copy

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]

_KEPT = 4096


class ChangeLog:
    """Row numbers in the order they changed; only the latest few thousand are remembered."""

    def __init__(self) -> None:
        self.head = 0
        """How many changes there were ever: the position a reader notes when it is up to date."""
        self._rows = np.empty(2 * _KEPT, dtype=np.int64)
        self._filled = 0

    def copy(self) -> ChangeLog:
        other = copy(self)
        other._rows = self._rows.copy()
        return other

    def note(self, row: int) -> None:
        if self._filled == len(self._rows):
            self._forget()
        self._rows[self._filled] = row
        self._filled += 1
        self.head += 1

    def note_many(self, rows: Int64s) -> None:
        count = len(rows)
        if self._filled + count > len(self._rows):
            self._forget()
        if count > _KEPT:
            # Whoever is behind by this much starts anew: forgetting it all says so.
            self._filled = 0
        else:
            self._rows[self._filled : self._filled + count] = rows
            self._filled += count
        self.head += count

    def since(self, position: int) -> Int64s | None:
        """The rows changed after ``position`` (some perhaps twice), or ``None`` when that is too long ago."""
        behind = self.head - position
        if behind > self._filled:
            return None
        return self._rows[self._filled - behind : self._filled]

    def _forget(self) -> None:
        kept = min(self._filled, _KEPT)
        self._rows[:kept] = self._rows[self._filled - kept : self._filled].copy()
        self._filled = kept
