"""Processes of a pod: each in its own session, so that all its descendants can be found and ended (Linux).

Process groups would not do: ``tini`` and PySpark's daemon make groups of their own, but never a session.
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from muster.devcluster.spark_process import ProcessPlan

_SESSION_FIELD = 3
"""Position of the session id in ``/proc/<pid>/stat``, counted after the command's closing parenthesis (proc(5))."""


class Session:
    """A started container."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """Of the main process; also the session's id."""
        return self._process.pid

    async def wait(self) -> int:
        """Exit code of the main process as a container runtime tells it: 128 + signal for one that was killed."""
        code = await self._process.wait()
        return 128 - code if code < 0 else code

    def signal(self, number: int) -> None:
        """To the main process only, as a runtime signals a container's first process."""
        if self._process.returncode is None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL to everything in the session."""
        for pid in session_members(self.pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # ended meanwhile


async def start(plan: ProcessPlan, log: Path) -> Session:
    """Start a container's process; both its outputs are appended to ``log``. Raises ``OSError``."""
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *plan.command,
            env=plan.environment,
            cwd=plan.folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    return Session(process)


def session_members(session: int) -> list[int]:
    """The living processes of a session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue  # ended meanwhile
        if int(fields[_SESSION_FIELD]) == session and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found
