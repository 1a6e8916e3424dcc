"""Configuration documents, read strictly: a mistake names the file, the key, the value and what is allowed there."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec
import yaml

T = TypeVar("T", bound=msgspec.Struct)


class ConfigError(ValueError):
    """The configuration cannot be used; the message names the file, the key, the value and what is allowed."""


def read_document(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises ``ConfigError``."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is no YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: expected a mapping of keys, found {type(document).__name__}")
    return document


def convert(document: Mapping[str, Any], section: type[T], source: str, secrets: Collection[str] = ()) -> T:
    """``document`` as ``section``; ``source`` names it in errors, ``secrets`` are keys whose values are never shown.

    Raises:
        ConfigError: see there.
    """
    unknown = _unknown_key(document, section, "")
    if unknown:
        raise ConfigError(f"{source}: {unknown}")
    try:
        return msgspec.convert(document, section)
    except msgspec.ValidationError as error:
        message = str(error)
        where = re.search(r"at `\$\.?(.*)`", message)
        path = where.group(1) if where else ""
        value = "…" if path in secrets else repr(_value_at(document, path))
        allowed = _allowed_values(section, path)
        problem = f"allowed are {', '.join(allowed)}" if allowed else message.split(" - at")[0]
        raise ConfigError(f"{source}: {path or 'document'} = {value}: {problem}") from None


def _unknown_key(document: object, section: type[msgspec.Struct], prefix: str) -> str:
    if not isinstance(document, Mapping):
        return ""
    fields = {field.encode_name: field for field in msgspec.structs.fields(section)}
    for key, value in document.items():
        field = fields.get(key)
        if field is None:
            shown = "…" if "secret" in str(key).lower() else repr(value)
            return f"unknown key {prefix}{key} = {shown}; allowed here: {', '.join(sorted(fields))}"
        kind = _section(field.type)
        if kind is not None:
            found = _unknown_key(value, kind, f"{prefix}{key}.")
            if found:
                return found
    return ""


def _section(kind: Any) -> type[msgspec.Struct] | None:
    """The section that a field's type is or may be."""
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    return next((each for each in kinds if isinstance(each, type) and issubclass(each, msgspec.Struct)), None)


def _value_at(document: object, path: str) -> object:
    value: object = document
    for part in filter(None, path.split(".")):
        if not isinstance(value, Mapping):
            return value
        value = value.get(part)
    return value


def _allowed_values(section: type[msgspec.Struct], path: str) -> tuple[str, ...]:
    """The values of the ``Literal`` at ``path``, none when it is something else."""
    kind: Any = section
    for part in path.split("."):
        found = _section(kind)
        if found is None:
            return ()
        kind = {field.encode_name: field.type for field in msgspec.structs.fields(found)}.get(part)
    return get_args(kind) if get_origin(kind) is Literal else ()
