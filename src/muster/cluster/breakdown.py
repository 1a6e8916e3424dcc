"""Why pods of one kind fit where they do: every node in exactly one group. A pure read, for explanations."""

from __future__ import annotations

from collections import Counter

import msgspec
import numpy as np

from muster.cluster.constraints import PodConstraints, Requirement, repelling
from muster.cluster.nodes import Bools, Int64s, NodeTable


class Breakdown(msgspec.Struct, frozen=True, rename="camel"):
    """Nodes by the first thing that keeps such a pod away from them; the groups add up to ``nodes``."""

    nodes: int
    not_ready: int
    cordoned: int
    selector: int
    affinity: int
    taint: int
    too_small: int
    """Too small even when empty."""
    too_full: int
    """Large enough, but too much of it is held now."""
    fit: int
    """Room for at least one now."""
    selector_labels: tuple[tuple[str, int], ...] = ()
    """``key=value`` of the selector, and how many of the ``selector`` nodes lack it; most responsible first."""
    affinity_requirements: tuple[tuple[str, int], ...] = ()
    """Requirements of the affinity's terms, and how many of the ``affinity`` nodes do not meet them."""
    taints: tuple[tuple[str, int], ...] = ()
    """Taints that are not tolerated, and how many of the ``taint`` nodes have them."""
    too_small_in: tuple[tuple[str, int], ...] = ()
    """Resources of which ``too_small`` nodes have too little, and how many; a node counts for each."""
    too_full_in: tuple[tuple[str, int], ...] = ()


def breakdown(table: NodeTable, constraints: PodConstraints, vector: Int64s) -> Breakdown:
    """Why a pod of size ``vector`` [R] fits or does not, on all present nodes."""
    left = table.present.copy()
    rows = np.arange(len(left))

    def out(keeps_away: Bools) -> Int64s:
        """The rows that drop out now."""
        group = left & keeps_away
        left[group] = False
        return group.nonzero()[0]

    ready = np.fromiter((node is not None and node.ready for node in table.nodes), np.bool_, len(rows))
    not_ready = out(~ready)
    cordoned = out(~table.usable)
    selector = out(~table.labels.selected(constraints.node_selector, rows))
    affinity = out(~table.labels.in_terms(constraints.terms, rows))
    taint = out(~table.labels.tolerated(constraints, rows))
    wanted = _padded(table, vector)[:, None]
    too_small = out(np.any(table.allocatable < wanted, axis=0))
    too_full = out(np.any(table.free < wanted, axis=0))
    return Breakdown(
        nodes=int(np.count_nonzero(table.present)),
        not_ready=len(not_ready),
        cordoned=len(cordoned),
        selector=len(selector),
        affinity=len(affinity),
        taint=len(taint),
        too_small=len(too_small),
        too_full=len(too_full),
        fit=int(np.count_nonzero(left)),
        selector_labels=_selector_labels(table, constraints, selector),
        affinity_requirements=_requirements(table, constraints, affinity),
        taints=_taints(table, constraints, taint),
        too_small_in=_short(table, table.allocatable[:, too_small], vector),
        too_full_in=_short(table, table.free[:, too_full], vector),
    )


def _selector_labels(table: NodeTable, constraints: PodConstraints, rows: Int64s) -> tuple[tuple[str, int], ...]:
    lacking = Counter(
        {
            f"{key}={value}": _unmet(table.labels.selected(((key, value),), rows))
            for key, value in constraints.node_selector
        }
    )
    return _ranked(lacking)


def _requirements(table: NodeTable, constraints: PodConstraints, rows: Int64s) -> tuple[tuple[str, int], ...]:
    unmet: Counter[str] = Counter()
    for term in constraints.terms or ():
        requirements: tuple[tuple[Requirement, bool], ...] = (
            *((requirement, False) for requirement in term.expressions),
            *((requirement, True) for requirement in term.fields),
        )
        for requirement, field in requirements:
            unmet[str(requirement)] = _unmet(table.labels.met(requirement, rows, field=field))
    return _ranked(unmet)


def _taints(table: NodeTable, constraints: PodConstraints, rows: Int64s) -> tuple[tuple[str, int], ...]:
    sets = Counter(node.taints for row in rows.tolist() if (node := table.nodes[row]) is not None)
    found: Counter[str] = Counter()
    for taints, count in sets.items():
        for taint in taints:
            if repelling((taint,), constraints.tolerations):
                found[str(taint)] += count
    return _ranked(found)


def _short(table: NodeTable, amounts: Int64s, vector: Int64s) -> tuple[tuple[str, int], ...]:
    short = np.count_nonzero(amounts < _padded(table, vector)[:, None], axis=1)
    return _ranked(Counter(dict(zip(table.dimensions, short.tolist(), strict=True))))


def _padded(table: NodeTable, vector: Int64s) -> Int64s:
    """In all of the table's dimensions, also those added after the vector was made."""
    return np.concatenate([vector, np.zeros(len(table.dimensions) - len(vector), dtype=np.int64)])


def _unmet(met: Bools) -> int:
    return len(met) - int(np.count_nonzero(met))


def _ranked(counts: Counter[str]) -> tuple[tuple[str, int], ...]:
    return tuple(
        sorted(((name, count) for name, count in counts.items() if count), key=lambda pair: (-pair[1], pair[0]))
    )
