"""The history as the service uses it: rows are handed over on the event loop and written by one thread beside it.

Nothing here ever blocks the loop or raises for a store that fails: what cannot be written waits, up to a bound, and is
then dropped and counted; the trouble is told once, and once more when it is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import msgspec

from muster.history.estimates import Estimator, Run, Shape
from muster.history.queries import By, Page, Query, Summary
from muster.history.records import FinishedApplication, StrandedSample
from muster.history.store import DamagedStore, RowRefused, Store, StoreError, set_aside

T = TypeVar("T")

MOST_PENDING = 2000
"""Rows that wait to be written, at most."""
WRITTEN_AT_ONCE = 200
RETRY_S = 30.0
"""Until a failed write is tried again."""
RUNS_LOADED = 20_000
"""Of the newest applications, for the estimates."""


class Archive:
    """Open for as long as the service runs. All methods are for its event loop."""

    def __init__(
        self,
        path: Path,
        *,
        keep_days: float,
        keep_applications: int,
        notice: Callable[[str], None],
        written: Callable[[int], None] = lambda count: None,
        dropped: Callable[[int], None] = lambda count: None,
    ) -> None:
        """``notice`` is told of trouble; ``written`` and ``dropped`` count applications and samples."""
        self.path = path
        self.estimator = Estimator()
        """Knows the earlier runs once ``start`` has been awaited or the store has answered for the first time."""
        self._keep_days = keep_days
        self._keep_applications = keep_applications
        self._notice = notice
        self._written = written
        self._dropped = dropped
        self._applications: list[FinishedApplication] = []
        self._samples: list[StrandedSample] = []
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="history")
        self._store: Store | None = None
        self._loaded = False
        self._working: asyncio.Task[None] | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._trouble = ""
        self._lost = 0

    def start(self) -> None:
        """Begin to open the file and to read what the estimates need."""
        self._work()

    def record(self, application: FinishedApplication) -> None:
        """Keep it, soon; the estimates know it at once."""
        self._learn(application)
        self._hand_over(self._applications, application)

    def sample(self, sample: StrandedSample) -> None:
        self._hand_over(self._samples, sample)

    async def applications(self, query: Query, *, timelines: bool = False) -> list[FinishedApplication]:
        """Raises ``StoreError``."""
        return await self._ask(lambda store: store.applications(query, timelines=timelines))

    async def summary(self, by: By, query: Query) -> list[Summary]:
        """Raises ``StoreError``."""
        return await self._ask(lambda store: store.summary(by, query))

    async def page(self, after: int, limit: int) -> bytes:
        """A ``Page`` for another replica, as JSON. Raises ``StoreError``."""
        return await self._ask(lambda store: msgspec.json.encode(store.page(after, limit)))

    async def copied(self, origin: str) -> int | None:
        """How far the file ``origin`` has been copied; ``None`` when it is this one. Raises ``StoreError``."""
        return await self._ask(lambda store: None if origin == store.origin else store.copied(origin))

    async def copy(self, page: Page) -> int:
        """Keep what another replica has, and learn from it; returns how many were new. Raises ``StoreError``."""
        new = await self._ask(lambda store: store.copy(page))
        for application in new:
            self._learn(application)
        return len(new)

    async def settled(self) -> None:
        """Wait until what was handed over is written, or could not be."""
        while self._working is not None and not self._working.done():
            await asyncio.wait([self._working])

    async def close(self, timeout: float) -> None:
        """Write what waits and close the file, for ``timeout`` seconds at most."""
        if self._retry is not None:
            self._retry.cancel()
        if self._applications or self._samples:
            self._work()
        try:
            async with asyncio.timeout(timeout):
                await self.settled()
                await asyncio.get_running_loop().run_in_executor(self._thread, self._close_store)
        except TimeoutError:
            self._notice(f"{self.path}: stopped before {len(self._applications)} applications were written")
        for task in (self._retry, self._working):
            if task is not None:
                task.cancel()
        if self._working is not None:
            await asyncio.gather(self._working, return_exceptions=True)
        self._thread.shutdown(wait=False)

    def _hand_over(self, pending: list[T], one: T) -> None:
        if len(self._applications) + len(self._samples) >= MOST_PENDING:
            self._lose(1)
            return
        pending.append(one)
        if self._retry is None:
            self._work()

    def _lose(self, count: int) -> None:
        self._lost += count
        self._dropped(count)

    def _learn(self, application: FinishedApplication) -> None:
        ran = application.run_seconds
        if ran is not None and application.is_sample:
            executor = application.executor
            shape = Shape(executor.cpu, executor.memory, application.minimum)
            self.estimator.add(application.namespace, application.name, Run(shape, ran))

    def _work(self) -> None:
        self._retry = None
        if self._working is None or self._working.done():
            self._working = asyncio.get_running_loop().create_task(self._drain(), name="history")

    async def _drain(self) -> None:
        """Hand everything that waits to the thread, batch by batch."""
        loop = asyncio.get_running_loop()
        try:
            if not self._loaded:
                self._adopt(await loop.run_in_executor(self._thread, self._load))
            while self._applications or self._samples:
                applications = self._applications[:WRITTEN_AT_ONCE]
                samples = self._samples[:WRITTEN_AT_ONCE]
                try:
                    await loop.run_in_executor(self._thread, self._write, applications, samples)
                    self._written(len(applications) + len(samples))
                    self._well()
                except RowRefused as error:
                    self._lose(len(applications) + len(samples))
                    self._notice(f"{len(applications) + len(samples)} entries of the history cannot be kept: {error}")
                del self._applications[: len(applications)]
                del self._samples[: len(samples)]
        except StoreError as error:
            self._ill(error)
            self._retry = loop.call_later(RETRY_S, self._work)

    def _adopt(self, loaded: Estimator) -> None:
        """Runs that ended meanwhile wait to be written: they come after those that were read."""
        self._loaded = True
        self.estimator = loaded
        for application in self._applications:
            self._learn(application)

    def _well(self) -> None:
        if self._trouble:
            self._notice(f"history is written again; {self._lost} entries were lost")
            self._trouble, self._lost = "", 0

    def _ill(self, error: StoreError) -> None:
        if not self._trouble:
            self._notice(
                f"history is not written now: {error}. Scheduling goes on without it; up to {MOST_PENDING} entries "
                f"wait, tried again every {RETRY_S:.0f} s"
            )
        self._trouble = str(error)

    async def _ask(self, question: Callable[[Store], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._answer, question)

    # In the thread

    def _opened(self) -> Store:
        if self._store is None:
            try:
                self._store = self._open()
            except DamagedStore as error:
                self._begin_anew(error)
                self._store = self._open()
        return self._store

    def _open(self) -> Store:
        return Store(self.path, keep_days=self._keep_days, keep_applications=self._keep_applications)

    def _begin_anew(self, error: DamagedStore) -> None:
        self._close_store()
        kept = set_aside(self.path)
        self._notice(f"the history was damaged ({error}) and is begun anew; the damaged file is kept as {kept}")

    def _close_store(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            store.close()

    def _answer(self, question: Callable[[Store], T]) -> T:
        try:
            return question(self._opened())
        except DamagedStore as error:
            self._begin_anew(error)
            return question(self._opened())
        except RowRefused:
            raise
        except StoreError:
            self._close_store()  # opened anew next time: the disk may be back, the file another one
            raise

    def _write(self, applications: Sequence[FinishedApplication], samples: Sequence[StrandedSample]) -> None:
        self._answer(lambda store: store.add(applications, samples))

    def _load(self) -> Estimator:
        estimator = Estimator()
        for namespace, name, run in self._answer(lambda store: store.runs(RUNS_LOADED)):
            estimator.add(namespace, name, run)
        return estimator
