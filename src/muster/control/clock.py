"""Time as the scheduler wants it: seconds since the epoch that never go back."""

from __future__ import annotations

import time
from collections.abc import Callable


class Clock:
    """Wall-clock seconds, held back when the system clock is set back: event times must never decrease."""

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self._latest = 0.0

    def __call__(self) -> float:
        self._latest = max(self._latest, self._wall())
        return self._latest
