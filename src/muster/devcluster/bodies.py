"""Request bodies: JSON or YAML, of a bounded size."""

from __future__ import annotations

from typing import Any

import msgspec
import yaml
from aiohttp import web

from muster.devcluster import protobuf
from muster.devcluster.errors import ApiError, bad_request, unsupported_media_type
from muster.devcluster.storage import Object, decode

LARGEST = 3 * 1024 * 1024  # kube-apiserver's own limit
_JSON = ("application/json", "")
_YAML = ("application/yaml", "application/apply-patch+yaml")


async def read_body(http: web.BaseRequest) -> bytes:
    """The bytes of a body. Raises 413 when there are more than 3 MiB."""
    if (http.content_length or 0) > LARGEST:
        raise _too_large()
    data = await http.read()
    if len(data) > LARGEST:
        raise _too_large()
    return data


def _too_large() -> ApiError:
    message = f"Request entity too large: limit is {LARGEST}"
    return ApiError(413, "RequestEntityTooLarge", message)


def media_type(http: web.BaseRequest) -> str:
    return http.headers.get("Content-Type", "").split(";", 1)[0].strip().lower()


def parse_object(data: bytes, media: str) -> Object:
    """An object in a body of this media type. Raises 400, 415."""
    if media == protobuf.MEDIA_TYPE:
        return protobuf.decode_object(data)
    if media not in (*_JSON, *_YAML):
        raise unsupported_media_type(media, ("application/json", "application/yaml"))
    value = parse_value(data, media)
    if not isinstance(value, dict):
        raise bad_request("the object provided is unrecognized: expected a JSON object")
    return value


def parse_value(data: bytes, media: str) -> Any:
    """Any JSON (or, where the media type says so, YAML) value. Raises 400."""
    try:
        return decode(data)
    except msgspec.DecodeError as error:
        if media not in _YAML:
            raise bad_request(f"the body of the request is not valid JSON: {error}") from None
    try:
        return yaml.safe_load(data)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise bad_request(f"the body of the request is not valid YAML: {error}") from None
