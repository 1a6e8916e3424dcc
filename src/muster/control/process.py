"""How the process of the service runs: its event loop, its garbage collector and its memory, set for short pauses."""

from __future__ import annotations

import asyncio
import ctypes
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


_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1
"""Parameters of glibc's ``mallopt(3)``."""


def keep_large_blocks() -> None:
    """Large requests and answers are put where the last ones were.

    glibc gives blocks of more than 128 kB back to the kernel, and each new one is mapped page by page: for an answer of
    half a megabyte that takes three times as long as to write it. Does nothing with another C library.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 32 * 2**20)
        mallopt(_TRIM_THRESHOLD, 64 * 2**20)
