"""LIST: selection, consistency, pages. Source: Kubernetes API concepts, "Retrieving large results sets in chunks"."""

from __future__ import annotations

import base64
import binascii
from bisect import bisect_right

import msgspec

from muster.devcluster.errors import ApiError, Cause, bad_request, expired, invalid
from muster.devcluster.requests import Request
from muster.devcluster.selectors import Selector, parse_fields, parse_labels
from muster.devcluster.storage import Record, Store


class Page(msgspec.Struct, frozen=True):
    """Records of one page, the version they are of, and how to go on (empty at the end)."""

    records: list[Record]
    version: int
    token: str = ""
    remaining: int | None = None


class _Token(msgspec.Struct, frozen=True):
    v: int
    after: tuple[str, str]


def selector_of(request: Request) -> Selector:
    """The request's selector. Raises 400 when it cannot be parsed or names unsupported fields."""
    params, target = request.params, request.target
    labels = parse_labels(params["labelSelector"]) if params.get("labelSelector") else ()
    fields = parse_fields(params["fieldSelector"], request.kind.fields) if params.get("fieldSelector") else ()
    if target.name:
        fields = (*fields, ("metadata.name", target.name, True))
    return Selector(labels, fields)


def requested_version(request: Request) -> int | None:
    """``resourceVersion`` as a number, None when it was not given. Raises 400."""
    text = request.params.get("resourceVersion", "")
    if not text:
        return None
    if not text.isdigit():
        raise bad_request(f'invalid resource version "{text}": it must be a number that the server gave out')
    return int(text)


def list_page(store: Store, request: Request) -> Page:
    """The page a LIST asks for. Raises 400, 410 Expired, 422, 504 for a version of the future."""
    selector = selector_of(request)
    limit = request.integer("limit") or 0
    token = request.params.get("continue", "")
    version = requested_version(request)
    match = request.params.get("resourceVersionMatch", "")
    _check_match(request, match, version, token)
    name = request.kind.collection
    if token:
        start = _read_token(token)
        try:
            records = store.snapshot(name, start.v)
        except ApiError:
            said = (
                "The provided continue parameter is too old to display a consistent list result. You can start a new "
                "list without the continue parameter."
            )
            raise expired(said) from None
        version, after = start.v, start.after
        records = records[bisect_right(records, after, key=lambda record: record.key) :]
        records = _in_namespace(records, request.target.namespace)
    else:
        check_not_future(store, version)
        if match == "Exact" and version is not None and version != store.version:
            records = _in_namespace(store.snapshot(name, version), request.target.namespace)
        else:
            version = store.version
            records = _candidates(store, request, selector)
    if not selector.is_empty:
        records = [record for record in records if selector.matches(record.obj)]
    if not limit or len(records) <= limit:
        return Page(records, version)
    page = records[:limit]
    remaining = len(records) - limit if selector.is_empty else None
    return Page(page, version, _write_token(_Token(version, page[-1].key)), remaining)


def _candidates(store: Store, request: Request, selector: Selector) -> list[Record]:
    collection = store.collection(request.kind.collection)
    name = selector.exact("metadata.name")
    namespace = request.target.namespace
    if name is not None and (namespace is not None or not request.kind.namespaced):
        record = collection.get(namespace or "", name)
        return [record] if record else []
    return collection.scan(namespace)


def _in_namespace(records: list[Record], namespace: str | None) -> list[Record]:
    return records if namespace is None else [record for record in records if record.key[0] == namespace]


def check_not_future(store: Store, version: int | None) -> None:
    if version is not None and version > store.version:
        message = f"Too large resource version: {version}, current: {store.version}"
        cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
        details = {"causes": [cause], "retryAfterSeconds": 1}
        raise ApiError(504, "Timeout", f"Timeout: {message}", details=details, retry_after=1)


def _check_match(request: Request, match: str, version: int | None, token: str) -> None:
    said, field = "", "resourceVersionMatch"
    if match and request.verb != "watch" and version is None:
        said = "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"
    elif match and token:
        said = "Forbidden: resourceVersionMatch is forbidden when continue is provided"
    elif match not in ("", "Exact", "NotOlderThan"):
        said = f'Unsupported value: "{match}": supported values: "Exact", "NotOlderThan"'
    elif match == "Exact" and version == 0:
        said = 'Forbidden: resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
    if said:
        raise invalid("ListOptions", "meta.k8s.io", "", [Cause("FieldValueForbidden", said, field)])
    if token and version:
        raise bad_request("specifying resource version is not allowed when using continue")


def _write_token(token: _Token) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(token)).decode()


def _read_token(text: str) -> _Token:
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(text), type=_Token)
    except (msgspec.DecodeError, binascii.Error, ValueError):
        raise bad_request("continue key is not valid") from None
