"""The fields of the built-in kinds and their types, for what the API server checks while it decodes an object.

The field tables come from lightkube-models, which is generated from Kubernetes' own OpenAPI document. They are turned
into msgspec Structs, so one pass in C finds values of the wrong type and fields that do not exist.
"""

from __future__ import annotations

import functools
import importlib
import operator
import re
from functools import cache
from typing import Any, get_args, get_origin

import msgspec

from muster.devcluster.errors import ApiError, bad_request
from muster.devcluster.kinds import Kind
from muster.devcluster.storage import Object, encode

_UNKNOWN = re.compile(r"Object contains unknown field `(?P<field>[^`]*)`(?: - at `\$\.?(?P<path>[^`]*)`)?")

_STRING_MAPS = frozenset({"labels", "annotations", "nodeSelector", "matchLabels", "stringData"})


class _Types:
    """Struct types made from model classes on first use; ``strict`` ones refuse unknown fields."""

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict
        self._made: dict[type, Any] = {}

    def struct(self, model: type[msgspec.Struct]) -> Any:
        """The type for a model: every field optional (what is required is validation's matter, not decoding's)."""
        if model in self._made:
            return self._made[model]
        self._made[model] = Any  # inside itself (JSON schemas of CRDs are recursive) any value will do
        fields = msgspec.structs.fields(model)
        self._made[model] = made = msgspec.defstruct(
            model.__name__,
            [(field.name, self._field(model, field) | None, None) for field in fields],
            rename={field.name: field.encode_name for field in fields},
            forbid_unknown_fields=self._strict,
            omit_defaults=True,
            kw_only=True,
        )
        return made

    def _field(self, model: type[msgspec.Struct], field: msgspec.structs.FieldInfo) -> Any:
        if "Quantity" in str(model.__annotations__.get(field.name)):
            # The models say str; the API takes JSON numbers too.
            return dict[str, str | int | float] if "Dict" in str(model.__annotations__[field.name]) else Any
        if field.name in _STRING_MAPS or (model.__name__ == "ConfigMap" and field.name == "data"):
            return dict[str, str | None]  # the models do not say what these maps hold
        return self._translate(field.type)

    def _translate(self, hint: Any) -> Any:
        origin, arguments = get_origin(hint), get_args(hint)
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            return self.struct(hint)
        if origin is list:
            return list[self._translate(arguments[0])]  # type: ignore[misc]
        if origin is dict and arguments:
            return dict[str, self._translate(arguments[1])]  # type: ignore[misc]
        if arguments:
            return functools.reduce(operator.or_, (self._translate(argument) for argument in arguments))
        return hint if hint in (str, int, bool, float, type(None)) else Any


@cache
def _model(kind: Kind) -> type[msgspec.Struct] | None:
    """The model class of a built-in kind; None where there is none, and for CRDs, whose schemas may hold anything."""
    if kind.custom or kind.kind == "CustomResourceDefinition":
        return None
    group = kind.group.split(".", 1)[0] or "core"
    try:
        module = importlib.import_module(f"lightkube.models.{group}_{kind.version}")
    except ModuleNotFoundError:
        return None
    found = getattr(module, kind.kind, None)
    return found if isinstance(found, type) and issubclass(found, msgspec.Struct) else None


_STRICT, _LENIENT = _Types(strict=True), _Types(strict=False)


@cache
def _types(kind: Kind) -> tuple[Any, Any] | None:
    model = _model(kind)
    return (_STRICT.struct(model), _LENIENT.struct(model)) if model is not None else None


def check_types(kind: Kind, obj: Object, validation: str) -> Object:
    """The object without nulls and without fields that its kind does not have.

    ``validation`` is the request's ``fieldValidation``. Raises 400 for wrong types, and when Strict for unknown fields.
    """
    types = _types(kind)
    if types is None:
        return obj
    strict, lenient = types
    try:
        typed = msgspec.convert(obj, strict)
        # Looking for a null in the JSON costs a third of building the object anew, and most have none.
        return obj if b"null" not in encode(obj) else _plain(kind, typed)
    except msgspec.ValidationError as error:
        unknown = _UNKNOWN.match(str(error))
        if unknown is None:
            raise _wrong_type(kind, error) from None
        if validation == "Strict":
            path = ".".join(part for part in (unknown["path"], unknown["field"]) if part)
            raise strict_error(kind, [path]) from None
    try:
        return _plain(kind, msgspec.convert(obj, lenient))
    except msgspec.ValidationError as error:
        raise _wrong_type(kind, error) from None


def _plain(kind: Kind, typed: Any) -> Object:
    fields: Object = msgspec.to_builtins(typed)
    return {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": fields.pop("metadata", {}), **fields}


def strict_error(kind: Kind, paths: list[str]) -> ApiError:
    said = ", ".join(f'unknown field "{path}"' for path in paths)
    return bad_request(f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: '
                       f"strict decoding error: {said}")  # fmt: skip


def _wrong_type(kind: Kind, error: msgspec.ValidationError) -> ApiError:
    said = f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: json: cannot unmarshal: '
    return bad_request(said + str(error))
