"""Custom resources: structural schemas with defaults, pruning and validation; columns; status.

Source: apiextensions-apiserver (``pkg/apiserver/schema/{defaulting,pruning}``, ``pkg/apiserver/validation``).
CEL rules (``x-kubernetes-validations``) are stored, not evaluated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import jsonschema

from muster.devcluster import errors
from muster.devcluster.errors import Cause
from muster.devcluster.garbage import internal_request
from muster.devcluster.kinds import CRD_GROUP, Kind
from muster.devcluster.registry import Registry
from muster.devcluster.schema import shape_of_custom
from muster.devcluster.storage import Change, Object, decode, encode
from muster.devcluster.strategy import Strategy
from muster.devcluster.tables import custom_columns

if TYPE_CHECKING:
    from muster.devcluster.handlers import Handlers

COLLECTION = f"customresourcedefinitions.{CRD_GROUP}"
_KEPT_AT_ROOT = ("apiVersion", "kind", "metadata")
_REASONS = {
    "required": "FieldValueRequired",
    "enum": "FieldValueNotSupported",
    "type": "FieldValueTypeInvalid",
    "maxLength": "FieldValueTooLong",
    "maxItems": "FieldValueTooMany",
}


class CustomStrategy(Strategy):
    """The strategy of one version of a custom resource."""

    unconditional_update = False

    def __init__(self, kind: Kind, schema: Mapping[str, Any]) -> None:
        super().__init__(kind)
        self._schema = schema
        self._validator = jsonschema.Draft4Validator(json_schema(schema))
        self.shape = shape_of_custom(schema)

    def default(self, obj: Object) -> None:
        prune(obj, self._schema, root=True)
        set_defaults(obj, self._schema)

    def prepare_update(self, new: Object, old: Object, subresource: str) -> None:
        if subresource == "status":
            kept = old["metadata"] | {
                key: new["metadata"][key] for key in ("managedFields", "resourceVersion") if key in new["metadata"]
            }
            new["metadata"] = kept
        super().prepare_update(new, old, subresource)

    def validate_create(self, obj: Object) -> list[Cause]:
        return list(self._causes(obj))

    def validate_update(self, new: Object, old: Object, subresource: str) -> list[Cause]:
        return list(self._causes(new))

    def unknown_fields(self, obj: Object) -> list[str]:
        """Paths that pruning would drop."""
        return list(prune(decode(encode(obj)), self._schema, root=True))

    def _causes(self, obj: Object) -> Iterator[Cause]:
        for error in sorted(self._validator.iter_errors(obj), key=lambda e: [str(part) for part in e.absolute_path]):
            yield _cause(error)
        yield from duplicates(obj, self._schema)


def _cause(error: Any) -> Cause:
    path = _dotted(error.absolute_path)
    reason = _REASONS.get(error.validator, "FieldValueInvalid")
    value = encode(error.instance).decode()
    match error.validator:
        case "required":
            missing = error.message.split("'")[1]
            return Cause(reason, "Required value", f"{path}.{missing}" if path else missing)
        case "enum":
            allowed = ", ".join(encode(choice).decode() for choice in error.validator_value)
            said = f"Unsupported value: {value}: supported values: {allowed}"
        case "type":
            given = _type_name(error.instance)
            said = f'Invalid value: "{given}": {path} in body must be of type {error.validator_value}: "{given}"'
        case "minimum":
            said = f"Invalid value: {value}: {path} in body should be greater than or equal to {error.validator_value}"
        case "maximum":
            said = f"Invalid value: {value}: {path} in body should be less than or equal to {error.validator_value}"
        case "pattern":
            said = f"Invalid value: {value}: {path} in body should match '{error.validator_value}'"
        case "maxLength":
            said = f"Too long: may not be more than {error.validator_value} bytes"
        case "maxItems":
            said = f"Too many: {len(error.instance)}: must have at most {error.validator_value} items"
        case _:
            said = f"Invalid value: {value}: {path} in body: {error.message}"
    return Cause(reason, said, path or "<nil>")


def _dotted(parts: Any) -> str:
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _type_name(value: Any) -> str:
    names: dict[type, str] = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array"}
    return "null" if value is None else names.get(type(value), "object")


def json_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A structural schema as plain JSON Schema: extensions resolved, ``nullable`` and int-or-string spelt out."""
    plain: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "properties":
            plain[key] = {name: json_schema(part) for name, part in value.items()}
        elif key in ("items", "not") or (key == "additionalProperties" and isinstance(value, Mapping)):
            plain[key] = json_schema(value)
        elif key in ("allOf", "anyOf", "oneOf"):
            plain[key] = [json_schema(part) for part in value]
        elif not key.startswith("x-") and key not in ("default", "description", "example", "nullable", "format"):
            plain[key] = value
    if schema.get("x-kubernetes-int-or-string"):
        plain["type"] = ["integer", "string"]
        plain.pop("anyOf", None)
    if schema.get("nullable") and "type" in plain:
        kinds = plain["type"] if isinstance(plain["type"], list) else [plain["type"]]
        plain["type"] = [*kinds, "null"]
        if "enum" in plain:
            plain["enum"] = [*plain["enum"], None]
    return plain


def duplicates(value: Any, schema: Mapping[str, Any], path: str = "") -> Iterator[Cause]:
    """Items of sets and keyed lists that are there twice."""
    if isinstance(value, dict):
        extra = schema.get("additionalProperties")
        properties = schema.get("properties") or {}
        for key, item in value.items():
            part = properties.get(key, extra)
            if isinstance(part, Mapping):
                yield from duplicates(item, part, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        items = schema.get("items") or {}
        keys = schema.get("x-kubernetes-list-map-keys") or ()
        unique = schema.get("x-kubernetes-list-type") in ("set", "map")
        seen: set[bytes] = set()
        for index, item in enumerate(value):
            identity: Any = {key: item.get(key) for key in keys} if keys and isinstance(item, dict) else item
            text = encode(identity)
            if unique and text in seen:
                yield Cause("FieldValueDuplicate", f"Duplicate value: {text.decode()}", f"{path}[{index}]")
            seen.add(text)
            yield from duplicates(item, items, f"{path}[{index}]")


def prune(value: Any, schema: Mapping[str, Any], *, root: bool = False, path: str = "") -> list[str]:
    """Drops fields that the schema does not know, in place; the paths of those."""
    dropped: list[str] = []
    if isinstance(value, dict):
        properties = schema.get("properties") or {}
        extra = schema.get("additionalProperties")
        keeps = bool(schema.get("x-kubernetes-preserve-unknown-fields")) or extra is True
        for key in list(value):
            if root and key in _KEPT_AT_ROOT:
                continue
            place = f"{path}.{key}" if path else key
            if key in properties:
                dropped += prune(value[key], properties[key], path=place)
            elif isinstance(extra, Mapping):
                dropped += prune(value[key], extra, path=place)
            elif not keeps and not schema.get("x-kubernetes-embedded-resource"):
                del value[key]
                dropped.append(place)
    elif isinstance(value, list) and isinstance(schema.get("items"), Mapping):
        for index, item in enumerate(value):
            dropped += prune(item, schema["items"], path=f"{path}[{index}]")
    return dropped


def set_defaults(value: Any, schema: Mapping[str, Any]) -> None:
    """Fills in defaults, also inside what is there; a null that may not be null gives way to the default."""
    if isinstance(value, dict):
        for name, part in (schema.get("properties") or {}).items():
            if value.get(name) is None and name in value and not part.get("nullable"):
                del value[name]
            if name not in value and "default" in part:
                value[name] = decode(encode(part["default"]))
            if name in value:
                set_defaults(value[name], part)
        extra = schema.get("additionalProperties")
        if isinstance(extra, Mapping):
            known = schema.get("properties") or {}
            for name, item in value.items():
                if name not in known:
                    set_defaults(item, extra)
    elif isinstance(value, list) and isinstance(schema.get("items"), Mapping):
        for item in value:
            set_defaults(item, schema["items"])


class DefinitionStrategy(Strategy):
    """CustomResourceDefinitions themselves."""

    def default(self, obj: Object) -> None:
        spec = obj.setdefault("spec", {})
        names = spec.setdefault("names", {})
        if names.get("kind"):
            names.setdefault("singular", names["kind"].lower())
            names.setdefault("listKind", f"{names['kind']}List")
        spec.setdefault("conversion", {"strategy": "None"})

    def prepare_create(self, obj: Object) -> None:
        super().prepare_create(obj)
        stored = [version["name"] for version in obj["spec"].get("versions") or () if version.get("storage")]
        names = obj["spec"]["names"]
        obj["status"] = {"conditions": [], "acceptedNames": names, "storedVersions": stored}

    def validate_create(self, obj: Object) -> list[Cause]:
        spec, name = obj["spec"], obj["metadata"].get("name")
        causes = []
        wanted = f"{spec['names'].get('plural')}.{spec.get('group')}"
        if name != wanted:
            said = f'Invalid value: "{name}": must be spec.names.plural+"."+spec.group'
            causes.append(Cause("FieldValueInvalid", said, "metadata.name"))
        if spec.get("scope") not in ("Namespaced", "Cluster"):
            said = f'Unsupported value: "{spec.get("scope")}": supported values: "Cluster", "Namespaced"'
            causes.append(Cause("FieldValueNotSupported", said, "spec.scope"))
        versions = spec.get("versions") or []
        if sum(bool(version.get("storage")) for version in versions) != 1:
            said = "Invalid value: must have exactly one version marked as storage version"
            causes.append(Cause("FieldValueInvalid", said, "spec.versions"))
        for index, version in enumerate(versions):
            if not isinstance((version.get("schema") or {}).get("openAPIV3Schema"), Mapping):
                field = f"spec.versions[{index}].schema.openAPIV3Schema"
                causes.append(Cause("FieldValueRequired", "Required value: schemas are required", field))
        return causes

    def validate_update(self, new: Object, old: Object, subresource: str) -> list[Cause]:
        return self.validate_create(new)


class CustomResources:
    """Serves the kinds that CustomResourceDefinitions ask for, and takes them away again."""

    def __init__(self, registry: Registry, handlers: Handlers) -> None:
        self._registry = registry
        self._handlers = handlers
        self._served: dict[str, list[Kind]] = {}
        self._queue: asyncio.Queue[str] = asyncio.Queue()
        definition = registry.kinds.find(CRD_GROUP, "v1", "customresourcedefinitions")
        assert definition is not None
        self._definition = definition
        registry.set_strategy(definition, DefinitionStrategy(definition))
        registry.store.collection(COLLECTION).listen(self._observe)

    def _observe(self, change: Change) -> None:
        obj = change.record.obj
        name = obj["metadata"]["name"]
        if change.verb == "DELETED":
            self._withdraw(name)
        elif change.before is None or change.before.obj["spec"] != obj["spec"]:
            self._withdraw(name, keep=True)
            self._serve(obj)
            self._queue.put_nowait(name)
        elif "deletionTimestamp" in obj["metadata"]:
            self._queue.put_nowait(name)

    async def run(self) -> None:
        """Writes the conditions of new definitions; the kinds themselves are served at once."""
        while True:
            name = await self._queue.get()
            request = internal_request(self._definition, ("", name), "update", "kube-apiserver", "status")
            try:
                await self._registry.change(request, self._established, "Update")
            except errors.ApiError as error:
                if error.code == 409:
                    self._queue.put_nowait(name)
                elif error.code != 404:
                    raise

    def _established(self, definition: Object) -> Object:
        return _with_conditions(definition, self._registry.origin.timestamp())

    def _serve(self, definition: Object) -> None:
        spec = definition["spec"]
        names = spec["names"]
        kinds = []
        for version in sorted(spec["versions"], key=lambda v: not v.get("storage")):
            if not version.get("served"):
                continue
            kind = Kind(
                spec["group"],
                version["name"],
                names["plural"],
                names["kind"],
                spec["scope"] == "Namespaced",
                tuple(names.get("shortNames") or ()),
                tuple(names.get("categories") or ()),
                ("status",) if (version.get("subresources") or {}).get("status") is not None else (),
                tuple(f["jsonPath"].removeprefix(".") for f in version.get("selectableFields") or ()),
                generation=True,
                custom=True,
                singular_name=names.get("singular", ""),
            )
            kinds.append(kind)
            self._registry.kinds.add(kind)
            self._registry.set_strategy(kind, CustomStrategy(kind, version["schema"]["openAPIV3Schema"]))
            self._handlers.columns[kind.collection] = custom_columns(version.get("additionalPrinterColumns") or [])
        self._served[definition["metadata"]["name"]] = kinds

    def _withdraw(self, name: str, *, keep: bool = False) -> None:
        """Stops serving a definition's kinds; with ``keep`` their objects stay, for the kinds come back at once."""
        for kind in self._served.pop(name, ()):
            self._registry.kinds.remove(kind)
            self._registry.set_strategy(kind, None)
            if not keep:
                collection = self._registry.store.collection(kind.collection)
                for record in collection.scan():
                    self._registry.store.remove(kind.collection, record)
                self._handlers.drop_hub(kind.collection)
                self._registry.store.drop(kind.collection)


def _with_conditions(definition: Object, now: str) -> Object:
    conditions = [
        {
            "type": "NamesAccepted",
            "status": "True",
            "lastTransitionTime": now,
            "reason": "NoConflicts",
            "message": "no conflicts found",
        },
        {
            "type": "Established",
            "status": "True",
            "lastTransitionTime": now,
            "reason": "InitialNamesAccepted",
            "message": "the initial names have been accepted",
        },
    ]
    status = definition.get("status") or {}
    if {c["type"] for c in status.get("conditions") or ()} >= {"NamesAccepted", "Established"}:
        return definition
    return definition | {"status": {**status, "conditions": conditions}}
