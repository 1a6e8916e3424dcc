"""``queues.yaml`` on disk: read at the start, and again whenever its content changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import structlog

from muster.control.documents import ConfigError
from muster.control.queue_documents import QueueDocumentError, read_queues

_log = structlog.get_logger("muster.queues")


class QueueFile:
    """A file with mistakes changes nothing: they are logged once, and the last good content stays in force.

    The content is compared, not the time of its change: a mounted ConfigMap is a link that is replaced. What has
    changed counts when the next look finds the same: others write files bit by bit. A file that is not there says
    nothing, as an optional ConfigMap that nobody has made.
    """

    def __init__(self, path: Path) -> None:
        """Raises ``ConfigError`` with everything that is wrong: nothing has been in force yet."""
        self._path = path
        self._listeners: list[Callable[[], None]] = []
        self.ok = True
        """Whether what is in force is what the file says."""
        self._seen = self._considered = _content(path)
        if isinstance(self._seen, ConfigError):
            raise self._seen
        try:
            self.documents = read_queues(self._seen, str(path))
        except QueueDocumentError as error:
            raise ConfigError(str(error)) from None

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """``listener`` is called after each change, good or bad. Returns what ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def follow(self, interval: float) -> None:
        """Look every ``interval`` seconds, until cancelled."""
        while True:
            await asyncio.sleep(interval)
            before, self._seen = self._seen, _content(self._path)
            if _same(self._seen, before) and not _same(self._seen, self._considered):
                self._considered = self._seen
                await self._consider(self._seen)

    async def _consider(self, content: str | ConfigError) -> None:
        if isinstance(content, ConfigError):
            self._tell(False, str(content))
            return
        try:
            # in a thread, since hundreds of queues take a while and reviews have to be answered
            self.documents = await asyncio.to_thread(read_queues, content, str(self._path))
        except QueueDocumentError as error:
            self._tell(False, *error.problems)
        else:
            _log.info("queues.yaml read", file=str(self._path), queues=len(self.documents.queues))
            self._tell(True)

    def _tell(self, ok: bool, *problems: str) -> None:
        self.ok = ok
        if not ok:
            _log.error("queues.yaml not used; what it said before stays in force", problems=problems)
        for listener in list(self._listeners):
            listener()


def _content(path: Path) -> str | ConfigError:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        return ConfigError(f"{path}: cannot be read: {error}")


def _same(one: str | ConfigError, other: str | ConfigError) -> bool:
    return type(one) is type(other) and str(one) == str(other)
