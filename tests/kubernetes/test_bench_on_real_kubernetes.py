"""``muster bench kubernetes``, small: every mode comes to its end and says what it must say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(600)]


def test_every_mode_is_measured_and_bind_writes_little(tmp_path: Path) -> None:
    report = tmp_path / "kubernetes.json"
    command = [sys.executable, "-m", "muster.cli.main", "bench", "kubernetes", "--report", str(report)]
    command += ["--nodes", "20", "--shape", "1+10", "--pods", "20", "--rounds", "1"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=590)
    # 1: what bind must reach was not, which on a small cluster says nothing
    assert ended.returncode in (0, 1), ended.stderr
    rows = {row["mode"]: row for row in json.loads(report.read_text())}
    assert list(rows) == ["create-only", "kube-scheduler", "bind", "pin"], ended.stderr
    for row in rows.values():
        assert (row["nodes"], row["shape"], row["executors"], row["pods"]) == (20, "1+10", 20, 22)
        assert row["pods_per_s"] > 0
        assert 0 < row["p50_s"] <= row["p99_s"]
        assert row["cpu_s_per_1000"] > 0
    assert rows["create-only"]["writes_per_pod"] == 1
    assert rows["kube-scheduler"]["writes_per_pod"] >= 2
    assert rows["kube-scheduler"]["born_bound"] == 0
    assert rows["bind"]["born_bound"] == 20
    assert rows["bind"]["writes_per_pod"] <= 1.5
    assert rows["pin"]["born_bound"] == 0
    assert rows["pin"]["writes_per_pod_by_call"]["create pods/binding"] == 1
    assert set(rows["create-only"]["cpu_s_per_1000_by_process"]) == {"etcd", "kube-apiserver"}
    assert set(rows["bind"]["cpu_s_per_1000_by_process"]) == {"etcd", "kube-apiserver", "kube-scheduler", "muster"}
