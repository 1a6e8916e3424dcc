"""What the bench reads out of an audit log that kube-apiserver 1.36 wrote: one application of 1 + 10, born bound."""

from __future__ import annotations

from pathlib import Path

import pytest

from muster.cli.bench.kubernetes.audit import (
    ApplicationPods,
    IncompleteLog,
    count_failures,
    count_writes,
    read_events,
    timings,
    writes_that_count,
)

LOG = Path(__file__).parent / "data" / "audit-one-bound-application.jsonl"
DRIVER = "bench-1-e9775be333108ea9-driver"
EXECUTORS = tuple(f"bench-1-51470d02a5629611-exec-{number}" for number in range(1, 11))


def test_a_pod_with_a_binding_is_bound_by_it_and_one_without_was_born_bound() -> None:
    times = timings(read_events(LOG, "spark"), [ApplicationPods(DRIVER, EXECUTORS)])
    # the create of the driver arrived at :10.226287, its binding ended at :10.485156, the last create at :10.915734
    assert times.driver_bound == (pytest.approx(0.258869, abs=1e-6),)
    assert times.minimum_bound == (pytest.approx(0.689447, abs=1e-6),)
    assert times.span == times.creating == pytest.approx(0.689447, abs=1e-6)


def test_spans_end_with_the_last_binding_not_with_the_last_create(tmp_path: Path) -> None:
    lines = LOG.read_text().splitlines(keepends=True)
    binding = next(line for line in lines if '"subresource":"binding"' in line)
    later = binding.replace(DRIVER, EXECUTORS[2]).replace("2026-11-25T07:49:10.485156Z", "2026-11-25T07:49:13.226287Z")
    log = tmp_path / "audit.log"
    log.write_text("".join([*lines, later]))
    times = timings(read_events(log, "spark"), [ApplicationPods(DRIVER, EXECUTORS)])
    assert times.span == pytest.approx(3.0, abs=1e-6)
    assert times.minimum_bound == (pytest.approx(3.0, abs=1e-6),)
    assert times.creating == pytest.approx(0.689447, abs=1e-6)


def test_every_write_on_pods_and_gangs_counts_whoever_sent_it_but_not_the_kubelets_status_nor_events() -> None:
    writes = count_writes(read_events(LOG, "spark"), spark="spark-load", others="bench")
    assert writes == {
        "create events": 1,
        "create gangs": 1,
        "create pods": 11,
        "create pods/binding": 1,
        "patch gangs/status": 2,
        "patch pods": 1,
    }
    assert writes_that_count(writes) == 16


def test_refused_writes_are_told_apart(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_text(LOG.read_text().replace('"code":200}', '"code":409}'))
    assert count_failures(read_events(LOG, "spark")) == {}
    assert count_failures(read_events(log, "spark")) == {
        "patch gangs/status 409": 2,
        "patch pods 409": 1,
        "patch pods/status 409": 1,
    }
    assert "patch pods" not in count_writes(read_events(log, "spark"), spark="spark-load", others="bench")


def test_other_namespaces_and_an_unfinished_last_line_are_left_out(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_text(LOG.read_text() + '{"kind":"Event","verb":"cre')
    assert len(list(read_events(log, "spark"))) == len(LOG.read_text().splitlines())
    assert list(read_events(log, "default")) == []


def test_a_pod_that_the_log_lacks_is_named() -> None:
    with pytest.raises(IncompleteLog, match="no successful create of pod bench-9-exec-1"):
        timings(read_events(LOG, "spark"), [ApplicationPods(DRIVER, (*EXECUTORS, "bench-9-exec-1"))])
