"""What the demo shows while it runs and says at its end, from a hand-made moment."""

from __future__ import annotations

import io

import msgspec
import pytest
from rich.console import Console

from muster.cli.demo.measure import Expected, GangObserved, Measurement, NodeObserved, Outcome, PodObserved
from muster.cli.demo.report import Report, build_report, closing_table, sentence, succeeded
from muster.cli.demo.view import Picture, bar, draw, line, shade
from muster.cli.demo.writes import Request, count_writes
from muster.cluster.resources import Resources

CORE = Resources.of(cpu=1000, memory=1 << 30)
NODE = Resources.of(cpu=4000, memory=8 << 30, pods=10)
PICTURE = Picture(at=9.0, elapsed=8.0, zones={"n1": "zone-a", "n2": "zone-b"}, writes_per_pod=1.25, headline="hello")


@pytest.fixture
def moment() -> Measurement:
    """One gang of two runs with one executor, one waits."""
    expected = [Expected("runs", 2, CORE, real=True), Expected("waits", 3, CORE), Expected("to-come", 1, CORE)]
    measured = Measurement(expected, {"runs": 1.0, "waits": 2.0})
    told = (
        NodeObserved(1, 1.0, "n1", NODE),
        NodeObserved(2, 1.0, "n2", NODE),
        PodObserved(3, 1.5, "d1", "default/a", "runs", driver=True, requests=CORE),
        GangObserved(4, 1.6, "default/a", (("n1", 2),), "Reserved"),
        PodObserved(5, 1.75, "d1", "default/a", "runs", driver=True, node="n1", requests=CORE),
        PodObserved(6, 2.0, "e1", "default/a", node="n1", requests=CORE),
        PodObserved(7, 2.1, "d2", "default/b", "waits", driver=True, requests=CORE),
        GangObserved(8, 2.2, "default/b", (), "Pending", "WaitingForCapacity", "3 executors do not fit"),
    )
    for seen in told:
        measured.observe(seen)
    return measured


def rendered(measured: Measurement) -> str:
    console = Console(file=io.StringIO(), width=120, color_system=None)
    console.print(draw(measured, PICTURE))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_picture_shows_nodes_queue_gangs_and_why_the_first_one_waits(moment: Measurement) -> None:
    text = rendered(moment)
    assert "2 nodes · cores 25% of 8 · memory 12% of 16 GiB" in text
    assert "zone-a ▒" in text
    assert "queue: 1 gangs wait" in text
    assert "WaitingForCapacity" in text
    assert "first waits: waits: 3 executors do not fit" in text
    assert "1 of 2" in text
    assert "1.25 API writes per pod · 0 partial gangs · 0 overcommitted nodes" in text


def test_without_a_terminal_the_same_is_one_line(moment: Measurement) -> None:
    text = line(moment, PICTURE)
    assert text == (
        "  8.0 s  1 waiting, 1 running, 0 ended; cores 25%; 3 pods; first waits: waits: 3 executors do not fit"
    )


def test_a_bar_is_full_at_the_minimum_and_marked_above_it() -> None:
    assert bar(4, 4, width=4).plain == "━━━━"
    assert bar(5, 4, width=4).plain == "━━━━+"
    assert bar(0, 0, width=4).plain == "━━━━"


def test_a_node_beyond_full_stands_out() -> None:
    assert shade(0.0)[0] == "·"
    assert shade(1.0)[0] == "█"
    assert shade(1.01)[0] == "!"


def test_the_report_counts_from_submission(moment: Measurement) -> None:
    report = build_report(moment, writes=25, pods=20, seconds=8.04)
    runs, waits, _ = report.applications
    assert (runs.name, runs.real, runs.min, runs.submit_to_driver_s, runs.outcome) == ("runs", True, 2, 0.75, "running")
    assert (waits.submit_to_driver_s, waits.submit_to_minimum_s, waits.outcome) == (None, None, "waiting")
    assert (report.writes_per_pod, report.seconds, report.pods) == (1.25, 8.0, 20)


def test_the_json_has_the_promised_keys(moment: Measurement) -> None:
    report = msgspec.json.decode(msgspec.json.encode(build_report(moment, 25, 20, 8.0)))
    assert sorted(report) == [
        "applications", "overcommitted_nodes", "partial_gangs", "pods", "seconds", "writes_per_pod",
    ]  # fmt: skip
    assert sorted(report["applications"][0]) == [
        "min", "name", "outcome", "real", "submit_to_driver_s", "submit_to_minimum_s",
    ]  # fmt: skip


def test_a_demo_with_something_unfinished_partial_or_overcommitted_has_not_succeeded(moment: Measurement) -> None:
    def report(outcome: Outcome, **numbers: int) -> Report:
        told = build_report(moment, 25, 20, 8.0)
        ended = tuple(msgspec.structs.replace(one, outcome=outcome.value) for one in told.applications)
        return msgspec.structs.replace(told, applications=ended, **numbers)

    assert succeeded(report(Outcome.SUCCEEDED))
    assert succeeded(report(Outcome.TOO_LARGE))
    assert not succeeded(report(Outcome.RUNNING))
    assert not succeeded(report(Outcome.FAILED))
    assert not succeeded(report(Outcome.SUCCEEDED, partial_gangs=1))
    assert not succeeded(report(Outcome.SUCCEEDED, overcommitted_nodes=1))


def test_the_sentence_does_not_hide_a_partial_gang(moment: Measurement) -> None:
    report = msgspec.structs.replace(build_report(moment, 25, 20, 8.0), partial_gangs=2)
    assert "2 gangs started in part" in sentence(report)
    assert "whole" not in sentence(report)


def test_the_closing_table_has_a_row_per_application(moment: Measurement) -> None:
    assert closing_table(build_report(moment, 25, 20, 8.0)).row_count == 3


def test_writes_are_those_that_scheduling_a_pod_costs() -> None:
    counted = count_writes(
        [
            Request("create", "pods", 11),
            Request("create", "pods/binding", 1),
            Request("patch", "pods", 1),
            Request("create", "gangs.muster.dev", 1),
            Request("patch", "gangs.muster.dev/status", 2),
            # what Spark, kubelets and watchers do besides
            Request("patch", "pods/status", 40),
            Request("delete", "pods", 11),
            Request("deletecollection", "pods", 1),
            Request("create", "configmaps", 2),
            Request("create", "events", 5),
            Request("update", "leases.coordination.k8s.io", 9),
            Request("list", "gangs.muster.dev", 3),
            Request("watch", "pods", 3),
        ]
    )
    assert (counted.created, counted.total) == (11, 16)
    assert counted.per_pod == pytest.approx(16 / 11)
