"""The extender's HTTP routes: kube-scheduler's calls, the API server's conversions, status and metrics."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Any

from aiohttp import web

from muster.control.extender.conversion import BadConversion, answer_review
from muster.control.extender.filter import Answer
from muster.control.extender.messages import BadArgs, ExtenderArgs, admitted, decode_args, refused

MAX_BYTES = 128 * 2**20
"""Of a request: thousands of whole nodes, when kube-scheduler sends objects instead of names."""

Ask = Callable[[ExtenderArgs], Answer]


def extender_app(context_path: str, ask: Ask, *, needs_client_certificate: bool = False) -> web.Application:
    """``<context>/predicates``, ``/filter`` and ``/convert``.

    ``needs_client_certificate``: calls that reserve are refused without one; conversions are not, since the API server
    presents none.
    """

    async def filter_nodes(request: web.Request) -> web.Response:
        if needs_client_certificate and not _presents_certificate(request):
            return web.Response(status=403, text="a client certificate signed by one of client-ca-files is required\n")
        try:
            args = decode_args(await request.read())
        except BadArgs as error:
            return web.Response(status=400, text=f"{error}\n")
        answer = ask(args)
        body = admitted(answer.node, args) if answer.node else refused(args.node_names, answer.message)
        return web.Response(body=body, content_type="application/json")

    app = conversion_app(context_path)
    for path in ("/predicates", "/filter"):
        app.router.add_post(context_path.rstrip("/") + path, filter_nodes)
    return app


def conversion_app(context_path: str) -> web.Application:
    """``<context>/convert`` alone."""

    async def convert(request: web.Request) -> web.Response:
        try:
            body = answer_review(await request.read())
        except BadConversion as error:
            return web.Response(status=400, text=f"{error}\n")
        return web.Response(body=body, content_type="application/json")

    app = web.Application(client_max_size=MAX_BYTES)
    app.router.add_post(context_path.rstrip("/") + "/convert", convert)
    return app


def add_status(
    app: web.Application, context_path: str, is_ready: Callable[[], str], secret: str, render: Callable[[], bytes]
) -> None:
    """``/status/liveness``, ``/readiness``, ``/health`` and ``/metrics``, with and without the context path before it.

    ``is_ready``: why not, "" when it is. ``secret``: what ``/status/health`` wants as a bearer token, "" for none.
    """

    async def liveness(request: web.Request) -> web.Response:
        return web.json_response({})

    async def readiness(request: web.Request) -> web.Response:
        why = is_ready()
        return web.json_response({"reason": why} if why else {}, status=503 if why else 200)

    async def health(request: web.Request) -> web.Response:
        given = request.headers.get("Authorization", "")
        if secret and not hmac.compare_digest(given.encode(), f"Bearer {secret}".encode()):
            return web.json_response({"error": "the health check needs the shared secret"}, status=401)
        why = is_ready()
        check: dict[str, object] = {"type": "SERVER_STATUS", "state": "ERROR" if why else "HEALTHY", "message": why}
        return web.json_response({"checks": {"SERVER_STATUS": check}}, status=503 if why else 200)

    async def metrics(request: web.Request) -> web.Response:
        return web.Response(body=render(), headers={"Content-Type": "text/plain; version=0.0.4"})

    for prefix in dict.fromkeys(("", context_path.rstrip("/"))):
        for name, handler in {"liveness": liveness, "readiness": readiness, "health": health}.items():
            app.router.add_get(f"{prefix}/status/{name}", handler)
        app.router.add_get(f"{prefix}/metrics", metrics)


def _presents_certificate(request: web.Request) -> bool:
    transport: Any = request.transport
    return transport is not None and bool(transport.get_extra_info("peercert"))
