"""``muster bench control`` measures what it says on a small cluster; how long anything takes is no matter of tests."""

from __future__ import annotations

import json

import msgspec
import pytest

from muster.cli.bench.control_measures import Report, Restart, Reviews, Window, figures, summarize
from muster.cli.bench.large_cluster import LargeCluster, Spot
from muster.cli.bench.review_load import Review
from muster.cli.main import main
from muster.control.admission import decode_review
from muster.kube.objects import Pod

SMALL = ["--nodes", "20", "--pods", "160", "--applications", "6", "--rate", "40", "--seconds", "2", "--relists", "1"]


@pytest.mark.timeout(240)
def test_the_first_decision_is_seen_and_every_review_answered(capsys: pytest.CaptureFixture[str]) -> None:
    main(["bench", "control", *SMALL, "--output", "json"])

    report = msgspec.json.decode(capsys.readouterr().out, type=Report)

    assert report.pods == 160
    assert report.restart.cpu_s > 0
    assert report.restart.ready_s > 0
    assert report.restart.decided_s > 0
    assert 0 < report.restart.peak_mib <= report.peak_mib
    # the driver that waited in the list: its Gang was written, then its gate taken off
    assert report.writes["post gangs"] == 1
    assert report.writes["patch pods"] >= 1
    for phase in (report.steady, report.relist, report.alone):
        assert phase.count == sum(phase.answers.values()) > 0
        assert set(phase.answers) <= {"bind", "hold"}
        assert 0 < phase.p50_ms <= phase.p99_ms <= phase.max_ms
    assert len(report.relist_s) == 1


def test_too_few_pods_are_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "control", "--nodes", "20", "--pods", "50", "--applications", "6"]) == 2
    assert "--pods must be at least 58" in capsys.readouterr().err


def test_quantiles_are_medians_over_windows_and_only_reviews_due_within_them_count() -> None:
    def window(began: float) -> Window:
        return Window(began, began + 1.0, cpu=0.5)

    stumble = [Review(1.5, 0.9, "bind")]
    reviews = [Review(0.5, 0.002, "bind"), *stumble, Review(2.5, 0.004, "hold"), Review(7.0, 9.0, "bind")]

    of_three = summarize(reviews, [window(0.0), window(1.0), window(2.0)])

    assert of_three == Reviews(3, 4.0, 4.0, 900.0, {"bind": 2, "hold": 1}, cpu_s_per_1000=500.0)


def test_a_figure_over_its_budget_is_told() -> None:
    fine = Reviews(1, 1.0, 5.0, 9.0, {"bind": 1}, cpu_s_per_1000=0.5)
    slow = msgspec.structs.replace(fine, p99_ms=10.1)
    report = Report(1, 1, 1, 300.0, Restart(10.0, 1.0, 1.0, 600.0), fine, slow, fine, (1.0,), 700.0, {})

    over = [figure.name for figure in figures(report) if not figure.within_budget]

    assert over == ["review during a relist: p99"]


def test_the_large_cluster_speaks_as_an_api_server() -> None:
    """Sizes as of pods of Spark 4.3 with the managed fields of two writers: 6 to 12 kB."""
    app = LargeCluster(nodes=3, pods=30, applications=2).applications[0]

    text = app.executor(7, Spot("spark-01"), "Running", 12)
    pod = msgspec.json.decode(text, type=Pod)
    request, reviewed = decode_review(app.review(7))

    assert 6_000 < len(text) < 12_000
    assert "managedFields" in json.loads(text)["metadata"]
    assert (pod.metadata.resource_version, pod.spec.node_name, pod.status.phase) == ("12", "spark-01", "Running")
    assert pod.metadata.labels["spark-exec-id"] == "7"
    assert reviewed.metadata.name == request.name == pod.metadata.name
    assert reviewed.spec.node_name == ""
