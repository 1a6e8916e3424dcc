"""How fast virtual time runs: virtual kubelets and virtual Spark count virtual seconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


class Pace:
    """Virtual seconds from a monotonic clock; ``speed`` 60 makes a virtual minute last one real second."""

    def __init__(self, speed: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        if speed <= 0:
            raise ValueError(f"speed must be above 0, got {speed}")
        self.speed = speed
        self._clock = clock
        self._zero = clock()

    def now(self) -> float:
        """Virtual seconds since this pace was made."""
        return (self._clock() - self._zero) * self.speed

    def real(self, seconds: float) -> float:
        """How many real seconds ``seconds`` of virtual time last."""
        return seconds / self.speed

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(self.real(seconds))
