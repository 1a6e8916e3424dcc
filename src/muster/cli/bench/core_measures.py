"""The measurements of ``muster bench core``: the production ``Scheduler`` on a seeded cluster, one event at a time.

CPU time of the thread, not the wall clock, so that neighbours do not count. As in the live service everything that was
there at the start is frozen for the garbage collector; it is off while a round is measured. Between two measured
answers an application ends, starts or changes, and shapes vary, so that no answer can come from an earlier one.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Sequence

import msgspec

from muster.cli.bench.busy_cluster import BusyCluster

Scenario = Callable[[BusyCluster], int]
"""Prepares, measures one answer and tidies up; returns the answer's CPU time in nanoseconds."""

_WARM_UP = 100


class Result(msgspec.Struct, frozen=True):
    name: str
    nodes: int
    rounds: int
    p50_us: float
    p99_us: float
    budget_us: float

    @property
    def within_budget(self) -> bool:
        return self.p99_us <= self.budget_us


def gang_fits(cluster: BusyCluster) -> int:
    """A gang of 1 + 20 is decided and committed."""
    app = cluster.arrives(cluster.random_shape(), 20)
    spent = cluster.finds(app)
    cluster.expect_started(app)
    cluster.starts(app, executors=cluster.random.randint(0, 20))
    cluster.somebody_ends()
    return spent


def gang_infeasible(cluster: BusyCluster) -> int:
    """A gang that an empty cluster would hold, but not this one."""
    shape = cluster.random_shape()
    app = cluster.arrives(shape, cluster.more_than_fits(shape))
    spent = cluster.finds(app)
    cluster.expect_waiting(app)
    cluster.is_deleted(app)
    cluster.somebody_changes()
    return spent


def gang_100k_executors(cluster: BusyCluster) -> int:
    """100,000 executors: small ones that fit, in turn with large ones that do not."""
    fits = cluster.flip()
    app = cluster.arrives(cluster.tiny_shape() if fits else cluster.random_shape(), 100_000)
    spent = cluster.finds(app)
    if fits and cluster.large_enough:
        cluster.expect_started(app)
    cluster.is_deleted(app)
    cluster.somebody_changes()
    return spent


def executor_own_slot(cluster: BusyCluster) -> int:
    """The admission of an executor whose slot is reserved."""
    spent = cluster.asks(cluster.with_unfilled_slot(), extra=False)
    cluster.somebody_changes()
    return spent


def executor_extra(cluster: BusyCluster) -> int:
    """The admission of an executor above the minimum."""
    spent = cluster.asks(cluster.without_unfilled_slot(), extra=True)
    cluster.somebody_changes()
    return spent


def gang_behind_50(cluster: BusyCluster) -> int:
    """Room is freed, so that each of 50 waiting gangs is considered anew, and a driver arrives behind them."""
    cluster.keep_waiting(50)
    app = cluster.arrives(cluster.random_shape(), 5)
    spent = cluster.executor_finishes() + cluster.finds(app)
    cluster.expect_started(app)
    cluster.is_deleted(app)
    cluster.executor_is_replaced()
    return spent


def queue_round(cluster: BusyCluster) -> int:
    """2,000 applications wait in 500 queues; each gets a turn, in order, and none can start."""
    return cluster.queues.passes_everybody()


def decision_round(cluster: BusyCluster) -> int:
    """Room is freed while 2,000 applications wait in 500 queues: one starts or the other, everybody else waits on."""
    return cluster.full.room_is_freed()


def why(cluster: BusyCluster) -> int:
    """One of these 2,000 is explained, with the changes that would start it."""
    return cluster.full.explains()


SCENARIOS: dict[str, tuple[Scenario, float]] = {
    "gang_fits": (gang_fits, 500),
    "gang_infeasible": (gang_infeasible, 300),
    "gang_100k_executors": (gang_100k_executors, 5000),
    "executor_own_slot": (executor_own_slot, 25),
    "executor_extra": (executor_extra, 200),
    "gang_behind_50": (gang_behind_50, 2000),
    "queue_round": (queue_round, 6000),
    "decision_round": (decision_round, 20_000),
    "why": (why, 100_000),
}
"""What is measured, and the budget of its 99th percentile in microseconds."""


def measure(names: Sequence[str], nodes: int, rounds: int, calls: int, seed: int) -> list[Result]:
    """Measure these scenarios on one cluster, each ``rounds`` times ``calls``."""
    cluster = BusyCluster(nodes, seed)
    gc.collect()
    gc.freeze()
    try:
        return [_measure(name, cluster, rounds, calls) for name in names]
    finally:
        gc.unfreeze()


def _measure(name: str, cluster: BusyCluster, rounds: int, calls: int) -> Result:
    scenario, budget = SCENARIOS[name]
    for _ in range(_WARM_UP):
        scenario(cluster)
    measured = [_round(scenario, cluster, calls) for _ in range(rounds)]
    cluster.nobody_waits()
    cluster.scheduler.validate()
    return Result(
        name=name,
        nodes=cluster.nodes,
        rounds=rounds,
        p50_us=_over_rounds(measured, 50),
        p99_us=_over_rounds(measured, 99),
        budget_us=budget,
    )


def _round(scenario: Scenario, cluster: BusyCluster, calls: int) -> list[int]:
    """CPU nanoseconds per answer, ascending."""
    gc.collect()
    gc.disable()
    try:
        return sorted(scenario(cluster) for _ in range(calls))
    finally:
        gc.enable()


def _over_rounds(rounds: list[list[int]], percentile: int) -> float:
    """The percentile of each round, and of these the median, in microseconds: one disturbed round does not count."""
    of_rounds = [spent[min(len(spent) - 1, len(spent) * percentile // 100)] for spent in rounds]
    return round(statistics.median(of_rounds) / 1000, 1)


def as_json(results: Sequence[Result]) -> str:
    """A list of ``{name, nodes, rounds, p50_us, p99_us}``."""
    wanted = ("name", "nodes", "rounds", "p50_us", "p99_us")
    rows = [{key: getattr(result, key) for key in wanted} for result in results]
    return msgspec.json.format(msgspec.json.encode(rows)).decode()


def as_table(results: Sequence[Result]) -> None:
    """Print what was measured beside its budget."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"CPU time per answer, {results[0].nodes} nodes", title_justify="left")
    table.add_column("measurement")
    for heading in ("p50", "p99", "budget"):
        table.add_column(heading, justify="right")
    table.add_column("verdict")
    for result in results:
        verdict = "[green]within[/green]" if result.within_budget else "[red]over[/red]"
        times = (result.p50_us, result.p99_us, result.budget_us)
        table.add_row(result.name, *(_readable(value) for value in times), verdict)
    Console().print(table)


def _readable(microseconds: float) -> str:
    return f"{microseconds / 1000:.2f} ms" if microseconds >= 1000 else f"{microseconds:.0f} µs"
