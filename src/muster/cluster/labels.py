"""Labels and taints of the nodes, dictionary-encoded: one small integer per node and key.

A selector is then evaluated once per distinct value, not once per node, and spread over the nodes by one ``take``.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from muster.cluster.constraints import PodConstraints, Requirement, Taint, Term, repelling

Bools = npt.NDArray[np.bool_]
Int64s = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int32]

V = TypeVar("V")

ABSENT = 0
_SLACK = 256


class Column(Generic[V]):
    """One value per row, as codes into the list of distinct ``values``; code 0 is ``None``, no value."""

    def __init__(self, rows: int) -> None:
        self.codes: Codes = np.zeros(rows, dtype=np.int32)
        self.values: list[V | None] = [None]
        self._index: dict[V | None, int] = {None: ABSENT}

    def set(self, row: int, value: V | None) -> None:
        code = self._index.get(value)
        if code is None:
            if len(self.values) > 2 * len(self.codes) + _SLACK:
                self._drop_unused()
            code = self._index[value] = len(self.values)
            self.values.append(value)
        self.codes[row] = code

    def code(self, value: V) -> int | None:
        return self._index.get(value)

    def copy(self) -> Column[V]:
        other = copy(self)
        other.codes, other.values, other._index = self.codes.copy(), self.values.copy(), self._index.copy()
        return other

    def grow(self, rows: int) -> None:
        self.codes = np.concatenate([self.codes, np.zeros(rows - len(self.codes), dtype=np.int32)])

    def _drop_unused(self) -> None:
        """Values of nodes long gone (host names above all) must not pile up."""
        used = np.unique(np.append(self.codes, ABSENT))
        self.codes = np.searchsorted(used, self.codes).astype(np.int32)
        self.values = [self.values[code] for code in used.tolist()]
        self._index = {value: code for code, value in enumerate(self.values)}


class LabelIndex:
    """Labels, taints and names of the rows of a node table."""

    def __init__(self, rows: int, row_of: Mapping[str, int]) -> None:
        """``row_of`` is the table's live map from node name to row, for ``matchFields``."""
        self._rows = rows
        self._row_of = row_of
        self._labels: dict[str, Column[str]] = {}
        self._taints: Column[tuple[Taint, ...]] = Column(rows)

    def copy(self, row_of: Mapping[str, int]) -> LabelIndex:
        """For another table of the same rows, with its own map from node name to row."""
        other = copy(self)
        other._row_of = row_of
        other._labels = {key: column.copy() for key, column in self._labels.items()}
        other._taints = self._taints.copy()
        return other

    def grow(self, rows: int) -> None:
        self._rows = rows
        self._taints.grow(rows)
        for column in self._labels.values():
            column.grow(rows)

    def set_labels(self, row: int, old: Mapping[str, str], new: Mapping[str, str]) -> None:
        for key in old.keys() - new.keys():
            self._labels[key].set(row, None)
        for key, value in new.items():
            if old.get(key) != value:
                column = self._labels.get(key)
                if column is None:
                    column = self._labels[key] = Column(self._rows)
                column.set(row, value)

    def set_taints(self, row: int, taints: tuple[Taint, ...]) -> None:
        self._taints.set(row, taints or None)

    def label(self, key: str) -> Column[str] | None:
        """The column of one label key, ``None`` when no node ever had it."""
        return self._labels.get(key)

    def selected(self, selector: tuple[tuple[str, str], ...], rows: Int64s) -> Bools:
        """Which of ``rows`` carry every label of a node selector."""
        result = np.ones(len(rows), dtype=np.bool_)
        for key, value in selector:
            result &= self._accepted(Requirement(key, "In", (value,)), rows)
        return result

    def in_terms(self, terms: tuple[Term, ...] | None, rows: Int64s) -> Bools:
        """Which of ``rows`` satisfy required node affinity: any of the terms, or there are none."""
        if terms is None:
            return np.ones(len(rows), dtype=np.bool_)
        result = np.zeros(len(rows), dtype=np.bool_)
        for term in terms:
            if term.valid():
                result |= self._in_term(term, rows)
        return result

    def tolerated(self, constraints: PodConstraints, rows: Int64s) -> Bools:
        """Which of ``rows`` have no taint that keeps such a pod away."""
        table = [repelling(taints or (), constraints.tolerations) is None for taints in self._taints.values]
        return np.asarray(table, dtype=np.bool_).take(self._taints.codes.take(rows))

    def met(self, requirement: Requirement, rows: Int64s, *, field: bool = False) -> Bools:
        """Which of ``rows`` meet one requirement of a term (``field``: under ``matchFields``); an invalid one, none."""
        if not (requirement.valid_field() if field else requirement.valid()):
            return np.zeros(len(rows), dtype=np.bool_)
        if not field:
            return self._accepted(requirement, rows)
        named: Bools = rows == self._row_of.get(requirement.values[0], -1)
        return named if requirement.operator == "In" else ~named

    def _in_term(self, term: Term, rows: Int64s) -> Bools:
        result = np.ones(len(rows), dtype=np.bool_)
        for requirement in term.expressions:
            result &= self._accepted(requirement, rows)
        for requirement in term.fields:
            result &= self.met(requirement, rows, field=True)
        return result

    def _accepted(self, requirement: Requirement, rows: Int64s) -> Bools:
        column = self._labels.get(requirement.key)
        if column is None:
            return np.full(len(rows), requirement.accepts(None), dtype=np.bool_)
        return _accepted_values(column, requirement).take(column.codes.take(rows))


def _accepted_values(column: Column[str], requirement: Requirement) -> Bools:
    """[values] which codes of a column satisfy a requirement; In and NotIn look up their few values only."""
    if requirement.operator in ("In", "NotIn"):
        wanted = requirement.operator == "In"
        result = np.full(len(column.values), not wanted, dtype=np.bool_)
        for value in requirement.values:
            code = column.code(value)
            if code is not None:
                result[code] = wanted
        return result
    return np.fromiter((requirement.accepts(value) for value in column.values), np.bool_, len(column.values))
