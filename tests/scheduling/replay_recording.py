"""Plays a recording (standard input) to a new scheduler and prints what it answers: run as a process of its own."""

from __future__ import annotations

import sys

from muster.scheduling import recording
from muster.scheduling.config import SchedulerConfig
from muster.scheduling.scheduler import Scheduler

if __name__ == "__main__":
    entries = recording.decode(sys.stdin.buffer)
    inputs = [entry for entry in entries if not isinstance(entry, recording.Output)]
    for answer in recording.replay(Scheduler(SchedulerConfig(packer=sys.argv[1])), inputs):
        sys.stdout.buffer.write(recording.encode(answer) + b"\n")
