"""Where a pod may run: node selector, required node affinity, tolerations (KEP: none; ``core/v1`` PodSpec)."""

from __future__ import annotations

import msgspec


class Taint(msgspec.Struct, frozen=True, order=True):
    key: str
    effect: str
    value: str = ""


class Toleration(msgspec.Struct, frozen=True, order=True):
    """``key`` empty with operator ``Exists`` tolerates everything; ``effect`` empty means every effect."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""


class Requirement(msgspec.Struct, frozen=True, order=True):
    """One ``matchExpressions``/``matchFields`` entry: In, NotIn, Exists, DoesNotExist, Gt, Lt."""

    key: str
    operator: str
    values: tuple[str, ...] = ()


class Term(msgspec.Struct, frozen=True, order=True):
    """One ``nodeSelectorTerm``: all its requirements must hold; a term with none matches nothing."""

    expressions: tuple[Requirement, ...] = ()
    fields: tuple[Requirement, ...] = ()


class PodConstraints(msgspec.Struct, frozen=True, order=True):
    """What of a pod's spec limits its nodes. ``terms`` is ``None`` without required node affinity; terms are ORed."""

    node_selector: tuple[tuple[str, str], ...] = ()
    terms: tuple[Term, ...] | None = None
    tolerations: tuple[Toleration, ...] = ()
