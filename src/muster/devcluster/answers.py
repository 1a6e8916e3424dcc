"""The form of an answer: whole objects, tables for ``kubectl get``, or metadata alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from muster.devcluster.kinds import Kind
from muster.devcluster.lists import Page
from muster.devcluster.storage import Change, Object, Record, decode, encode
from muster.devcluster.tables import Columns, table_columns, table_row

Conversion = Callable[[Object], Object]


class Form:
    """How objects of a kind are written for one request. ``convert`` turns the stored version into the asked one."""

    def __init__(self, kind: Kind, accept: str, include: str, convert: Conversion | None, columns: Columns) -> None:
        self.kind = kind
        self.shape = _wanted(accept)
        self._include = include or "Metadata"
        self._convert = convert
        self._columns = columns
        self._headed = False

    @property
    def is_plain(self) -> bool:
        return not self.shape and self._convert is None

    def one(self, record: Record) -> bytes:
        if self.is_plain:
            return record.data
        if self.shape == "Table":
            return encode(self._table([record.obj], record.obj["metadata"]["resourceVersion"]))
        return encode(self._object(record.obj))

    def page(self, page: Page) -> bytes:
        metadata: dict[str, Any] = {"resourceVersion": str(page.version)}
        if page.token:
            metadata["continue"] = page.token
        if page.remaining:
            metadata["remainingItemCount"] = page.remaining
        if self.shape == "Table":
            table = self._table([record.obj for record in page.records], "")
            return encode(table | {"metadata": metadata})
        if self.shape:
            items = [self._object(record.obj) for record in page.records]
            head = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1"}
            return encode({**head, "metadata": metadata, "items": items})
        kind = self.kind
        # Items of built-in lists carry no kind and apiVersion of their own; every object's JSON begins with them.
        strip = 0 if kind.custom else len(encode({"kind": kind.kind, "apiVersion": kind.api_version}))
        if self._convert is None:
            items_data = [record.data[strip:] if strip else record.data for record in page.records]
        else:
            items_data = [encode(self._convert(record.obj))[strip:] for record in page.records]
        opening = b"{" if strip else b""
        joined = b",".join(opening + data for data in items_data)
        return b'{"kind":"%sList","apiVersion":"%s","metadata":%s,"items":[%s]}' % (
            kind.kind.encode(),
            kind.api_version.encode(),
            encode(metadata),
            joined,
        )

    def change(self, change: Change, verb: str) -> bytes:
        if self.is_plain:
            return change.frame(verb)
        event = decode(change.frame(verb))
        obj = event["object"]
        event["object"] = self._table([obj], "") if self.shape == "Table" else self._object(obj)
        return encode(event)

    def _object(self, obj: Object) -> Object:
        converted = self._convert(obj) if self._convert else obj
        if not self.shape:
            return converted
        return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": converted["metadata"]}

    def _table(self, objects: list[Object], version: str) -> Object:
        head = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": version}}
        # A watch sends the column definitions with its first event only.
        columns = [] if self._headed else table_columns(self._columns)
        self._headed = True
        return {**head, "columnDefinitions": columns, "rows": [self._row(obj) for obj in objects]}

    def _row(self, obj: Object) -> Object:
        row: Object = {"cells": table_row(self._columns, obj)}
        if self._include == "Object":
            row["object"] = obj
        elif self._include == "Metadata":
            partial = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}
            row["object"] = partial | {"metadata": obj["metadata"]}
        return row


def _wanted(accept: str) -> str:
    """ "", "Table" or "Partial": the first form of the Accept header that this server knows."""
    for part in accept.split(","):
        media, *parameters = (piece.strip() for piece in part.split(";"))
        options = dict(parameter.split("=", 1) for parameter in parameters if "=" in parameter)
        if media not in ("application/json", "*/*", "application/*"):
            continue
        form = options.get("as", "")
        if form == "Table" and options.get("v", "v1") == "v1":
            return "Table"
        if form.startswith("PartialObjectMetadata"):
            return "Partial"
        if not form:
            return ""
    return ""
