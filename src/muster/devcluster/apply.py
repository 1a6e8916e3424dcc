"""Server-side apply: merge what one manager declares, and remember which fields are whose.

Source: apimachinery ``pkg/util/managedfields`` and structured-merge-diff. As kube-apiserver did before 1.22 for
objects that were never applied, fields are tracked from an object's first apply on; what was there before belongs to
the manager ``before-first-apply``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from muster.devcluster.errors import Cause, apply_conflict
from muster.devcluster.metadata import Origin
from muster.devcluster.requests import Request
from muster.devcluster.schema import Shape
from muster.devcluster.storage import Object

Path = tuple[str, ...]  # elements as in fieldsV1: "f:spec", 'k:{"name":"x"}', 'v:"x"'
Fields = frozenset[Path]

_UNTRACKED: tuple[Path, ...] = (
    ("f:apiVersion",), ("f:kind",), ("f:metadata",), ("f:metadata", "f:name"), ("f:metadata", "f:namespace"),
    ("f:metadata", "f:uid"), ("f:metadata", "f:resourceVersion"), ("f:metadata", "f:creationTimestamp"),
    ("f:metadata", "f:generation"), ("f:metadata", "f:selfLink"), ("f:metadata", "f:managedFields"),
    ("f:metadata", "f:deletionTimestamp"), ("f:metadata", "f:deletionGracePeriodSeconds"),
    ("f:metadata", "f:generateName"),
)  # fmt: skip


class FieldManagers:
    """Who owns which field of an object, kept in its ``metadata.managedFields``."""

    def __init__(self, origin: Origin) -> None:
        self._origin = origin

    def first_apply(self, body: Object, shape: Shape, request: Request) -> Object:
        """A new object made by apply."""
        key = (request.manager, "Apply", request.target.subresource)
        tree = _to_tree(fields_of(body, shape))
        entry = _entry(key, tree, request.kind.api_version, self._origin.timestamp())
        return body | {"metadata": body["metadata"] | {"managedFields": [entry]}}

    def apply(self, current: Object, body: Object, shape: Shape, request: Request) -> Object:
        """The current object with what the manager applies. Raises 409 Conflict unless ``force``."""
        owners = _owners(current, shape, request)
        mine = (request.params["fieldManager"], "Apply", request.target.subresource)
        applied = fields_of(body, shape)
        self._take_over(current, body, shape, owners, mine, applied, request)
        dropped = owners.get(mine, frozenset()) - applied
        others = frozenset().union(*(fields for key, fields in owners.items() if key != mine))
        merged: Object = _without(merge_applied(current, body, shape), dropped - others, shape)
        owners[mine] = applied
        entries = _entries(current, merged, owners, mine, self._origin.timestamp())
        merged["metadata"] = merged["metadata"] | {"managedFields": entries}
        if merged["metadata"].get("resourceVersion") is None:
            merged["metadata"]["resourceVersion"] = current["metadata"]["resourceVersion"]
        return merged

    def track(self, new: Object, old: Object, shape: Shape, request: Request) -> None:
        """After an ordinary write: the writer owns what it changed, and nobody owns what is gone. In place."""
        if new["metadata"].get("managedFields") == []:
            return  # a client may reset the tracking
        before, now = _leaves(old, shape), _leaves(new, shape)
        changed = frozenset(path for path, value in now.items() if before.get(path, _ABSENT) != value)
        gone = frozenset(before) - frozenset(now)
        changed -= frozenset(_UNTRACKED)
        owners = _owners(old, shape, request)
        writer = (request.manager, "Update", request.target.subresource)
        for key in list(owners):
            owners[key] = owners[key] - gone - changed
        if changed:
            owners[writer] = owners.get(writer, frozenset()) | changed
        new["metadata"]["managedFields"] = _entries(old, new, owners, writer, self._origin.timestamp())

    @staticmethod
    def _take_over(
        current: Object, body: Object, shape: Shape, owners: dict[tuple[str, str, str], Fields],
        mine: tuple[str, str, str], applied: Fields, request: Request,
    ) -> None:  # fmt: skip
        now, wanted = _leaves(current, shape), _leaves(body, shape)
        changed = frozenset(path for path in applied if path in wanted and now.get(path, _ABSENT) != wanted[path])
        causes: list[Cause] = []
        for key, fields in owners.items():
            clash = fields & changed if key != mine else frozenset()
            if not clash:
                continue
            if not request.flag("force"):
                said = f'conflict with "{key[0]}"' + (f" with subresource {key[2]!r}" if key[2] else "")
                said += f" using {current['apiVersion']}" if key[1] == "Update" else ""
                causes.extend(Cause("FieldManagerConflict", said, dotted(path)) for path in sorted(clash))
            owners[key] = fields - clash
        if causes:
            raise apply_conflict(request.kind.plural, request.kind.group, request.target.name, causes)


class _Absent:
    pass


_ABSENT = _Absent()


def fields_of(obj: Object, shape: Shape) -> Fields:
    """The field paths an applied object declares."""
    return frozenset(_leaves(obj, shape)) - frozenset(_UNTRACKED)


def _leaves(obj: Object, shape: Shape) -> dict[Path, Any]:
    return {path: value for path, value in _walk(obj, shape, ()) if path not in _UNTRACKED_SET}


_UNTRACKED_SET = frozenset(_UNTRACKED)


def _walk(value: Any, shape: Shape, path: Path) -> Iterator[tuple[Path, Any]]:
    """Leaves, and the existence of list items, with their values."""
    if path in _UNTRACKED_SET and len(path) > 1:
        return
    if isinstance(value, Mapping) and not shape.atomic and value:
        for key, part in value.items():
            yield from _walk(part, shape.at(key), (*path, f"f:{key}"))
    elif isinstance(value, list) and shape.keys:
        for item in value:
            element = _key_element(item, shape)
            yield (*path, element, "."), True
            for key, part in item.items():
                yield from _walk(part, shape.at(key), (*path, element, f"f:{key}"))
    elif isinstance(value, list) and shape.unique:
        for item in value:
            yield (*path, "v:" + msgspec.json.encode(item).decode()), item
    else:
        yield path, value


_DEFAULT_KEYS = {"protocol": "TCP"}


def _key_element(item: Mapping[str, Any], shape: Shape) -> str:
    keys = {key: item.get(key, _DEFAULT_KEYS.get(key)) for key in sorted(shape.keys)}
    return "k:" + msgspec.json.encode({key: value for key, value in keys.items() if value is not None}).decode()


def dotted(path: Path) -> str:
    """A field path as error messages show it: ``.spec.containers[name="x"].image``."""
    text = ""
    for element in path:
        kind, _, rest = element.partition(":")
        if kind == "f":
            text += f".{rest}"
        elif kind == "k":
            keys = msgspec.json.decode(rest)
            text += "[" + ",".join(f"{key}={msgspec.json.encode(value).decode()}" for key, value in keys.items()) + "]"
        elif kind == "v":
            text += f"[={rest}]"
    return text


def merge_applied(live: Any, applied: Any, shape: Shape) -> Any:
    """The live value with the applied one merged in: maps by key, keyed lists by their keys, sets as unions."""
    if isinstance(applied, Mapping) and isinstance(live, Mapping) and not shape.atomic:
        merged = dict(live)
        for key, value in applied.items():
            merged[key] = merge_applied(merged[key], value, shape.at(key)) if key in merged else value
        return merged
    if isinstance(applied, list) and isinstance(live, list) and shape.keys:
        items = {_key_element(item, shape): item for item in live}
        for item in applied:
            element = _key_element(item, shape)
            inner = Shape(shape.fields)
            items[element] = merge_applied(items[element], item, inner) if element in items else item
        return list(items.values())
    if isinstance(applied, list) and isinstance(live, list) and shape.unique:
        return [*live, *(item for item in applied if item not in live)]
    return applied


def _without(value: Any, dropped: Fields, shape: Shape, path: Path = ()) -> Any:
    """The value without the fields in ``dropped``; items of keyed lists go with their ``.`` entry."""
    if isinstance(value, Mapping):
        kept = {}
        for key, part in value.items():
            child = (*path, f"f:{key}")
            if child in dropped:
                continue
            rest = _without(part, dropped, shape.at(key), child)
            emptied = rest in ({}, []) and part not in ({}, [])
            if not emptied:
                kept[key] = rest
        return kept
    if isinstance(value, list) and shape.keys:
        items = []
        for item in value:
            element = (*path, _key_element(item, shape))
            if (*element, ".") not in dropped:
                items.append(_without(item, dropped, Shape(shape.fields), element))
        return items
    if isinstance(value, list) and shape.unique:
        return [item for item in value if (*path, "v:" + msgspec.json.encode(item).decode()) not in dropped]
    return value


def _owners(obj: Object, shape: Shape, request: Request) -> dict[tuple[str, str, str], Fields]:
    entries = obj["metadata"].get("managedFields")
    if not entries:
        return {("before-first-apply", "Update", ""): fields_of(obj, shape)}
    return {
        (entry.get("manager", ""), entry["operation"], entry.get("subresource", "")): frozenset(
            _from_tree(entry.get("fieldsV1") or {}, ())
        )
        for entry in entries
    }


def _entries(
    old: Object, new: Object, owners: Mapping[tuple[str, str, str], Fields], writer: tuple[str, str, str], now: str
) -> list[dict[str, Any]]:
    """The ``managedFields`` list; entries that did not change keep their time."""
    earlier = {
        (entry.get("manager", ""), entry["operation"], entry.get("subresource", "")): entry
        for entry in old["metadata"].get("managedFields") or ()
    }
    entries = []
    for key, fields in owners.items():
        if not fields and key != writer:
            continue
        tree = _to_tree(fields)
        known = earlier.get(key)
        if known is not None and known.get("fieldsV1") == tree:
            entries.append(known)
        else:
            entries.append(_entry(key, tree, new["apiVersion"], now))
    return entries


def _entry(key: tuple[str, str, str], tree: dict[str, Any], api_version: str, now: str) -> dict[str, Any]:
    manager, operation, subresource = key
    entry: dict[str, Any] = {
        "manager": manager,
        "operation": operation,
        "apiVersion": api_version,
        "time": now,
        "fieldsType": "FieldsV1",
        "fieldsV1": tree,
    }
    return entry | {"subresource": subresource} if subresource else entry


def _to_tree(fields: Fields) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path in sorted(fields):
        node = tree
        for element in path:
            node = node.setdefault(element, {})
    return tree


def _from_tree(tree: Mapping[str, Any], path: Path) -> Iterator[Path]:
    for element, below in tree.items():
        if below:
            yield from _from_tree(below, (*path, element))
        else:
            yield (*path, element)
