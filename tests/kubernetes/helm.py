"""The Helm of `make helm`, as tests use it."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from muster.devcluster.control_plane import NotBuilt

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "charts" / "muster"
OURS = ("app.kubernetes.io/instance", "app.kubernetes.io/version", "app.kubernetes.io/managed-by", "helm.sh/chart")
"""Labels that Helm's conventions add."""


def binary() -> Path:
    """Raises ``NotBuilt`` that says how to get it."""
    module = (ROOT / "tools" / "helm" / "go.mod").read_text()
    version = re.search(r"helm\.sh/helm/v4 v([\d.]+)", module)
    assert version is not None
    cache = Path(os.environ.get("MUSTER_CACHE") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "muster"))
    helm = cache.expanduser() / "helm" / version.group(1) / "helm"
    if not helm.is_file():
        raise NotBuilt(f"{helm} is not there: run `make helm`")
    return helm


class Failed(Exception):
    """Helm's words."""


class Helm:
    """Runs in ``folder``, where its own files go too."""

    def __init__(self, folder: Path, kubeconfig: Path | None = None) -> None:
        self._folder = folder
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "KUBECONFIG": str(kubeconfig or folder / "no-kubeconfig"),
        }

    def template(self, values: Mapping[str, Any], *options: str, namespace: str = "muster-system") -> list[Any]:
        """What the chart renders to. Raises ``Failed``."""
        file = self.values_file(values)
        command = [binary(), "template", "muster", CHART, "--namespace", namespace, "--values", file, *options]
        done = subprocess.run(command, capture_output=True, text=True, env=self._environment, check=False, timeout=60)
        if done.returncode:
            raise Failed(done.stderr)
        return [one for one in yaml.safe_load_all(done.stdout) if one]

    def lint(self, values: Mapping[str, Any]) -> str:
        """Raises ``Failed``."""
        command = [binary(), "lint", "--strict", CHART, "--values", self.values_file(values)]
        done = subprocess.run(command, capture_output=True, text=True, env=self._environment, check=False, timeout=60)
        if done.returncode:
            raise Failed(done.stdout + done.stderr)
        return done.stdout

    async def run(self, *arguments: str | Path) -> str:
        """Its standard output. Raises ``Failed``."""
        process = await asyncio.create_subprocess_exec(
            *(binary(), *arguments),
            env=self._environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, complaint = await process.communicate()
        if process.returncode:
            raise Failed(f"{' '.join(map(str, arguments))}: {complaint.decode()}")
        return output.decode()

    def values_file(self, values: Mapping[str, Any]) -> Path:
        path = self._folder / "values.yaml"
        path.write_text(yaml.safe_dump(dict(values)))
        return path


def is_hook(manifest: Mapping[str, Any]) -> bool:
    return "helm.sh/hook" in manifest["metadata"].get("annotations", {})


def by_name(objects: Iterable[Any]) -> dict[tuple[str, str], Any]:
    return {(one["kind"], one["metadata"]["name"]): one for one in objects}


EVERYTHING_ON: dict[str, Any] = {
    "image": {"repository": "registry.example.com/spark-muster", "digest": "sha256:" + "0123456789abcdef" * 4},
    "imagePullSecrets": [{"name": "registry"}],
    "replicas": 3,
    "priorityClassName": "system-cluster-critical",
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "system", "operator": "Exists", "effect": "NoSchedule"}],
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "system", "operator": "Exists"}]}]
            }
        }
    },
    "topologySpreadConstraints": [
        {
            "maxSkew": 1,
            "topologyKey": "topology.kubernetes.io/zone",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": {"app.kubernetes.io/name": "muster"}},
        }
    ],
    "podAnnotations": {"example.com/owner": "platform"},
    "podLabels": {"team": "platform"},
    "serviceAccount": {"annotations": {"example.com/role": "none"}},
    "config": {"scheduling": {"packer": "distribute-evenly"}, "webhook": {"timeoutSeconds": 3}},
    "webhook": {"excludedNamespaces": ["kube-system", "istio-system"]},
    "certificates": {"source": "cert-manager", "certManager": {"duration": "2160h", "renewBefore": "720h"}},
    "podDisruptionBudget": {"maxUnavailable": "50%"},
    "networkPolicy": {"enabled": True},
    "priorityClasses": {"create": True, "driver": {"value": 2000000}},
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
    "dashboard": {"enabled": True, "annotations": {"grafana_folder": "Spark"}},
}
"""Values that switch on all there is."""
