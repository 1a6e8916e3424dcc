"""The three ways to patch: JSON Patch (RFC 6902), merge patch (RFC 7386), strategic merge patch.

All give a new value and leave the old one alone; unchanged parts may be shared between the two.
Strategic merge: apimachinery ``pkg/util/strategicpatch/patch.go``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jsonpatch

from muster.devcluster.errors import ApiError, bad_request
from muster.devcluster.schema import Shape
from muster.devcluster.storage import Object

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"
APPLY_YAML = "application/apply-patch+yaml"

_DIRECTIVE = "$patch"
_DELETE_VALUES = "$deleteFromPrimitiveList/"
_SET_ORDER = "$setElementOrder/"
_RETAIN_KEYS = "$retainKeys"


def json_patch(document: Object, operations: Any) -> Object:
    """Applies JSON Patch operations. Raises 400 for a malformed patch, 422 when it does not apply."""
    if not isinstance(operations, list):
        raise bad_request("error decoding patch: a JSON patch is a list of operations")
    if len(operations) > 10_000:
        raise ApiError(413, "RequestEntityTooLarge", "The allowed maximum operations in a JSON patch is 10000")
    try:
        patched: Object = jsonpatch.apply_patch(document, operations)
    except (jsonpatch.InvalidJsonPatch, KeyError, TypeError) as error:
        raise bad_request(f"error decoding patch: {error}") from None
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException) as error:
        raise ApiError(
            422, "Invalid", f"the server rejected our request due to an error in our request: {error}"
        ) from None
    if not isinstance(patched, dict):
        raise bad_request("the patched document is not an object")
    return patched


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping):
            merged[key] = merge_patch(merged.get(key), value)
        else:
            merged[key] = value
    return merged


def strategic_merge(target: Mapping[str, Any], patch: Mapping[str, Any], shape: Shape) -> Object:
    """Strategic merge patch of a map whose fields merge as ``shape`` says. Raises 400 for a bad directive."""
    directive = patch.get(_DIRECTIVE)
    if directive == "replace":
        replaced: Object = _without_directives(patch)
        return replaced
    if directive == "delete":
        return {}
    if directive not in (None, "merge"):
        raise bad_request(f"Unknown patch type: {directive}")
    merged = dict(target)
    if _RETAIN_KEYS in patch:
        merged = {key: value for key, value in merged.items() if key in patch[_RETAIN_KEYS]}
    for key, value in patch.items():
        if key in (_DIRECTIVE, _RETAIN_KEYS) or key.startswith(_SET_ORDER):
            continue
        if key.startswith(_DELETE_VALUES):
            name = key.removeprefix(_DELETE_VALUES)
            merged[name] = [item for item in merged.get(name) or () if item not in value]
        elif value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merge_value(merged.get(key), value, shape.at(key))
    for key, order in patch.items():
        if key.startswith(_SET_ORDER):
            name = key.removeprefix(_SET_ORDER)
            if isinstance(merged.get(name), list):
                merged[name] = _ordered(merged[name], order, shape.at(name).merge_key)
    return merged


def _merge_value(old: Any, new: Any, shape: Shape) -> Any:
    if isinstance(new, Mapping):
        return strategic_merge(old if isinstance(old, Mapping) else {}, new, shape)
    if not isinstance(new, list):
        return new
    if shape.keys:
        return _merge_keyed(old or [], new, shape)
    if shape.unique:
        return [*(old or []), *(value for value in new if value not in (old or []))]
    return new


def _merge_keyed(old: list[Any], patch: list[Any], shape: Shape) -> list[Any]:
    key = shape.merge_key
    if any(isinstance(item, Mapping) and item.get(_DIRECTIVE) == "replace" for item in patch):
        return [_without_directives(item) for item in patch if item != {_DIRECTIVE: "replace"}]
    merged = list(old)
    for item in patch:
        if not isinstance(item, Mapping):
            raise bad_request(f"expected an object with the key {key} in the list")
        if key not in item:
            raise bad_request(f"map: {dict(item)} does not contain declared merge key: {key}")
        index = next((i for i, existing in enumerate(merged) if existing.get(key) == item[key]), None)
        if item.get(_DIRECTIVE) == "delete":
            merged = [existing for existing in merged if existing.get(key) != item[key]]
        elif index is None:
            merged.append(strategic_merge({}, item, shape))
        else:
            merged[index] = strategic_merge(merged[index], item, shape)
    return merged


def _ordered(items: list[Any], order: list[Any], key: str) -> list[Any]:
    """Puts the listed items in the given order; the others keep their place relative to what stood before them."""

    def identity(item: Any) -> Any:
        return item.get(key) if key and isinstance(item, Mapping) else item

    wanted = [item.get(key) if key and isinstance(item, Mapping) else item for item in order]
    listed = iter(sorted((i for i in items if identity(i) in wanted), key=lambda i: wanted.index(identity(i))))
    return [next(listed) if identity(item) in wanted else item for item in items]


def _without_directives(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            key: _without_directives(part)
            for key, part in value.items()
            if not key.startswith("$") and part is not None
        }
    return [_without_directives(item) for item in value] if isinstance(value, list) else value
