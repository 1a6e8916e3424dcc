"""What every contract test works with: a Kubernetes API and a namespace of its own in it.

By default the embedded API server is started for each test. With MUSTER_CONTRACT_KUBECONFIG set to a kubeconfig with a
bearer token of an administrator, the same tests run unchanged against that cluster. So nothing here may rely on what
only the embedded server has. Expected behaviour is taken from the Kubernetes documentation ("API concepts", "API
conventions") and was checked against kube-apiserver 1.36.
"""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
import yaml

from muster.devcluster.server import ApiServer

from .kubernetes_api import Api

KUBECONFIG = os.environ.get("MUSTER_CONTRACT_KUBECONFIG")


@asynccontextmanager
async def _embedded() -> AsyncIterator[tuple[str, str, str]]:
    async with ApiServer() as server:
        yield server.url, server.admin_token, server.ca_pem


@asynccontextmanager
async def _real(path: str) -> AsyncIterator[tuple[str, str, str]]:
    yield _access(Path(path))


def _access(kubeconfig: Path) -> tuple[str, str, str]:
    """URL, token and certificate authority of a kubeconfig's first cluster and user."""
    config = yaml.safe_load(kubeconfig.read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    if "certificate-authority-data" in cluster:
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
    else:
        authority = Path(cluster["certificate-authority"]).read_text()
    return cluster["server"], user["token"], authority


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    """The API under test, with a fresh namespace that has its service account."""
    server = _real(KUBECONFIG) if KUBECONFIG else _embedded()
    async with server as (url, token, authority):
        context = ssl.create_default_context(cadata=authority)
        connector = aiohttp.TCPConnector(ssl=context)
        async with aiohttp.ClientSession(connector=connector) as session:
            client = Api(session, url, token, context)
            created = await client.post("/api/v1/namespaces", {"metadata": {"name": client.namespace}})
            assert created.code == 201, created.body
            account = await client.post(client.path("serviceaccounts"), {"metadata": {"name": "default"}})
            assert account.code in (201, 409), account.body
            yield client
            await client.delete(f"/api/v1/namespaces/{client.namespace}")


@pytest.fixture
async def controlled(api: Api) -> Api:
    """The API of a cluster whose controllers run; skips where there are none."""
    for _ in range(100):
        if (await api.get(api.path("configmaps", "kube-root-ca.crt"))).code == 200:
            return api
        await asyncio.sleep(0.05)
    pytest.skip("this cluster has no kube-controller-manager: nothing collects garbage or empties namespaces")


@pytest.fixture
async def node(api: Api) -> AsyncIterator[str]:
    """The name of a node that no kubelet serves."""
    name = f"node-{secrets.token_hex(4)}"
    created = await api.post("/api/v1/nodes", {"metadata": {"name": name}})
    assert created.code == 201, created.body
    yield name
    await api.delete(f"/api/v1/nodes/{name}")
