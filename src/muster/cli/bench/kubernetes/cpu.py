"""CPU time of other processes (Linux, ``/proc/PID/stat``)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

_UTIME, _STIME = 11, 12
"""Positions counted after the command's closing parenthesis (proc(5))."""
_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and all its threads so far. Raises ``OSError`` when there is none."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return (int(fields[_UTIME]) + int(fields[_STIME])) / _TICKS


def snapshot(processes: Mapping[str, int]) -> dict[str, float]:
    """Of each process by name; ``processes`` maps names to process ids."""
    return {name: cpu_seconds(pid) for name, pid in processes.items()}


def spent(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    return {name: round(after[name] - before[name], 2) for name in before}
