"""Queues as people write them: ``queues.yaml``, and ``Queue`` manifests. Text in, values or every error out. Pure.

Both are checked by the schema of the custom resource, so that they allow the same; an entry of ``queues.yaml`` is a
``Queue``'s spec with its name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jsonschema
import msgspec
import yaml

from muster.kube.definitions import Schema, queue_definition
from muster.kube.resources import API_VERSION, QueueSpec
from muster.queueing.rules import Rule, RuleError, check_rules

_SHOWN = 80
"""Longest part of a value in an error."""
_NAME_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
"""A DNS subdomain (RFC 1123), as names of cluster-wide objects are."""


class QueueDocuments(msgspec.Struct, frozen=True):
    """What one source says."""

    queues: Mapping[str, QueueSpec] = {}
    rules: tuple[Rule, ...] = ()


class QueueDocumentError(ValueError):
    """Nothing of the document is used. Each problem names source, queue, field, value and what is allowed."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


def read_queues(text: str, source: str) -> QueueDocuments:
    """``queues.yaml`` (``queues:`` and ``rules:``), or manifests of ``Queue`` objects (a ``List`` of them too).

    Raises:
        QueueDocumentError: with everything that is wrong.
    """
    try:
        documents = [one for one in yaml.load_all(text, Loader=_Loader) if one is not None]
    except yaml.YAMLError as error:
        raise QueueDocumentError([f"{source}: is no YAML: {_yaml_problem(error)}"]) from None
    if any(isinstance(one, dict) and "apiVersion" in one for one in documents):
        return _from_manifests(documents, source)
    if len(documents) > 1:
        raise QueueDocumentError([f"{source}: expected one document with queues and rules, found {len(documents)}"])
    return _from_file(documents[0] if documents else {}, source)


def _from_file(document: Any, source: str) -> QueueDocuments:
    problems = _Problems(source)
    if not isinstance(document, dict):
        raise QueueDocumentError([f"{source}: expected the keys queues and rules, found {_shown(document)}"])
    problems.check(_FILE, document)
    problems.stop()
    queues: dict[str, QueueSpec] = {}
    for entry in document.get("queues") or ():
        if entry["name"] in queues:
            problems.add(f"queue {entry['name']}: is there twice")
        queues[entry["name"]] = msgspec.convert(entry, QueueSpec)
    rules = tuple(_rule(entry) for entry in document.get("rules") or ())
    try:
        check_rules(rules)
    except RuleError as error:
        problems.add(f"rule {error.index + 1}: {error.field}: {error.message}")
    problems.stop()
    return QueueDocuments(queues, rules)


def _rule(entry: Mapping[str, Any]) -> Rule:
    return Rule(
        queue=entry["queue"],
        namespace=entry.get("namespace", ""),
        service_account=entry.get("serviceAccount", ""),
        user=entry.get("user", ""),
        group=entry.get("group", ""),
        label=entry.get("label", {}),
    )


def _from_manifests(documents: list[Any], source: str) -> QueueDocuments:
    problems = _Problems(source)
    queues: dict[str, QueueSpec] = {}
    for number, document in enumerate(_unlisted(documents), start=1):
        kind = document.get("kind") if isinstance(document, dict) else None
        if kind != "Queue" or document.get("apiVersion") != API_VERSION:
            found = f"{document.get('apiVersion')} {kind}" if isinstance(document, dict) else _shown(document)
            problems.add(f"document {number}: expected {API_VERSION} Queue, found {found}")
            continue
        before = len(problems)
        problems.check(_MANIFEST, document, f"document {number}")
        if len(problems) > before:
            continue
        name = document["metadata"]["name"]
        if name in queues:
            problems.add(f"queue {name}: is there twice")
        queues[name] = msgspec.convert(document["spec"], QueueSpec)
    problems.stop()
    return QueueDocuments(queues)


def _unlisted(documents: list[Any]) -> Iterable[Any]:
    for document in documents:
        if isinstance(document, dict) and str(document.get("kind", "")).endswith("List"):
            yield from document.get("items") or ()
        else:
            yield document


class _Problems:
    """Collects what is wrong with one source."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._found: list[str] = []

    def __len__(self) -> int:
        return len(self._found)

    def add(self, problem: str) -> None:
        self._found.append(f"{self._source}: {problem}")

    def check(self, schema: Schema, document: Any, place: str = "") -> None:
        """Add everything that the schema has to say against it."""
        for error in sorted(jsonschema.Draft202012Validator(schema).iter_errors(document), key=_position):
            for problem in _said(error, document, place):
                self.add(problem)

    def stop(self) -> None:
        if self._found:
            raise QueueDocumentError(self._found)


def _said(error: jsonschema.ValidationError, document: Any, place: str) -> Iterable[str]:
    """What one error of the schema means to the person who wrote the document."""
    where, path = _where(list(error.absolute_path), document, place)
    kind, allowed, value = error.validator, error.validator_value, error.instance
    if kind == "additionalProperties":
        known = sorted(error.schema["properties"])
        for key in sorted(set(map(str, value)) - set(known)):
            full = f"{path}.{key}" if path else key
            yield f"{where}{full} = {_shown(value.get(key))}: unknown key; allowed here: {', '.join(known)}"
    elif kind == "required":
        missing = [key for key in allowed if key not in value]
        yield f"{where}{path + '.' if path else ''}{missing[0]}: is missing"
    else:
        yield f"{where}{path or 'document'} = {_shown(value)}: {_expected(kind, allowed, error.schema)}"


def _expected(kind: str, allowed: Any, schema: Mapping[str, Any]) -> str:
    if schema.get("x-kubernetes-int-or-string"):
        return "expected a quantity, a whole number or a text such as '500m', '4' or '16Gi'"
    if schema.get("pattern") == _NAME_PATTERN:
        return "expected a name of lower-case letters, digits, '-' and '.', such as team-a"
    if kind == "enum":
        return f"allowed are {', '.join(allowed)}"
    if kind == "type":
        return f"expected {_TYPES.get(str(allowed), 'a list')}"
    if kind == "anyOf":
        return "must name users or groups"
    return _BOUNDS.get(kind, f"does not keep to {kind} {{}}").format(allowed)


_BOUNDS = {
    "minimum": "expected at least {}",
    "maximum": "expected at most {}",
    "minLength": "must not be empty",
    "maxLength": "expected at most {} characters",
    "maxItems": "expected at most {} entries",
    "maxProperties": "expected at most {} entries",
}
_TYPES = {
    "object": "a mapping",
    "array": "a list",
    "string": "a text (in quotes, if it looks like a number)",
    "integer": "a whole number",
}


def _where(path: list[Any], document: Any, place: str) -> tuple[str, str]:
    """In which queue or rule, and which field of it."""
    if path[:1] == ["queues"] and len(path) > 1:
        entry = document["queues"][path[1]]
        name = entry.get("name") if isinstance(entry, dict) else None
        return (f"queue {name}: " if isinstance(name, str) else f"queues[{path[1]}]: "), _dotted(path[2:])
    if path[:1] == ["rules"] and len(path) > 1:
        return f"rule {path[1] + 1}: ", _dotted(path[2:])
    if place:
        metadata = document.get("metadata")
        name = metadata.get("name") if isinstance(metadata, dict) else None
        return f"queue {name}: " if isinstance(name, str) else f"{place}: ", _dotted(path).removeprefix("spec.")
    return "", _dotted(path)


def _dotted(path: Iterable[Any]) -> str:
    """``limits[0].max.cpu``."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}"
    return text.removeprefix(".")


def _position(error: jsonschema.ValidationError) -> tuple[tuple[int, str], ...]:
    """Errors in the order of the document's entries."""
    return tuple((step, "") if isinstance(step, int) else (-1, str(step)) for step in error.absolute_path)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _strict(schema: Schema) -> Schema:
    """The same schema, with unknown keys refused instead of pruned."""
    made = {key: _strict(value) if isinstance(value, dict) else value for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema:
        made["additionalProperties"] = False
    return made


def _schemas() -> tuple[Schema, Schema]:
    """Of ``queues.yaml``, and of a manifest."""
    definition = queue_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    spec = _strict(definition["properties"]["spec"])
    limit = spec["properties"]["limits"]["items"]
    limit["anyOf"] = [{"required": ["users"]}, {"required": ["groups"]}]
    name = {"type": "string", "maxLength": 253, "pattern": _NAME_PATTERN}
    entry = {**spec, "properties": {"name": name, **spec["properties"]}, "required": ["name"]}
    glob = {"type": "string", "minLength": 1, "maxLength": 253}
    properties = dict.fromkeys(("namespace", "serviceAccount", "user", "group", "queue"), glob)
    properties["label"] = {"type": "object", "additionalProperties": {"type": "string", "maxLength": 63}}
    rule = {"type": "object", "properties": properties, "required": ["queue"], "additionalProperties": False}
    file = {
        "type": "object",
        "properties": {
            "queues": {"type": ["array", "null"], "items": entry},
            "rules": {"type": ["array", "null"], "items": rule},
        },
        "additionalProperties": False,
    }
    manifest = {
        "type": "object",
        "properties": {
            "apiVersion": {},
            "kind": {},
            "metadata": {"type": "object", "properties": {"name": name}, "required": ["name"]},
            "spec": spec,
            "status": {},
        },
        "required": ["metadata", "spec"],
        "additionalProperties": False,
    }
    return file, manifest


_FILE, _MANIFEST = _schemas()


def file_schema() -> Schema:
    """What ``queues.yaml`` may hold, as JSON Schema."""
    return _FILE


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Strict about keys that are there twice: the first one would be lost without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value} is there twice", key.start_mark)
            seen.add(key.value)
        made: dict[Any, Any] = super().construct_mapping(node, deep)
        return made


def _yaml_problem(error: yaml.YAMLError) -> str:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None or not problem:
        return str(error).splitlines()[0]
    return f"{problem} (line {mark.line + 1}, column {mark.column + 1})"
