"""Label and field selectors: parsed once, asked often.

Source: apimachinery ``pkg/labels/selector.go`` (lexer and parser) and ``pkg/fields/selector.go``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from muster.devcluster.errors import bad_request

Matches = Callable[[Mapping[str, Any]], bool]

LABEL_KEY = re.compile(r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$")
LABEL_VALUE = re.compile(r"^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$")
_TOKEN = re.compile(r"\s*(!=|==|=|!|\(|\)|,|<|>|[^\s!=(),<>]+)")


class Requirement(msgspec.Struct, frozen=True):
    """``operator`` is In, NotIn, Exists, DoesNotExist, Gt or Lt; ``values`` as the operator needs."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def holds(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        match self.operator:
            case "In":
                return value is not None and value in self.values
            case "NotIn":
                return value is None or value not in self.values
            case "Exists":
                return value is not None
            case "DoesNotExist":
                return value is None
        if value is None or not _integer(value):
            return False
        bound = int(self.values[0])
        return int(value) > bound if self.operator == "Gt" else int(value) < bound


class Selector(msgspec.Struct, frozen=True):
    """What a list or watch asks for. An empty selector matches everything.

    ``labels`` are label requirements; ``fields`` are (path, wanted value, equal?) triples.
    """

    labels: tuple[Requirement, ...] = ()
    fields: tuple[tuple[str, str, bool], ...] = ()

    @property
    def is_empty(self) -> bool:
        return not self.labels and not self.fields

    def matches(self, obj: Mapping[str, Any]) -> bool:
        if self.labels:
            labels = obj["metadata"].get("labels") or {}
            for requirement in self.labels:
                if not requirement.holds(labels):
                    return False
        return all((field_value(obj, path) == value) is equal for path, value, equal in self.fields)

    def exact(self, path: str) -> str | None:
        """The value a field must have, when the selector says so."""
        return next((value for name, value, equal in self.fields if equal and name == path), None)

    def exact_label(self) -> tuple[str, str] | None:
        """One label that must have one value, for indexes."""
        for requirement in self.labels:
            if requirement.operator == "In" and len(requirement.values) == 1:
                return requirement.key, requirement.values[0]
        return None


def _integer(text: str) -> bool:
    return text.lstrip("-").isdigit()


def field_value(obj: Mapping[str, Any], path: str) -> str:
    """The value at a dotted path as field selectors compare it: absent is the empty string."""
    value: Any = obj
    for part in path.split("."):
        if not isinstance(value, Mapping):
            return ""
        value = value.get(part)
    if value is None:
        # The API's typed objects have zero values where JSON has nothing.
        return "false" if path in ("spec.hostNetwork", "spec.unschedulable") else ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else str(value)


def parse_labels(text: str) -> tuple[Requirement, ...]:
    """A label selector in its string form. Raises 400 BadRequest."""
    tokens = _tokens(text)
    requirements: list[Requirement] = []
    position = 0
    while position < len(tokens):
        requirement, position = _requirement(text, tokens, position)
        requirements.append(requirement)
        if position == len(tokens):
            break
        if tokens[position] != "," or position + 1 == len(tokens):
            raise _unparsable(text, f"found '{tokens[position]}', expected: ',' or 'end of string'")
        position += 1
    return tuple(sorted(requirements, key=lambda requirement: requirement.key))


def _tokens(text: str) -> list[str]:
    tokens: list[str] = []
    position = 0
    stripped = text.rstrip()
    while position < len(stripped):
        found = _TOKEN.match(stripped, position)
        if found is None:
            raise _unparsable(text, "unexpected character")
        tokens.append(found.group(1))
        position = found.end()
    return tokens


def _requirement(text: str, tokens: Sequence[str], position: int) -> tuple[Requirement, int]:
    negated = tokens[position] == "!"
    position += negated
    key = tokens[position] if position < len(tokens) else ""
    if not LABEL_KEY.match(key):
        raise _unparsable(text, f"invalid label key {key!r}")
    position += 1
    if negated:
        return Requirement(key, "DoesNotExist"), position
    operator = tokens[position] if position < len(tokens) else ","
    if operator == ",":
        return Requirement(key, "Exists"), position
    position += 1
    if operator in ("=", "==", "!="):
        value, position = _optional_value(tokens, position)
        _check_value(text, value)
        return Requirement(key, "NotIn" if operator == "!=" else "In", (value,)), position
    if operator in ("<", ">"):
        value, position = _optional_value(tokens, position)
        if not _integer(value):
            raise _unparsable(text, f"for 'Gt', 'Lt' operators, the value must be an integer, not {value!r}")
        return Requirement(key, "Gt" if operator == ">" else "Lt", (value,)), position
    if operator in ("in", "notin"):
        values, position = _value_set(text, tokens, position)
        return Requirement(key, "In" if operator == "in" else "NotIn", values), position
    raise _unparsable(text, f"found '{operator}', expected: in, notin, =, ==, !=, gt, lt")


def _optional_value(tokens: Sequence[str], position: int) -> tuple[str, int]:
    if position < len(tokens) and tokens[position] not in (",", ")"):
        return tokens[position], position + 1
    return "", position


def _value_set(text: str, tokens: Sequence[str], position: int) -> tuple[tuple[str, ...], int]:
    if position >= len(tokens) or tokens[position] != "(":
        raise _unparsable(text, "found nothing, expected: '('")
    try:
        end = tokens.index(")", position)
    except ValueError:
        raise _unparsable(text, "found end of string, expected: ')'") from None
    values: list[str] = []
    expect_value = True
    for token in tokens[position + 1 : end]:
        if token == ",":
            if expect_value:
                values.append("")
            expect_value = True
        elif expect_value:
            _check_value(text, token)
            values.append(token)
            expect_value = False
        else:
            raise _unparsable(text, f"found '{token}', expected: ',' or ')'")
    if expect_value:
        values.append("")
    return tuple(sorted(set(values))), end + 1


def _check_value(text: str, value: str) -> None:
    if not LABEL_VALUE.match(value):
        raise _unparsable(text, f"invalid label value {value!r}")


def _unparsable(text: str, why: str) -> Exception:
    return bad_request(f'unable to parse requirement: {why} (in the label selector "{text}")')


def parse_fields(text: str, supported: Sequence[str]) -> tuple[tuple[str, str, bool], ...]:
    """A field selector in its string form. Raises 400 BadRequest for fields the resource does not support."""
    terms: list[tuple[str, str, bool]] = []
    for term in (part.strip() for part in text.split(",")):
        if not term:
            continue
        found = re.fullmatch(r"([^=!]+)(!=|==|=)(.*)", term)
        if found is None:
            raise bad_request(f"invalid selector: '{term}'; can't understand '{term}'")
        path, operator, value = found.groups()
        if path not in ("metadata.name", "metadata.namespace") and path not in supported:
            known = ", ".join(f'"{name}"' for name in ("metadata.name", "metadata.namespace", *supported))
            raise bad_request(f'"{path}" is not a known field selector: only {known}')
        terms.append((path, value, operator != "!="))
    return tuple(terms)


def from_label_selector(selector: Mapping[str, Any] | None) -> tuple[Requirement, ...]:
    """A ``LabelSelector`` object (matchLabels, matchExpressions); None and {} match everything."""
    if not selector:
        return ()
    equal = [Requirement(key, "In", (value,)) for key, value in (selector.get("matchLabels") or {}).items()]
    rest = [
        Requirement(term["key"], term["operator"], tuple(term.get("values") or ()))
        for term in selector.get("matchExpressions") or ()
    ]
    return (*equal, *rest)
