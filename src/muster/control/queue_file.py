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

    The content is compared, not the time of its change: a mounted ConfigMap is a link that is replaced. A file that is
    not there says nothing, as an optional ConfigMap that nobody has made.
    """

    def __init__(self, path: Path) -> None:
        """Raises ``ConfigError`` with everything that is wrong: nothing has been in force yet."""
        self._path = path
        self._text = self._content()
        self._listeners: list[Callable[[], None]] = []
        self.ok = True
        """Whether what is in force is what the file says."""
        try:
            self.documents = read_queues(self._text, str(path))
        except QueueDocumentError as error:
            raise ConfigError("\n".join(error.problems)) from None

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """``listener`` is called after each change, good or bad. Returns what ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def follow(self, interval: float) -> None:
        """Look every ``interval`` seconds, until cancelled."""
        while True:
            await asyncio.sleep(interval)
            try:
                text = self._content()
            except ConfigError as error:
                if self.ok:
                    self._tell(False, str(error))
                continue
            if text != self._text:
                self._text = text
                await self._read(text)

    async def _read(self, text: str) -> None:
        try:
            # in a thread, since hundreds of queues take a while and reviews have to be answered
            self.documents = await asyncio.to_thread(read_queues, text, str(self._path))
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

    def _content(self) -> str:
        try:
            return self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{self._path}: cannot be read: {error}") from None
