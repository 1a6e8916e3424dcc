"""The one way in which a call to the API fails."""

from __future__ import annotations

import msgspec

from muster.kube.objects import Status

UNREACHABLE = "Unreachable"
"""``reason`` when no answer came at all (connection refused, reset, timed out); the code is then 0."""
SILENT = "Silent"
"""``reason`` when an open watch has told nothing for as long as it may; the code is then 0."""

_TRANSIENT = frozenset({0, 408, 429, 500, 502, 503, 504})


class ApiError(Exception):
    """A call that failed, as the API's ``Status`` tells it. ``str()`` names the call and what the server said."""

    def __init__(
        self, call: str, code: int, reason: str, message: str, retry_after: float | None = None, *, sent: bool = True
    ) -> None:
        super().__init__(f"{call}: {code or 'no answer'} {reason}: {message}".rstrip(": "))
        self.call = call
        """Verb and path, e.g. ``PATCH /api/v1/namespaces/a/pods/b``; never a body, header or query."""
        self.code = code
        self.reason = reason
        self.message = message
        self.retry_after = retry_after
        """Seconds the server asks to wait, if it does."""
        self.sent = sent
        """False when no connection could be made, so the server has seen nothing of the call."""

    @property
    def not_found(self) -> bool:
        return self.code == 404

    @property
    def already_exists(self) -> bool:
        """A create of a name that is taken (possibly by an earlier attempt of the same call)."""
        return self.code == 409 and self.reason == "AlreadyExists"

    @property
    def conflict(self) -> bool:
        """The object has changed since it was read, or a precondition does not hold."""
        return self.code == 409 and self.reason != "AlreadyExists"

    @property
    def expired(self) -> bool:
        """The resourceVersion or continue token is too old."""
        return self.code == 410

    @property
    def transient(self) -> bool:
        """It says nothing about the object: the server was away, overloaded or failing."""
        return self.code in _TRANSIENT

    @property
    def unreachable(self) -> bool:
        return self.code == 0


def error_from_answer(call: str, code: int, body: bytes, retry_after: str | None) -> ApiError:
    """From an HTTP answer: the ``Status`` in the body if there is one, else a piece of the text."""
    seconds = _seconds(retry_after)
    try:
        status = msgspec.json.decode(body, type=Status)
    except msgspec.MsgspecError:
        return ApiError(call, code, "", body[:200].decode("utf-8", "replace").strip(), seconds)
    if seconds is None and status.details is not None and status.details.retry_after_seconds > 0:
        seconds = float(status.details.retry_after_seconds)
    return ApiError(call, code, status.reason, status.message, seconds)


def error_from_status(call: str, status: Status) -> ApiError:
    """From the object of a watch event of type ``ERROR``."""
    seconds = status.details.retry_after_seconds if status.details is not None else 0
    return ApiError(call, status.code or 500, status.reason, status.message, float(seconds) if seconds > 0 else None)


def _seconds(retry_after: str | None) -> float | None:
    """The API server sends whole seconds only (never the date form of RFC 9110)."""
    return float(retry_after) if retry_after is not None and retry_after.isdigit() else None
