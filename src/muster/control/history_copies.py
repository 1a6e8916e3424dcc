"""Copies what other replicas have recorded, so that a new leader, or a new pod, knows the earlier runs.

Over their Service: each round is one connection, and so one replica, whichever the Service picks.
"""

from __future__ import annotations

import asyncio

import aiohttp
import msgspec
import structlog

from muster.history.archive import Archive
from muster.history.queries import Page
from muster.history.store import StoreError

_log = structlog.get_logger("muster.history")

ROUND_S = 60.0
_TIMEOUT_S = 10.0
_BEYOND = 10**17
"""After the last entry of any file: asked for to learn who answers."""


class HistoryCopies:
    """``run`` it until it is cancelled. Nothing that goes wrong here ends it, and each kind of trouble is told once."""

    def __init__(self, archive: Archive, url: str) -> None:
        self._archive = archive
        self._url = url.rstrip("/") + "/history/entries"
        self._trouble = ""

    async def run(self) -> None:
        while True:
            await self.round()
            await asyncio.sleep(ROUND_S)

    async def round(self) -> int:
        """Copy everything that one other replica has and this one has not; returns how many applications were new."""
        try:
            copied = await self._copy()
        except (aiohttp.ClientError, TimeoutError, StoreError, msgspec.MsgspecError) as error:
            trouble = type(error).__name__
            if trouble != self._trouble:
                _log.warning(
                    "the history of other replicas is not copied now", url=self._url, error=str(error) or trouble
                )
            self._trouble = trouble
            return 0
        self._trouble = ""
        if copied:
            _log.info("history copied from another replica", applications=copied)
        return copied

    async def _copy(self) -> int:
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        connector = aiohttp.TCPConnector(limit=1)  # kept alive, so that all pages come from one replica
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as http:
            origin = (await self._page(http, _BEYOND)).origin
            after = await self._archive.copied(origin)
            copied = 0
            while after is not None:
                page = await self._page(http, after)
                if page.origin != origin or not page.applications:
                    break  # another one answers now (the next round is his), or that was all
                copied += await self._archive.copy(page)
                after = page.last
            return copied

    async def _page(self, http: aiohttp.ClientSession, after: int) -> Page:
        async with http.get(self._url, params={"after": str(after)}) as answer:
            answer.raise_for_status()
            return msgspec.json.decode(await answer.read(), type=Page)
