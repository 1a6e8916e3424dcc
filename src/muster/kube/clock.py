"""Time and sleep as one injected value, so that retries, leases and rotations run under a virtual clock in tests."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    def monotonic(self) -> float:
        """Seconds that never go back; for durations and deadlines."""
        ...

    def time(self) -> float:
        """Unix seconds; only for timestamps that others read and for dates that others wrote."""
        ...

    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The machine's clocks. ``sleep`` is the event loop's, so a loop with virtual time needs no other clock for it."""

    def monotonic(self) -> float:
        return time.monotonic()

    def time(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
