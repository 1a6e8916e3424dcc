"""Where a pod may run: node selector, required node affinity, tolerations (``core/v1`` PodSpec), and what they mean.

The meaning follows Kubernetes' component-helpers (``nodeaffinity``, ``Toleration.ToleratesTaint``) to the letter.
"""

from __future__ import annotations

import re

import msgspec

NAME_FIELD = "metadata.name"
"""The only field that ``matchFields`` knows."""

_SCHEDULING_EFFECTS = ("NoSchedule", "NoExecute")
_INTEGER = re.compile(r"[+-]?[0-9]{1,63}", re.ASCII)


class Taint(msgspec.Struct, frozen=True, gc=False, order=True):
    key: str
    effect: str
    value: str = ""

    def __str__(self) -> str:
        return f"{self.key}={self.value}:{self.effect}" if self.value else f"{self.key}:{self.effect}"


class Toleration(msgspec.Struct, frozen=True, gc=False, order=True):
    """``key`` empty with operator ``Exists`` tolerates everything; ``effect`` empty means every effect."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""

    def tolerates(self, taint: Taint) -> bool:
        if self.effect and self.effect != taint.effect:
            return False
        if self.key and self.key != taint.key:
            return False
        if self.operator == "Exists":
            return True
        return self.operator in ("", "Equal") and self.value == taint.value


class Requirement(msgspec.Struct, frozen=True, gc=False, order=True):
    """One ``matchExpressions``/``matchFields`` entry: In, NotIn, Exists, DoesNotExist, Gt, Lt."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join((self.key, self.operator, ",".join(self.values))).rstrip()

    def valid(self) -> bool:
        """Whether Kubernetes would accept it; a term with an invalid requirement matches nothing."""
        match self.operator:
            case "In" | "NotIn":
                return len(self.values) > 0
            case "Exists" | "DoesNotExist":
                return len(self.values) == 0
            case "Gt" | "Lt":
                return len(self.values) == 1 and integer(self.values[0]) is not None
            case _:
                return False

    def valid_field(self) -> bool:
        """Whether Kubernetes would accept it under ``matchFields``: In or NotIn with exactly one value."""
        return self.key == NAME_FIELD and self.operator in ("In", "NotIn") and len(self.values) == 1

    def accepts(self, value: str | None) -> bool:
        """Whether a label with this value (``None``: no such label) satisfies it, given that it is ``valid``."""
        match self.operator:
            case "In":
                return value in self.values
            case "NotIn":
                return value not in self.values
            case "Exists":
                return value is not None
            case "DoesNotExist":
                return value is None
        bound, number = integer(self.values[0]), integer(value) if value is not None else None
        if bound is None or number is None:
            return False
        return number > bound if self.operator == "Gt" else number < bound


class Term(msgspec.Struct, frozen=True, gc=False, order=True):
    """One ``nodeSelectorTerm``: all its requirements must hold; a term with none matches nothing."""

    expressions: tuple[Requirement, ...] = ()
    fields: tuple[Requirement, ...] = ()

    def valid(self) -> bool:
        """Whether it can match at all."""
        return (
            bool(self.expressions or self.fields)
            and all(requirement.valid() for requirement in self.expressions)
            and all(requirement.valid_field() for requirement in self.fields)
        )


class PodConstraints(msgspec.Struct, frozen=True, gc=False, order=True):
    """What of a pod's spec limits its nodes. ``terms`` is ``None`` without required node affinity; terms are ORed."""

    node_selector: tuple[tuple[str, str], ...] = ()
    terms: tuple[Term, ...] | None = None
    tolerations: tuple[Toleration, ...] = ()


UNCONSTRAINED = PodConstraints()


def integer(text: str) -> int | None:
    """A label value as a signed 64-bit integer, as Go's ``strconv.ParseInt`` reads it; ``None`` if it is none."""
    if not _INTEGER.fullmatch(text):
        return None
    number = int(text)
    return number if -(2**63) <= number < 2**63 else None


def repelling(taints: tuple[Taint, ...], tolerations: tuple[Toleration, ...]) -> Taint | None:
    """The first taint that keeps such a pod away (``PreferNoSchedule`` never does), or ``None``."""
    for taint in taints:
        if taint.effect in _SCHEDULING_EFFECTS and not any(t.tolerates(taint) for t in tolerations):
            return taint
    return None


def pool_of(constraints: PodConstraints, label: str) -> str:
    """The node pool a pod asks for: the first single value of ``label`` in its required affinity, else its selector.

    The archived scheduler's rule for "instance groups", save that only ``In`` counts here.
    """
    for term in constraints.terms or ():
        for requirement in term.expressions:
            if requirement.key == label and requirement.operator == "In" and len(requirement.values) == 1:
                return requirement.values[0]
    return dict(constraints.node_selector).get(label, "")
