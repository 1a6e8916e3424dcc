"""Pods of the archived scheduler's users, for the tests of this folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from muster.kube.objects import Pod

DATA = Path(__file__).parent / "data"
ANNOTATIONS = {
    "spark-driver-cpu": "1",
    "spark-driver-mem": "1024Mi",
    "spark-executor-cpu": "2",
    "spark-executor-mem": "4096Mi",
    "spark-executor-count": "4",
}


def cases(name: str) -> dict[str, Any]:
    return {case["id"]: case for case in json.loads((DATA / f"{name}.json").read_text())}


def driver_pod(name: str = "driver", namespace: str = "ns", **more: Any) -> Pod:
    """As a submission writes it: labels, sizes as annotations, an instance group as node affinity."""
    affinity = {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "resource_channel", "operator": "In", "values": ["batch"]}]}
                ]
            }
        }
    }
    metadata = {
        "name": name,
        "namespace": namespace,
        "uid": f"uid-of-{name}",
        "labels": {"spark-role": "driver", "spark-app-id": "app-1"},
        "annotations": ANNOTATIONS,
        "creationTimestamp": "2023-04-20T12:00:00Z",
    }
    spec = {"schedulerName": "spark-scheduler", "affinity": affinity, "containers": [{"name": "driver"}]}
    return msgspec.convert(
        {
            "metadata": metadata | more.pop("metadata", {}),
            "spec": spec | more.pop("spec", {}),
            "status": more.pop("status", {}),
        },
        Pod,
    )
