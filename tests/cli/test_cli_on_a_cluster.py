"""Commands against the embedded cluster's API: what they print, and how they fail."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from muster.cli.embedded import SYSTEM_NAMESPACE, install
from muster.cli.main import main
from muster.devcluster.server import ApiServer
from muster.kube.client import Client
from muster.kube.config import load_access
from muster.kube.kinds import NAMESPACES
from muster.kube.resources import GANGS

ANY_GANG = GANGS.decoding_to(dict)


class Cluster:
    def __init__(self, client: Client, kubeconfig: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.client = client
        self.kubeconfig = kubeconfig
        self._capsys = capsys

    async def gang(self, namespace: str, name: str, app: str, found: str, status: dict[str, Any]) -> None:
        spec = {"applicationId": name, "applicationName": app, "minExecutors": 4, "maxExecutors": 4}
        body = {"apiVersion": "muster.dev/v1alpha1", "kind": "Gang", "metadata": {"name": name}, "spec": spec}
        await self.client.create(ANY_GANG, body, namespace)
        report = {"status": {"found": found, **status}}
        await self.client.patch(ANY_GANG, name, report, namespace, subresource="status")

    async def muster(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        self._capsys.readouterr()
        code = await asyncio.to_thread(main, [*arguments, "--kubeconfig", str(self.kubeconfig)])
        captured = self._capsys.readouterr()
        return code, captured.out, captured.err


@pytest.fixture
async def bare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> AsyncIterator[Cluster]:
    """An API server without Muster's custom resources."""
    async with ApiServer() as api:
        kubeconfig = tmp_path / "kubeconfig"
        api.write_kubeconfig(kubeconfig, namespace="team-a")
        async with Client(load_access(kubeconfig)) as client:
            for name in ("team-a", "team-b", SYSTEM_NAMESPACE):
                namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
                await client.create(NAMESPACES, namespace)
            yield Cluster(client, kubeconfig, capsys)


@pytest.fixture
async def cluster(bare: Cluster) -> Cluster:
    """One gang that runs and one that waits in team-a, one in team-b."""
    await install(bare.client)
    runs = {"phase": "Running", "running": 4, "reservedAt": "2026-03-01T12:00:07.000000Z"}
    waits = {"phase": "Pending", "reason": "WaitingForCapacity", "message": "4 executors do not fit"}
    await bare.gang("team-a", "spark-2", "nightly", "2026-03-01T12:00:00.000000Z", runs)
    await bare.gang("team-a", "spark-1", "hourly", "2026-03-01T12:00:05.000000Z", waits)
    await bare.gang("team-b", "spark-3", "other", "2026-03-01T12:00:09.000000Z", runs)
    return bare


async def test_gangs_of_the_contexts_namespace_are_listed_oldest_first(cluster: Cluster) -> None:
    code, out, _ = await cluster.muster("gangs")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["APP", "nightly", "hourly"]
    assert "WaitingForCapacity" in out


async def test_gangs_of_all_namespaces_are_listed_with_theirs(cluster: Cluster) -> None:
    _, out, err = await cluster.muster("gangs", "-A")
    assert err == ""
    assert [line.split()[:2] for line in out.splitlines()] == [
        ["NAMESPACE", "APP"],
        ["team-a", "nightly"],
        ["team-a", "hourly"],
        ["team-b", "other"],
    ]


async def test_names_are_kubectls(cluster: Cluster) -> None:
    _, out, _ = await cluster.muster("gangs", "-n", "team-b", "-o", "name")
    assert out == "gang.muster.dev/spark-3\n"


@pytest.mark.parametrize(("format_", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
async def test_whole_objects_can_be_had(cluster: Cluster, format_: str, read: Any) -> None:
    _, out, _ = await cluster.muster("gangs", "-o", format_)
    listed = read(out)
    assert listed["kind"] == "GangList"
    assert [item["metadata"]["name"] for item in listed["items"]] == ["spark-2", "spark-1"]
    _, out, _ = await cluster.muster("gangs", "hourly", "-o", format_)
    assert read(out)["spec"]["applicationName"] == "hourly"


async def test_a_gang_that_is_not_there_is_an_error_that_names_it(cluster: Cluster) -> None:
    code, out, err = await cluster.muster("gangs", "weekly")
    assert (code, out) == (1, "")
    assert "no gang of weekly in namespace team-a" in err


async def test_no_gangs_is_no_error(cluster: Cluster) -> None:
    assert await cluster.muster("gangs", "-n", "default") == (0, "", "No gangs found in namespace default.\n")


@pytest.mark.parametrize("command", [("gangs",), ("why", "nightly")], ids=" ".join)
async def test_a_cluster_without_muster_is_told_from_one_without_gangs(bare: Cluster, command: tuple[str, ...]) -> None:
    code, _, err = await bare.muster(*command)
    assert code == 1
    assert "does not know Gangs; `muster manifests | kubectl apply -f -` installs Muster" in err
    assert err.count("\n") == 1


async def test_why_falls_back_to_the_gangs_status_and_says_so(cluster: Cluster) -> None:
    code, out, err = await cluster.muster("why", "hourly", "--server", "http://127.0.0.1:1")
    assert code == 0
    assert out == "hourly: Pending, WaitingForCapacity\n  4 executors do not fit\n"
    assert "From the gang's status only, because http://127.0.0.1:1 cannot be reached" in err


async def test_why_finds_the_namespace_before_the_slash(cluster: Cluster) -> None:
    _, out, _ = await cluster.muster("why", "team-b/other", "--server", "http://127.0.0.1:1", "-o", "json")
    assert json.loads(out)["metadata"]["namespace"] == "team-b"


async def test_why_of_nothing_is_an_error(cluster: Cluster) -> None:
    code, _, err = await cluster.muster("why", "weekly", "--server", "http://127.0.0.1:1")
    assert code == 1
    assert "no application weekly in namespace team-a" in err


async def test_a_kubeconfig_without_that_context_is_one_line_that_names_those_there_are(cluster: Cluster) -> None:
    code, _, err = await cluster.muster("gangs", "--context", "prod")
    assert code == 1
    assert "has no context prod; there are: muster" in err


async def test_watching_goes_on_with_a_line_per_change_in_the_lists_columns(cluster: Cluster) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "muster.cli.main", "gangs", "-w", "--kubeconfig", str(cluster.kubeconfig), stdout=PIPE
    )
    assert process.stdout is not None
    header, _, waiting = [await process.stdout.readline() for _ in range(3)]
    assert b"WaitingForCapacity" in waiting
    change = {"status": {"phase": "Reserved", "reason": ""}}
    await cluster.client.patch(ANY_GANG, "spark-1", change, "team-a", subresource="status")
    line = await process.stdout.readline()
    process.terminate()
    await process.wait()
    assert line.startswith(b"hourly")
    assert line.index(b"Reserved") == header.index(b"PHASE")
