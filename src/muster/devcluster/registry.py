"""The life of an object: create, update, patch, delete. Source: apiserver ``pkg/registry/generic/registry/store.go``.

Every method returns the record that the client gets. Nothing awaits between the check of the stored version and the
write, so a write is atomic; webhooks run before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from muster.devcluster import errors, metadata
from muster.devcluster.admission import admit_create, admit_update, check_namespace
from muster.devcluster.apply import FieldManagers
from muster.devcluster.kinds import Kind, KindTable
from muster.devcluster.object_types import check_types, strict_error
from muster.devcluster.patch import JSON_PATCH, MERGE_PATCH, STRATEGIC_MERGE_PATCH, json_patch, merge_patch
from muster.devcluster.patch import strategic_merge as strategic_merge_patch
from muster.devcluster.requests import Request
from muster.devcluster.storage import Object, Record, Store, decode, encode
from muster.devcluster.strategies import strategy_for
from muster.devcluster.strategy import Strategy

FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"
PATCH_ATTEMPTS = 5

Updater = Callable[[Object], Object]


class Webhooks(Protocol):
    """What the registry needs of the mutating and validating webhooks."""

    async def admit(self, request: Request, operation: str, obj: Object | None, old: Object | None) -> Object | None:
        """The object as the webhooks leave it. Raises ApiError when one of them refuses."""


class Registry:
    def __init__(self, store: Store, kinds: KindTable, webhooks: Webhooks, origin: metadata.Origin) -> None:
        self.store = store
        self.kinds = kinds
        self._webhooks = webhooks
        self.origin = origin
        self._strategies: dict[tuple[str, str], Strategy] = {}
        self.fields = FieldManagers(origin)

    def strategy(self, kind: Kind) -> Strategy:
        key = (kind.collection, kind.version)
        found = self._strategies.get(key)
        if found is None:
            found = self._strategies[key] = strategy_for(kind)
        return found

    def set_strategy(self, kind: Kind, strategy: Strategy | None) -> None:
        """Custom kinds bring their own strategy, made from their schema; None when they go."""
        if strategy is None:
            self._strategies.pop((kind.collection, kind.version), None)
        else:
            self._strategies[(kind.collection, kind.version)] = strategy

    def _decoded(self, request: Request, body: Object) -> Object:
        """The object as this kind's decoder leaves it. Raises 400."""
        kind = request.kind
        obj = _typed(kind, body)
        validation = request.params.get("fieldValidation", "Warn")
        if kind.custom and validation == "Strict":
            unknown = self.strategy(kind).unknown_fields(obj)
            if unknown:
                raise strict_error(kind, unknown)
        return check_types(kind, obj, validation)

    def find(self, request: Request) -> Record | None:
        target = request.target
        return self.store.collection(target.kind.collection).get(target.space, target.name)

    def get(self, request: Request) -> Record:
        """Raises 404 NotFound."""
        record = self.find(request)
        if record is None:
            raise errors.not_found(request.kind.plural, request.kind.group, request.target.name)
        return record

    async def create(self, request: Request, body: Object) -> Record:
        """Raises 400, 403, 404, 409 AlreadyExists, 422."""
        kind, strategy = request.kind, self.strategy(request.kind)
        obj = self._decoded(request, body)
        if obj["metadata"].get("resourceVersion"):
            raise errors.internal("resourceVersion should not be set on objects to be created")
        _place(request, obj)
        strategy.default(obj)
        admit_create(self.store, request, obj, self.origin)
        admitted = await self._webhooks.admit(request, "CREATE", obj, None)
        if admitted is not obj and admitted is not None:
            obj = self._decoded(request, admitted)
            strategy.default(obj)
        if not obj["metadata"].get("name") and not obj["metadata"].get("generateName"):
            raise errors.invalid(kind.kind, kind.group, "", metadata.name_causes(kind.kind, obj))
        metadata.begin(obj, self.origin)
        strategy.prepare_create(obj)
        metadata.drop_empty(obj["metadata"])
        causes = metadata.name_causes(kind.kind, obj) + metadata.map_causes(obj["metadata"])
        causes += strategy.validate_create(obj)
        name = obj["metadata"]["name"]
        if causes:
            raise errors.invalid(kind.kind, kind.group, name, causes)
        if self.store.collection(kind.collection).get(request.target.space, name) is not None:
            raise errors.already_exists(kind.plural, kind.group, name)
        check_namespace(self.store, request)  # once more: the webhooks took their time
        if request.dry_run:
            return Record(obj, encode(obj), 0)
        return self.store.put(kind.collection, obj, None)

    async def update(self, request: Request, body: Object) -> Record:
        """PUT. Raises 400, 404, 409, 422."""
        kind, target = request.kind, request.target
        given = self._decoded(request, body)
        _place(request, given)
        if given["metadata"].get("name") != target.name:
            said = f"the name of the object ({given['metadata'].get('name')}) does not match the name on the URL"
            raise errors.bad_request(f"{said} ({target.name})")
        strategy = self.strategy(kind)
        if strategy.create_on_update and not target.subresource and self.find(request) is None:
            given["metadata"].pop("resourceVersion", None)
            return await self.create(request, given)
        if not given["metadata"].get("resourceVersion") and not strategy.unconditional_update:
            said = "Invalid value: 0: must be specified for an update"
            cause = errors.Cause("FieldValueInvalid", said, "metadata.resourceVersion")
            raise errors.invalid(kind.kind, kind.group, target.name, [cause])
        return await self.change(request, lambda _: given, "Update")

    async def patch(self, request: Request, media_type: str, patch: Any) -> Record:
        """PATCH with one of the three patch types (server-side apply is ``apply``). Raises 400, 404, 409, 415, 422."""
        kind = request.kind

        def patched(current: Object) -> Object:
            if media_type == JSON_PATCH:
                return json_patch(current, patch)
            if not isinstance(patch, dict):
                raise errors.bad_request("error decoding patch: expected a JSON object")
            if media_type == STRATEGIC_MERGE_PATCH and not kind.custom:
                return strategic_merge_patch(current, patch, self.strategy(kind).shape)
            if media_type == MERGE_PATCH:
                merged: Object = merge_patch(current, patch)
                return merged
            accepted = [JSON_PATCH, MERGE_PATCH, "application/apply-patch+yaml"]
            raise errors.unsupported_media_type(media_type, accepted)

        return await self.change(request, patched, "Update")

    async def apply(self, request: Request, applied: Object) -> tuple[Record, bool]:
        """Server-side apply; also says whether the object was created. Raises 400, 409 Conflict, 422."""
        kind, target = request.kind, request.target
        if not request.params.get("fieldManager"):
            said = "Required value: is required for apply patch"
            cause = errors.Cause("FieldValueRequired", said, "fieldManager")
            raise errors.invalid("PatchOptions", "meta.k8s.io", "", [cause])
        body = self._decoded(request, applied)
        body["metadata"].setdefault("name", target.name)
        _place(request, body)
        if body["metadata"].pop("managedFields", None):
            raise errors.bad_request("metadata.managedFields must be nil")
        shape = self.strategy(kind).shape
        if self.find(request) is None:
            if target.subresource:
                raise errors.not_found(kind.plural, kind.group, target.name)
            created = self.fields.first_apply(body, shape, request)
            return await self.create(request, created), True

        def merged(current: Object) -> Object:
            return self.fields.apply(current, body, shape, request)

        return await self.change(request, merged, "Apply"), False

    async def change(self, request: Request, updater: Updater, operation: str) -> Record:
        """Reads, changes, admits, validates and writes an object, again when another write came in between."""
        for _ in range(PATCH_ATTEMPTS):
            before = self.get(request)
            new: Object = decode(encode(updater(before.obj)))
            asked = new.get("metadata", {}).get("resourceVersion")
            if asked and asked != str(before.version):
                raise errors.stale(request.kind.plural, request.kind.group, request.target.name)
            prepared = await self._prepare_update(request, new, before, operation)
            if self.find(request) is before:
                return self._commit_update(request, prepared, before)
        raise errors.stale(request.kind.plural, request.kind.group, request.target.name)

    async def _prepare_update(self, request: Request, new: Object, before: Record, operation: str) -> Object:
        kind, strategy, old = request.kind, self.strategy(request.kind), before.obj
        new = self._decoded(request, new)
        _check_identity(kind, new, old)
        self._settle(request, strategy, new, old)
        if operation == "Update" and old["metadata"].get("managedFields"):
            self.fields.track(new, old, strategy.shape, request)
        admitted = await self._webhooks.admit(request, "UPDATE", new, old)
        if admitted is not new and admitted is not None:
            new = self._decoded(request, admitted)
            self._settle(request, strategy, new, old)
        causes = metadata.name_causes(kind.kind, new) + metadata.map_causes(new["metadata"])
        causes += strategy.validate_update(new, old, request.target.subresource)
        if causes:
            raise errors.invalid(kind.kind, kind.group, request.target.name, causes)
        return new

    def _settle(self, request: Request, strategy: Strategy, new: Object, old: Object) -> None:
        strategy.default(new)
        admit_update(request, new)
        metadata.carry_over(new, old)
        strategy.prepare_update(new, old, request.target.subresource)
        metadata.drop_empty(new["metadata"])
        new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]

    def _commit_update(self, request: Request, new: Object, before: Record) -> Record:
        if new == before.obj:
            return before  # a write that changes nothing makes no new version
        if request.dry_run:
            return Record(new, encode(new), before.version)
        collection = request.kind.collection
        if _ends(new):
            self.store.put(collection, new, before)
            return self._remove(collection, request.target.space, request.target.name)
        return self.store.put(collection, new, before)

    async def delete(self, request: Request, options: Object) -> tuple[Record, bool]:
        """DELETE: the last state, and whether the object is gone. Raises 404, 409 (preconditions)."""
        while True:
            before = self.get(request)
            _check_preconditions(request, before.obj, options.get("preconditions") or {})
            await self._webhooks.admit(request, "DELETE", None, before.obj)
            if self.find(request) is before:
                return self._delete(request, before, options)

    def _delete(self, request: Request, before: Record, options: Object) -> tuple[Record, bool]:
        kind, strategy, old = request.kind, self.strategy(request.kind), before.obj
        asked = options.get("gracePeriodSeconds")
        grace = strategy.grace(old, asked)
        finalizers = _finalizers_for(old, options)
        if metadata.is_being_deleted(old):
            remaining = old["metadata"].get("deletionGracePeriodSeconds", 0)
            if finalizers == (old["metadata"].get("finalizers") or []):
                if remaining and (asked is None and grace != 0):
                    return before, False
                if grace >= remaining and grace != 0:
                    return before, False
                if remaining == 0 and _held(old):
                    return before, False
        marked = _marked(old, grace, finalizers, self.origin.timestamp(grace))
        if request.dry_run:
            return Record(marked, encode(marked), before.version), not grace and not _held(marked)
        if grace or _held(marked):
            return self.store.put(kind.collection, marked, before), False
        return self.store.remove(kind.collection, before), True

    async def delete_collection(self, request: Request, records: list[Record], options: Object) -> list[Record]:
        """DELETE of what a list found; what goes meanwhile is not missed."""
        deleted = []
        for record in records:
            namespace, name = record.key
            one = _for_item(request, namespace, name)
            try:
                deleted.append((await self.delete(one, options))[0])
            except errors.ApiError as error:
                if error.code != 404:
                    raise
        return deleted

    def _remove(self, collection: str, namespace: str, name: str) -> Record:
        current = self.store.collection(collection).get(namespace, name)
        assert current is not None
        return self.store.remove(collection, current)


def _typed(kind: Kind, body: Object) -> Object:
    """The object with kind and version first, as every stored object has them. Raises 400 for another kind's object."""
    if not isinstance(body, dict):
        raise errors.bad_request("the object provided is unrecognized (must be of type " + kind.kind + ")")
    given_kind, given_version = body.get("kind") or kind.kind, body.get("apiVersion") or kind.api_version
    if (given_kind, given_version) != (kind.kind, kind.api_version):
        said = f"{given_kind} in version {given_version!r} cannot be handled as a {kind.kind} ({kind.api_version})"
        raise errors.bad_request(said)
    meta = body.get("metadata")
    if meta is None:
        meta = {}
    if not isinstance(meta, dict):
        raise errors.bad_request("metadata must be an object")
    rest = {key: value for key, value in body.items() if key not in ("kind", "apiVersion", "metadata")}
    return {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": meta, **rest}


def _place(request: Request, obj: Object) -> None:
    """The namespace of the URL and of the object are one. Raises 400."""
    meta, target = obj["metadata"], request.target
    if not request.kind.namespaced:
        meta.pop("namespace", None)
        return
    given = meta.get("namespace")
    if given and given != target.space:
        raise errors.bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    meta["namespace"] = target.space


def _check_identity(kind: Kind, new: Object, old: Object) -> None:
    given, uid = new["metadata"].get("uid"), old["metadata"]["uid"]
    name = old["metadata"]["name"]
    if given and given != uid:
        why = f"Precondition failed: UID in precondition: {given}, UID in object meta: {uid}"
        raise errors.conflict(kind.plural, kind.group, name, why)
    if new["metadata"].get("name") != name or new["metadata"].get("namespace") != old["metadata"].get("namespace"):
        cause = errors.Cause("FieldValueInvalid", "Invalid value: field is immutable", "metadata.name")
        raise errors.invalid(kind.kind, kind.group, name, [cause])
    if metadata.is_being_deleted(old):
        extra = set(new["metadata"].get("finalizers") or ()) - set(old["metadata"].get("finalizers") or ())
        if extra:
            said = "Forbidden: no new finalizers can be added if the object is being deleted"
            cause = errors.Cause("FieldValueForbidden", said, "metadata.finalizers")
            raise errors.invalid(kind.kind, kind.group, name, [cause])


def _check_preconditions(request: Request, obj: Object, wanted: Object) -> None:
    for field, key, label in (("uid", "uid", "UID"), ("resourceVersion", "resourceVersion", "ResourceVersion")):
        value, actual = wanted.get(field), obj["metadata"][key]
        if value is not None and value != actual:
            why = f"Precondition failed: {label} in precondition: {value}, {label} in object meta: {actual}"
            raise errors.conflict(request.kind.plural, request.kind.group, request.target.name, why)


def _finalizers_for(obj: Object, options: Object) -> list[str]:
    """The finalizers after a deletion with this propagation policy."""
    policy = options.get("propagationPolicy")
    if policy is None and options.get("orphanDependents") is not None:
        policy = "Orphan" if options["orphanDependents"] else "Background"
    if policy not in (None, "Orphan", "Background", "Foreground"):
        raise errors.bad_request(f"invalid propagationPolicy: {policy!r}")
    finalizers: list[str] = list(obj["metadata"].get("finalizers") or ())
    if policy is None:
        return finalizers
    kept = [finalizer for finalizer in finalizers if finalizer not in (FOREGROUND, ORPHAN)]
    added = {"Orphan": [ORPHAN], "Foreground": [FOREGROUND], "Background": []}[policy]
    return kept + added


def _held(obj: Object) -> bool:
    """Whether something other than time keeps a marked object."""
    return bool(obj["metadata"].get("finalizers") or (obj["kind"] == "Namespace" and obj["spec"].get("finalizers")))


def _ends(obj: Object) -> bool:
    meta = obj["metadata"]
    return metadata.is_being_deleted(obj) and not meta.get("deletionGracePeriodSeconds") and not _held(obj)


def _marked(old: Object, grace: int, finalizers: list[str], deadline: str) -> Object:
    """The object with its deletion mark."""
    meta = dict(old["metadata"])
    already = "deletionTimestamp" in meta
    if not already or grace < meta.get("deletionGracePeriodSeconds", 0):
        meta["deletionTimestamp"] = deadline
        meta["deletionGracePeriodSeconds"] = grace
    if meta.get("generation") and not already:
        meta["generation"] += 1
    if finalizers:
        meta["finalizers"] = finalizers
    else:
        meta.pop("finalizers", None)
    marked = old | {"metadata": meta}
    if old["kind"] == "Namespace":
        marked["status"] = {**old.get("status", {}), "phase": "Terminating"}
    return marked


def _for_item(request: Request, namespace: str, name: str) -> Request:
    target = msgspec.structs.replace(request.target, namespace=namespace or None, name=name)
    return msgspec.structs.replace(request, target=target)
