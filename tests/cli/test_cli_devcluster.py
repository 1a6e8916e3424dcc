"""``muster devcluster`` as a process: it says how to use it, serves kubectl's API, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import signal
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from muster.cli.devcluster import is_ours
from muster.cli.main import main
from muster.kube.client import Client
from muster.kube.config import load_access
from muster.kube.kinds import MUTATING_WEBHOOKS, NODES


async def test_a_cluster_with_muster_runs_until_it_is_told_to_end(tmp_path: Path) -> None:
    kubeconfig = tmp_path / "dev.yaml"
    arguments = ("devcluster", "--pools", "small=2x4,16;large=1x8,32", "--with-muster", "--kubeconfig", str(kubeconfig))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "muster.cli.main", *arguments, stdout=PIPE, stderr=PIPE
    )
    assert process.stderr is not None
    assert process.stdout is not None
    while b"Ctrl-C ends it" not in (line := await process.stderr.readline()):
        assert line, "it ended by itself"
    async with Client(load_access(kubeconfig)) as client:
        nodes = [node.metadata.name for node in await client.list(NODES)]
        webhooks = await client.list(MUTATING_WEBHOOKS)
    process.send_signal(signal.SIGTERM)
    output = (await process.stdout.read()).decode()
    assert await process.wait() == 0
    assert (await process.stderr.read()).decode() == "The cluster has ended.\n"
    assert sorted(nodes) == ["large-00", "small-00", "small-01"]
    assert [webhook["metadata"]["name"] for webhook in webhooks] == ["muster"]
    assert f"export KUBECONFIG={kubeconfig}" in output
    assert not kubeconfig.exists()


@pytest.mark.parametrize(
    ("content", "ours"),
    [
        (None, True),
        ("", True),
        ("clusters: [{name: muster}]", True),
        ("clusters: [{name: production}]", False),
        ("clusters: [{name: muster}, {name: production}]", False),
        ("notes", False),
        ("{", False),
    ],
)
def test_only_a_kubeconfig_of_an_embedded_cluster_is_overwritten(
    content: str | None, ours: bool, tmp_path: Path
) -> None:
    path = tmp_path / "kubeconfig"
    if content is not None:
        path.write_text(content)
    assert is_ours(path) is ours


def test_somebody_elses_kubeconfig_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text("clusters: [{name: production}]")
    assert main(["devcluster", "--kubeconfig", str(path)]) == 1
    assert "holds other clusters" in capsys.readouterr().err
    assert path.read_text() == "clusters: [{name: production}]"


def test_pools_that_do_not_parse_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devcluster", "--pools", "many"]) == 1
    assert "--pools: node pool 'many': expected [name=]COUNTxCPU,MEMORY_GIB" in capsys.readouterr().err
