"""How the process of the service runs: its event loop and its garbage collector, both set for short pauses."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable

GC_THRESHOLDS = (10_000, 20, 100)
"""Objects that outlive their birth before a young collection (under 1 ms), then young ones per middle one, and so on.

Python's own 700 makes collections of the whole heap while 100,000 pods are read, each longer than the last; what was
read is frozen afterwards (``Controller``).
"""


def event_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's when it is installed (extra ``uvloop``): TLS and timers in C; ``None`` is Python's own."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def keep_collections_short() -> None:
    gc.set_threshold(*GC_THRESHOLDS)
