"""What the embedded server gives to the program around it."""

from __future__ import annotations

import ssl
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from muster.devcluster.server import ApiServer


@pytest.fixture
async def api() -> AsyncIterator[ApiServer]:
    async with ApiServer() as server:
        yield server


@pytest.fixture
async def http(api: ApiServer) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cadata=api.ca_pem))
    headers = {"Authorization": f"Bearer {api.admin_token}", "User-Agent": "tester/1"}
    async with aiohttp.ClientSession(api.url, connector=connector, headers=headers) as session:
        yield session


async def _post(http: aiohttp.ClientSession, path: str, body: Any) -> dict[str, Any]:
    async with http.post(path, json=body) as answer:
        assert answer.status == 201, await answer.text()
        decoded: dict[str, Any] = await answer.json()
        return decoded


def _pod(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "x:1"}], **spec}}


PODS = "/api/v1/namespaces/default/pods"


async def test_requests_are_counted_by_verb_resource_and_agent(api: ApiServer, http: aiohttp.ClientSession) -> None:
    await _post(http, PODS, _pod("p"))
    await _post(http, f"{PODS}/p/binding", {"metadata": {"name": "p"}, "target": {"name": "n"}})
    async with http.post(PODS, json=_pod("p")) as refused:
        assert refused.status == 409
    assert api.audit.count(verb="create", resource="pods", agent="tester") == 1
    assert api.audit.count(verb="create", resource="pods/binding") == 1
    assert api.audit.count(verb="create", resource="pods", succeeded=False) == 1
    async with http.get("/debug/audit") as answer:
        rows = (await answer.json())["requests"]
    row = {
        "user": "kubernetes-admin",
        "agent": "tester/1",
        "verb": "create",
        "resource": "pods",
        "code": 201,
        "count": 1,
    }
    assert row in rows


async def test_the_counters_need_a_token(api: ApiServer, http: aiohttp.ClientSession) -> None:
    async with http.get("/debug/audit", headers={"Authorization": "Bearer wrong"}) as answer:
        assert answer.status == 401


async def test_the_kubeconfig_is_for_its_owner_alone(api: ApiServer, tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    api.write_kubeconfig(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    config = yaml.safe_load(path.read_text())
    assert config["clusters"][0]["cluster"]["server"] == api.url
    assert config["users"][0]["user"]["token"] == api.admin_token


async def test_logs_come_from_the_kubelet_that_is_plugged_in(api: ApiServer, http: aiohttp.ClientSession) -> None:
    await _post(http, PODS, _pod("p"))
    async with http.get(f"{PODS}/p/log") as answer:
        assert answer.status == 501

    async def logs(namespace: str, name: str, params: dict[str, str]) -> bytes:
        return f"{namespace}/{name} {params['container']}".encode()

    api.pod_logs = logs
    async with http.get(f"{PODS}/p/log", params={"container": "c"}) as answer:
        assert await answer.text() == "default/p c"


async def test_a_page_of_a_compacted_list_is_expired(api: ApiServer, http: aiohttp.ClientSession) -> None:
    for name in ("a", "b"):
        await _post(http, "/api/v1/namespaces/default/configmaps", {"metadata": {"name": name}})
    async with http.get("/api/v1/configmaps", params={"limit": 1}) as answer:
        token = (await answer.json())["metadata"]["continue"]
    await _post(http, "/api/v1/namespaces/default/configmaps", {"metadata": {"name": "c"}})
    api.store.compact()
    async with http.get("/api/v1/configmaps", params={"limit": 1, "continue": token}) as answer:
        assert answer.status == 410
        assert (await answer.json())["reason"] == "Expired"


async def test_a_node_is_free_of_its_taint_once_its_kubelet_says_ready(http: aiohttp.ClientSession) -> None:
    created = await _post(http, "/api/v1/nodes", {"metadata": {"name": "n"}})
    assert created["spec"]["taints"] == [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]
    ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    headers = {"Content-Type": "application/strategic-merge-patch+json"}
    async with http.get("/api/v1/nodes", params={"watch": "1", "resourceVersion": "0"}) as watch:
        async with http.patch("/api/v1/nodes/n/status", json=ready, headers=headers) as answer:
            assert answer.status == 200
        while True:
            line = await watch.content.readline()
            node = yaml.safe_load(line)["object"]
            if not node["spec"].get("taints"):
                return


async def test_the_same_authority_and_token_serve_again_after_a_restart(tmp_path: Path) -> None:
    from datetime import UTC, datetime, timedelta

    from muster.kube.certificates import make_authority

    authority = make_authority(datetime.now(UTC), timedelta(days=1))
    for _ in range(2):
        async with ApiServer(authority=authority, admin_token="fixed") as server:
            context = ssl.create_default_context(cadata=authority.certificate.decode())
            connector = aiohttp.TCPConnector(ssl=context)
            async with (
                aiohttp.ClientSession(connector=connector) as session,
                session.get(f"{server.url}/api/v1/pods", headers={"Authorization": "Bearer fixed"}) as answer,
            ):
                assert answer.status == 200


async def test_a_webhook_behind_a_service_is_found_through_the_address_map(
    api: ApiServer, http: aiohttp.ClientSession
) -> None:
    hook = {
        "name": "a.example.com",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "clientConfig": {"service": {"namespace": "muster", "name": "hook", "path": "/mutate"}},
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
    }
    configurations = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
    await _post(http, configurations, {"metadata": {"name": "a"}, "webhooks": [hook]})
    async with http.post(PODS, json=_pod("p")) as answer:
        assert answer.status == 500
        assert "service muster/hook has no known address" in (await answer.json())["message"]
    api.services["muster/hook"] = ("127.0.0.1", 1)
    async with http.post(PODS, json=_pod("p")) as answer:
        assert answer.status == 500
        assert "no known address" not in (await answer.json())["message"]
