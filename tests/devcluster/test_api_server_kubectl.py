"""kubectl against the embedded server: the commands people use."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from muster.devcluster.server import ApiServer

pytestmark = [
    pytest.mark.kubectl,
    pytest.mark.skipif(
        shutil.which("kubectl") is None, reason="there is no kubectl on the PATH (Debian: kubernetes-client)"
    ),
]

MANIFEST = """
apiVersion: v1
kind: Pod
metadata: {name: p, labels: {app: x}}
spec:
  containers: [{name: c, image: "x:1"}]
---
apiVersion: v1
kind: Service
metadata: {name: s}
spec: {selector: {app: x}, ports: [{port: 80}]}
"""
DEFINITION = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gangs.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: gangs, kind: Gang, shortNames: [gg]}
  versions:
  - name: v1
    served: true
    storage: true
    additionalPrinterColumns: [{name: Queue, type: string, jsonPath: .spec.queue}]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, properties: {queue: {type: string}}}
"""
GANG = """
apiVersion: example.com/v1
kind: Gang
metadata: {name: g}
spec: {queue: research}
"""


class Kubectl:
    def __init__(self, home: Path) -> None:
        self._home = home

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        environment = {"KUBECONFIG": str(self._home / "kubeconfig"), "HOME": str(self._home), "PATH": "/usr/bin:/bin"}
        kubectl = shutil.which("kubectl")
        assert kubectl is not None
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            kubectl, *arguments, stdin=pipe, stdout=pipe, stderr=pipe, env=environment
        )

    async def __call__(self, *arguments: str, stdin: str = "") -> str:
        """The standard output of a command that must succeed."""
        process = await self.start(*arguments)
        output, said = await process.communicate(stdin.encode())
        assert process.returncode == 0, said.decode()
        return output.decode()


@pytest.fixture
async def kubectl(tmp_path: Path) -> AsyncIterator[Kubectl]:
    async with ApiServer() as api:
        api.write_kubeconfig(tmp_path / "kubeconfig")
        yield Kubectl(tmp_path)


async def test_apply_get_describe_and_delete(kubectl: Kubectl) -> None:
    applied = await kubectl("apply", "-f", "-", stdin=MANIFEST)
    assert applied == "pod/p created\nservice/s created\n"
    assert "unchanged" in await kubectl("apply", "-f", "-", stdin=MANIFEST)
    changed = await kubectl("apply", "-f", "-", stdin=MANIFEST.replace("app: x}}\nspec:\n  c", "app: z}}\nspec:\n  c"))
    assert changed.startswith("pod/p configured")
    header, row = (await kubectl("get", "pods")).splitlines()
    assert header.split() == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert row.split()[:4] == ["p", "0/1", "Pending", "0"]
    described = await kubectl("describe", "pod", "p")
    assert "QoS Class:" in described
    assert "node.kubernetes.io/unreachable:NoExecute" in described
    assert "deleted" in await kubectl("delete", "-f", "-", stdin=MANIFEST)
    assert json.loads(await kubectl("get", "pods", "-o", "json"))["items"] == []


async def test_create_patch_label_and_annotate(kubectl: Kubectl) -> None:
    await kubectl("create", "namespace", "team")
    await kubectl("create", "configmap", "c", "-n", "team", "--from-literal=x=1")
    await kubectl("label", "configmap", "c", "-n", "team", "a=b")
    await kubectl("annotate", "configmap", "c", "-n", "team", "note=hello")
    await kubectl("patch", "configmap", "c", "-n", "team", "-p", '{"data":{"y":"2"}}')
    config = json.loads(await kubectl("get", "configmap", "c", "-n", "team", "-o", "json"))
    assert config["data"] == {"x": "1", "y": "2"}
    assert config["metadata"]["labels"] == {"a": "b"}
    assert config["metadata"]["annotations"] == {"note": "hello"}
    selected = await kubectl("get", "configmaps", "-A", "-l", "a=b", "-o", "name")
    assert selected == "configmap/c\n"
    await kubectl("delete", "namespace", "team")


async def test_server_side_apply(kubectl: Kubectl) -> None:
    said = await kubectl("apply", "--server-side", "-f", "-", stdin=MANIFEST)
    assert said == "pod/p serverside-applied\nservice/s serverside-applied\n"
    dry = await kubectl("apply", "--dry-run=server", "-f", "-", stdin=MANIFEST)
    assert "server dry run" in dry


async def test_custom_resources_show_their_columns(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", stdin=DEFINITION)
    await kubectl("wait", "--for=condition=Established", "crd/gangs.example.com")
    await kubectl("apply", "-f", "-", stdin=GANG)
    header, row = (await kubectl("get", "gg")).splitlines()
    assert header.split() == ["NAME", "QUEUE"]
    assert row.split() == ["g", "research"]
    assert "gangs" in await kubectl("api-resources", "--api-group=example.com")


async def test_watching_until_a_condition_holds(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", stdin=MANIFEST)
    waiting = await kubectl.start("wait", "--for=delete", "pod/p", "--timeout=20s")
    await kubectl("delete", "pod", "p")
    assert await waiting.wait() == 0
    watching = await kubectl.start("get", "configmaps", "--watch-only", "--no-headers")
    assert watching.stdout is not None
    # The watch may begin after the first creations; it sees one of them in the end.
    for index in range(100):
        await kubectl("create", "configmap", f"c{index}")
        try:
            async with asyncio.timeout(0.2):
                line = await watching.stdout.readline()
            break
        except TimeoutError:
            continue
    assert line.startswith(b"c")
    watching.terminate()
    await watching.communicate()


async def test_nodes_are_cordoned_and_listed(kubectl: Kubectl) -> None:
    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "n1", "labels": {"node-role.kubernetes.io/worker": ""}},
    }
    await kubectl("create", "-f", "-", stdin=json.dumps(node))
    await kubectl("cordon", "n1")
    row = (await kubectl("get", "nodes", "--no-headers")).split()
    assert row[:3] == ["n1", "Unknown,SchedulingDisabled", "worker"]
    assert "node.kubernetes.io/not-ready:NoSchedule" in await kubectl("describe", "node", "n1")


async def test_errors_read_as_those_of_a_real_cluster(kubectl: Kubectl) -> None:
    process = await kubectl.start("get", "pod", "nobody")
    _, said = await process.communicate()
    assert process.returncode == 1
    assert said.decode() == 'Error from server (NotFound): pods "nobody" not found\n'
