"""How gangs are listed, from Gang objects as the API serves them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from muster.cli.gangs import is_called, render

NOW = datetime(2026, 3, 1, 12, 5, 0, tzinfo=UTC)


def gang(**changes: Any) -> dict[str, Any]:
    return {
        "apiVersion": "muster.dev/v1alpha1",
        "kind": "Gang",
        "metadata": {"name": "spark-7d0b", "namespace": "team-a", "uid": "1"},
        "spec": {
            "applicationId": "spark-7d0b",
            "applicationName": "nightly",
            "queue": "default",
            "minExecutors": 20,
            "maxExecutors": 20,
            "driver": {"podName": "nightly-5f-driver"},
            **changes.get("spec", {}),
        },
        "status": {
            "phase": "Pending",
            "reason": "WaitingForCapacity",
            "message": "12 of 20 executors fit",
            "found": "2026-03-01T12:01:40.000000Z",
            **changes.get("status", {}),
        },
    }


def lines(*gangs: dict[str, Any], **options: bool) -> list[list[str]]:
    return [line.split() for line in render(gangs, NOW, **options).splitlines()]


def test_a_waiting_gang_shows_how_long_it_has_waited_and_for_what() -> None:
    assert lines(gang()) == [
        ["APP", "QUEUE", "PHASE", "MIN", "RUNNING", "MAX", "WAIT", "REASON"],
        ["nightly", "default", "Pending", "20", "0", "20", "3m20s", "WaitingForCapacity"],
    ]


def test_a_reserved_gang_shows_how_long_it_had_waited() -> None:
    reserved = gang(
        status={"phase": "Running", "reason": "Whole", "reservedAt": "2026-03-01T12:01:52.500000Z", "running": 20}
    )
    assert lines(reserved)[1][4:7] == ["20", "20", "12s"]


def test_a_gang_without_a_ceiling_says_so() -> None:
    assert lines(gang(spec={"maxExecutors": None}))[1][5] == "∞"


def test_namespaces_and_wide_add_columns() -> None:
    header, row = lines(gang(), namespaces=True, wide=True)
    assert (header[0], row[0]) == ("NAMESPACE", "team-a")
    assert header[-3:] == ["NAME", "DRIVER", "MESSAGE"]
    assert "nightly-5f-driver" in row


def test_an_object_that_nobody_has_reported_on_is_listed_too() -> None:
    bare = {"metadata": {"name": "spark-1"}, "spec": {"applicationId": "spark-1"}}
    assert lines(bare)[1] == ["spark-1", "Pending", "0", "∞"]


@pytest.mark.parametrize("name", ["spark-7d0b", "nightly", "nightly-5f-driver"])
def test_an_application_is_found_by_id_name_or_driver_pod(name: str) -> None:
    assert is_called(gang(), name)
    assert not is_called(gang(), name + "x")
