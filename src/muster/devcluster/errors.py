"""Failures as the Kubernetes API says them: a ``Status`` object with reason, code, details and causes.

Source: apimachinery ``pkg/api/errors/errors.go``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec


class Cause(msgspec.Struct, frozen=True):
    """One thing that is wrong with an object: ``reason`` is a ``FieldValue…`` word, ``field`` a dotted path."""

    reason: str
    message: str
    field: str


class ApiError(Exception):
    """A request that failed; ``status`` is the body that goes to the client."""

    def __init__(
        self, code: int, reason: str, message: str, *, details: dict[str, Any] | None = None, retry_after: int = 0
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        self.retry_after = retry_after

    @property
    def status(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            body["reason"] = self.reason
        if self.details:
            body["details"] = self.details
        body["code"] = self.code
        return body


def qualified(plural: str, group: str) -> str:
    """``pods`` or ``gangs.muster.dev``: how error messages name a resource."""
    return f"{plural}.{group}" if group else plural


def _details(group: str, kind: str, name: str) -> dict[str, Any]:
    details = {"name": name, "group": group, "kind": kind}
    return {key: value for key, value in details.items() if value}


def not_found(plural: str, group: str, name: str) -> ApiError:
    message = f'{qualified(plural, group)} "{name}" not found'
    return ApiError(404, "NotFound", message, details=_details(group, plural, name))


def no_such_path() -> ApiError:
    return ApiError(404, "NotFound", "the server could not find the requested resource")


def already_exists(plural: str, group: str, name: str) -> ApiError:
    message = f'{qualified(plural, group)} "{name}" already exists'
    return ApiError(409, "AlreadyExists", message, details=_details(group, plural, name))


def conflict(plural: str, group: str, name: str, why: str, causes: Sequence[Cause] = ()) -> ApiError:
    message = f'Operation cannot be fulfilled on {qualified(plural, group)} "{name}": {why}'
    details = _details(group, plural, name)
    if causes:
        details["causes"] = [msgspec.structs.asdict(cause) for cause in causes]
    return ApiError(409, "Conflict", message, details=details)


def stale(plural: str, group: str, name: str) -> ApiError:
    why = "the object has been modified; please apply your changes to the latest version and try again"
    return conflict(plural, group, name, why)


def apply_conflict(plural: str, group: str, name: str, causes: Sequence[Cause]) -> ApiError:
    """Server-side apply meets fields of other managers."""
    lines = "".join(f"\n- {cause.field}" for cause in causes)
    count = f"{len(causes)} conflict{'s' if len(causes) > 1 else ''}"
    details = _details(group, plural, name) | {"causes": [msgspec.structs.asdict(cause) for cause in causes]}
    return ApiError(409, "Conflict", f"Apply failed with {count}: {causes[0].message}:{lines}", details=details)


def invalid(kind: str, group: str, name: str, causes: Sequence[Cause]) -> ApiError:
    said = [f"{cause.field}: {cause.message}" for cause in causes]
    text = said[0] if len(said) == 1 else "[" + ", ".join(said) + "]"
    details = _details(group, kind, name) | {"causes": [msgspec.structs.asdict(cause) for cause in causes]}
    return ApiError(422, "Invalid", f'{qualified(kind, group)} "{name}" is invalid: {text}', details=details)


def forbidden(plural: str, group: str, name: str, why: str, causes: Sequence[Cause] = ()) -> ApiError:
    details = _details(group, plural, name)
    if causes:
        details["causes"] = [msgspec.structs.asdict(cause) for cause in causes]
    return ApiError(403, "Forbidden", f'{qualified(plural, group)} "{name}" is forbidden: {why}', details=details)


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def unauthorized() -> ApiError:
    return ApiError(401, "Unauthorized", "Unauthorized")


def expired(message: str) -> ApiError:
    return ApiError(410, "Expired", message)


def too_old(version: int, oldest: int) -> ApiError:
    return expired(f"too old resource version: {version} ({oldest})")


def method_not_supported(plural: str, group: str, verb: str) -> ApiError:
    message = f'{verb} is not supported on resources of kind "{qualified(plural, group)}"'
    return ApiError(405, "MethodNotAllowed", message, details=_details(group, plural, ""))


def unsupported_media_type(got: str, accepted: Sequence[str]) -> ApiError:
    message = f"the body of the request was in an unknown format ({got}) - accepted media types include: "
    return ApiError(415, "UnsupportedMediaType", message + ", ".join(accepted))


def internal(message: str) -> ApiError:
    text = f"Internal error occurred: {message}"
    return ApiError(500, "InternalError", text, details={"causes": [{"message": message}]})
