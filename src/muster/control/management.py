"""Health, metrics and the read API, on a port of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from muster.control import history_api
from muster.control.why_in_words import in_words
from muster.history.store import StoreError

if TYPE_CHECKING:
    from muster.control.controller import Controller
    from muster.control.serve import Service

_SHOWN = 20
_LONGEST_NAME = 253


def management_app(service: Service) -> web.Application:
    """``/healthz`` (alive), ``/readyz`` (answers reviews), ``/metrics``, ``/applications/NAMESPACE/APPLICATION/why``
    (or ``/why?application=NAMESPACE/APPLICATION``; ``?output=text|wide``), ``/queues``, ``/queues/NAME``,
    ``/history?namespace=…&queue=…&user=…&name=…&application=…&since=…&limit=…&sort=…&summary=…``."""

    async def healthz(request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(request: web.Request) -> web.Response:
        if service.stopping:
            return web.Response(status=503, text="stopping\n")
        if service.election.is_leader():
            controller = service.controller
            if controller is None or not controller.synced.is_set():
                return web.Response(status=503, text="leading, but the state of the cluster is still being read\n")
        return web.Response(text="ok\n")

    async def metrics(request: web.Request) -> web.Response:
        return web.Response(body=service.metrics.render(), headers={"Content-Type": "text/plain; version=0.0.4"})

    def deciding() -> Controller | None:
        controller = service.controller
        knows = controller is not None and controller.synced.is_set() and service.election.is_leader()
        return controller if knows else None

    async def queues(request: web.Request) -> web.Response:
        controller = deciding()
        if controller is None:
            return _elsewhere(service)
        answer = {"queues": controller.scheduler.queues(), "problems": controller.queue_problems}
        return web.Response(body=msgspec.json.encode(answer), content_type="application/json")

    async def queue(request: web.Request) -> web.Response:
        name = request.match_info["name"]
        controller = deciding()
        if controller is None:
            return _elsewhere(service)
        details = controller.scheduler.queue(name)
        problem = controller.queue_problems.get(name, "")
        if details is None:
            known = ", ".join(one.name for one in controller.scheduler.queues()[:_SHOWN])
            why = f"it is not in force: {problem}" if problem else f"there are {known}"
            return _error(404, f'there is no queue "{name[:_LONGEST_NAME]}"; {why}')
        answer = msgspec.to_builtins(details) | {"problem": problem}
        return web.Response(body=msgspec.json.encode(answer), content_type="application/json")

    async def why(request: web.Request) -> web.Response:
        key = "/".join(request.match_info.values()) or request.query.get("application", "")
        if "/" not in key:
            return _error(400, "application must be NAMESPACE/APPLICATION-ID, e.g. team-a/spark-0123…")
        output = request.query.get("output", "json")
        if output not in ("json", "text", "wide"):
            return _error(400, f"output={output[:_SHOWN]!r}: allowed are json, text and wide")
        controller = deciding()
        if controller is None:
            return _elsewhere(service)
        explanation = controller.explain(key)
        if explanation is None:
            return _error(404, f"no application {key} is known; its driver may have ended or may not be Spark's")
        if output != "json":
            name = explanation.name or explanation.application
            lines = in_words(explanation, name, wide=output == "wide")
            return web.Response(text="\n".join(lines) + "\n")
        return web.Response(body=msgspec.json.encode(explanation), content_type="application/json")

    async def history(request: web.Request) -> web.Response:
        if service.history is None:
            return _error(404, "no history is kept: history.path is not set in muster.yaml")
        try:
            asked = history_api.asked_from(request.query)
            body = await history_api.answer(service.history, asked, records=service.election.is_leader())
        except history_api.BadQuery as error:
            return _error(400, str(error))
        except StoreError as error:
            return _error(503, f"the history cannot be read now: {error}")
        return web.Response(body=body, content_type="application/json")

    async def entries(request: web.Request) -> web.Response:
        if service.history is None:
            return _error(404, "no history is kept: history.path is not set in muster.yaml")
        try:
            body = await service.history.page(history_api.after_from(request.query), history_api.PAGE)
        except history_api.BadQuery as error:
            return _error(400, str(error))
        except StoreError as error:
            return _error(503, f"the history cannot be read now: {error}")
        return web.Response(body=body, content_type="application/json")

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/why", why)
    app.router.add_get("/applications/{namespace}/{id}/why", why)
    app.router.add_get("/queues", queues)
    app.router.add_get("/queues/{name}", queue)
    app.router.add_get("/history", history)
    app.router.add_get("/history/entries", entries)
    return app


def _elsewhere(service: Service) -> web.Response:
    return _error(503, f"this replica does not decide; the lease is held by {service.election.holder or 'nobody'}")


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"error": message}, status=status)
