"""A ``FaultPlan`` carried out inside the embedded API server, where a proxy in front of it would: on Muster's requests.

Everybody else's requests pass: what the rest of the cluster does about a failing API server is not in question.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

from aiohttp import web

from muster.devcluster.server import Handler
from tests.faults.failed_answers import expired_event, failed
from tests.faults.fault_plan import (
    WRITES,
    ApiRequest,
    CutWatch,
    Delay,
    ExpireWatch,
    FaultPlan,
    LoseAnswer,
    Pass,
    Refuse,
    classify,
)
from tests.faults.simulated_network import Connection


class FaultyApiServer:
    """``around`` is what ``ApiServer`` wants to be told; harmless until it follows a plan."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._plan: FaultPlan | None = None
        self._began = 0.0
        self._attempts: Counter[tuple[str, str]] = Counter()
        self._watches: dict[Connection, None] = {}
        self.injected: Counter[str] = Counter()
        self.after_a_failed_write: Callable[[], None] | None = None
        """Called once, when a write of gangs or pods is refused or its answer lost."""

    def follow(self, plan: FaultPlan) -> None:
        """From now on requests meet the fates of this plan; its clock starts."""
        self._plan, self._began = plan, self._now()

    def cut_watches(self) -> None:
        """Every open watch of Muster ends within the line that would come next."""
        for connection in self._watches:
            self.injected["cut all watches"] += 1
            connection.lines_left = 0

    def around(self, handler: Handler) -> Handler:
        async def handle(http: web.BaseRequest) -> web.StreamResponse:
            verb, resource = classify(http.method, http.path, http.query)
            if self._plan is None or not verb or not http.headers.get("User-Agent", "").startswith("muster"):
                return await handler(http)
            attempt = self._attempts[verb, http.path]
            self._attempts[verb, http.path] += 1
            request = ApiRequest(verb, resource, http.path, attempt)
            return await self._meet(self._plan, request, http, handler)

        return handle

    async def _meet(
        self, plan: FaultPlan, request: ApiRequest, http: web.BaseRequest, handler: Handler
    ) -> web.StreamResponse:
        connection: Any = http.transport
        fate = plan.fate(request, self._now() - self._began)
        if isinstance(fate, Refuse | LoseAnswer) and request.verb in WRITES and _is_of_gangs(request.resource):
            told, self.after_a_failed_write = self.after_a_failed_write, None
            if told is not None:
                told()
        match fate:
            case Refuse(code, retry_after):
                self.injected[f"refuse {code}"] += 1
                return failed(code, retry_after)
            case LoseAnswer(code):
                await handler(http)
                self.injected["lose the answer"] += 1
                if not code:
                    connection.abort()
                return failed(500)
            case Delay(seconds, on_the_way_back):
                self.injected["delay"] += 1
                if not on_the_way_back:
                    await asyncio.sleep(seconds)
                answer = await handler(http)
                if on_the_way_back:
                    await asyncio.sleep(seconds)
                return answer
            case ExpireWatch(in_stream):
                self.injected["expire a watch"] += 1
                return expired_event() if in_stream else failed(410)
            case CutWatch(after_lines):
                self.injected["cut a watch"] += 1
                connection.lines_left = after_lines
            case Pass():
                pass
        return await (self._watch(connection, http, handler) if request.verb == "watch" else handler(http))

    async def _watch(self, connection: Connection, http: web.BaseRequest, handler: Handler) -> web.StreamResponse:
        self._watches[connection] = None
        try:
            return await handler(http)
        finally:
            self._watches.pop(connection, None)
            connection.lines_left = None


def _is_of_gangs(resource: str) -> bool:
    return resource.split("/")[0] in ("gangs", "pods")
