"""Who created a driver, as the real API server tells the webhook: users, groups, service accounts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from muster.control.identity import groups_of, user_of
from muster.kube.client import Client
from muster.kube.kinds import PODS
from muster.kube.resources import QUEUES
from tests.control.spark_pods import driver_pod
from tests.kubernetes.real_cluster import NAMESPACE, control_plane, muster_service

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="module")]

OPERATOR = "system:serviceaccount:spark-operator:spark-operator"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Client]:
    folder = tmp_path_factory.mktemp("identity")
    async with (
        control_plane(folder, scheduler=False) as (_, client),
        muster_service(client.access, queues={"trusted": [OPERATOR]}),
    ):
        yield client


async def created_by(
    client: Client, user: str, *groups: str, claims: dict[str, str] | None = None
) -> tuple[str, tuple[str, ...]]:
    """What a driver says of its maker, created (for show) by an administrator who acts as that user."""
    pod: dict[str, Any] = driver_pod()
    pod["metadata"] = {"name": "dry-run", "labels": pod["metadata"]["labels"], "annotations": claims or {}}
    pod["spec"] = {"containers": [{"name": "driver", "image": "none"}], "serviceAccountName": "spark"}
    headers = [("Authorization", await client.access.credentials.authorization() or ""), ("Impersonate-User", user)]
    headers += [("Impersonate-Group", group) for group in (*groups, "system:masters")]
    url = f"{client.access.server}{PODS.path(NAMESPACE)}?dryRun=All"
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=client.access.tls or True)) as http,
        http.post(url, json=pod, headers=headers) as answer,
    ):
        body = await answer.json()
        assert answer.status == 201, body
        assert body["spec"]["schedulingGates"] == [{"name": "muster.dev/gang"}]
        annotations = body["metadata"]["annotations"]
        return user_of(annotations), groups_of(annotations)


async def test_a_person_is_told_with_groups_but_not_those_of_the_system(client: Client) -> None:
    made = await created_by(client, "alice@example.com", "data", "cn=ml,ou=groups,dc=example")
    assert made == ("alice@example.com", ("data", "cn=ml,ou=groups,dc=example"))


async def test_a_service_account_is_told_by_its_user_name(client: Client) -> None:
    account = "system:serviceaccount:airflow:worker"
    assert await created_by(client, account, "system:serviceaccounts") == (account, ())


async def test_what_a_driver_claims_counts_only_when_its_maker_is_trusted(client: Client) -> None:
    claims = {"muster.dev/user": "bob", "muster.dev/groups": "ml"}
    assert await created_by(client, "mallory", claims=claims) == ("mallory", ())
    assert await created_by(client, OPERATOR, claims=claims) == ("bob", ("ml",))


async def test_kubectl_shows_queues_with_what_they_hold(client: Client) -> None:
    """The table as the server makes it (``kubectl get queues``)."""
    body = {"apiVersion": QUEUES.api_version, "kind": "Queue", "metadata": {"name": "etl"}, "spec": {"weight": 3}}
    await client.create(QUEUES, body)
    status = {
        "status": {
            "running": 2,
            "waiting": 1,
            "used": {"cpu": "12", "memory": "48Gi"},
            "conditions": [
                {
                    "type": "Accepted",
                    "status": "True",
                    "reason": "Accepted",
                    "message": "",
                    "lastTransitionTime": "2026-11-25T04:00:01Z",
                }
            ],
        }
    }
    await client.patch(QUEUES, "etl", status, subresource="status")
    headers = {
        "Authorization": await client.access.credentials.authorization() or "",
        "Accept": "application/json;as=Table;v=v1;g=meta.k8s.io",
    }
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=client.access.tls or True)) as http,
        http.get(f"{client.access.server}{QUEUES.path()}", headers=headers) as answer,
    ):
        table = await answer.json()
    columns = [one["name"] for one in table["columnDefinitions"] if not one["priority"]]
    row = dict(zip((one["name"] for one in table["columnDefinitions"]), table["rows"][0]["cells"], strict=True))
    assert columns == [
        "Name", "Parent", "Policy", "Weight", "Running", "Waiting", "CPU", "Memory", "Accepted", "Age",
    ]  # fmt: skip
    assert [row[name] for name in columns[2:-1]] == ["fifo", 3, 2, 1, "12", "48Gi", "True"]
