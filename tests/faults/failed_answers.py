"""Failures as an API server tells them, for those who make it fail."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

_REASONS = {
    409: "Conflict",
    410: "Expired",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
}


def _failure(code: int) -> dict[str, Any]:
    """A ``Status`` as the API server makes it."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "made to fail",
        "reason": _REASONS[code],
        "code": code,
    }


def failed(code: int, retry_after: int | None = None) -> web.Response:
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return web.json_response(_failure(code), status=code, headers=headers)


def expired_event() -> web.Response:
    line = json.dumps({"type": "ERROR", "object": _failure(410)}) + "\n"
    return web.Response(text=line, content_type="application/json")
