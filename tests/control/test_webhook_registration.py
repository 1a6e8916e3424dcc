"""Who writes what of the MutatingWebhookConfiguration, and that nobody takes another's CA away."""

from __future__ import annotations

import asyncio
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from muster.control.config import Webhook
from muster.control.registration import WebhookRegistration, ca_patch, trusts
from muster.devcluster.server import ApiServer
from muster.kube.certificates import make_authority
from muster.kube.client import Client
from muster.kube.config import load_access
from muster.kube.kinds import MUTATING_WEBHOOKS
from muster.kube.manifests import webhook_configuration

NOW = datetime(2026, 11, 25, tzinfo=UTC)
FIRST = make_authority(NOW, timedelta(days=10)).certificate
SECOND = make_authority(NOW + timedelta(days=1), timedelta(days=10)).certificate


class Serving(msgspec.Struct):
    """A certificate that never needs anything."""

    ca_pem: bytes

    async def check(self) -> None:
        pass


class Registrar:
    """Runs a registration, and waits until it has looked."""

    def __init__(self, client: Client, registration: str) -> None:
        self.client = client
        self.told: list[bool] = []
        webhook = msgspec.convert({"registration": registration, "certificates": {"checkInterval": "0.05s"}}, Webhook)
        self._registration = WebhookRegistration(client, webhook, "muster-system", 8443, self.told.append)

    async def keep_until(self, ca_pem: bytes, told: bool) -> None:
        task = asyncio.create_task(self._registration.keep(Serving(ca_pem)))
        try:
            async with asyncio.timeout(30):
                while not self.told or self.told[-1] is not told:
                    assert not task.done() or task.result() is None
                    await asyncio.sleep(0.02)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def bundle(self) -> bytes:
        [hook] = (await self.client.get(MUTATING_WEBHOOKS, "muster"))["webhooks"]
        return b64decode(hook["clientConfig"].get("caBundle", ""))


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with ApiServer() as api:
        kubeconfig = tmp_path / "kubeconfig"
        api.write_kubeconfig(kubeconfig)
        async with Client(load_access(kubeconfig)) as client:
            yield client


async def test_the_ca_is_written_into_what_is_installed_and_nothing_else_of_it_changes(client: Client) -> None:
    await client.create(MUTATING_WEBHOOKS, webhook_configuration(b"", timeout_seconds=7))
    registrar = Registrar(client, "ca-bundle")
    await registrar.keep_until(FIRST, told=True)
    [hook] = (await client.get(MUTATING_WEBHOOKS, "muster"))["webhooks"]
    assert b64decode(hook["clientConfig"].pop("caBundle")) == FIRST
    [expected] = webhook_configuration(b"", timeout_seconds=7)["webhooks"]
    assert expected.items() <= hook.items()


async def test_a_bundle_that_somebody_has_emptied_is_filled_again(client: Client) -> None:
    await client.create(MUTATING_WEBHOOKS, webhook_configuration(b""))
    await Registrar(client, "ca-bundle").keep_until(FIRST, told=True)
    configuration = await client.get(MUTATING_WEBHOOKS, "muster")
    del configuration["webhooks"][0]["clientConfig"]["caBundle"]
    await client.replace(MUTATING_WEBHOOKS, "muster", configuration)
    registrar = Registrar(client, "ca-bundle")
    await registrar.keep_until(FIRST, told=True)
    assert await registrar.bundle() == FIRST


async def test_what_is_not_installed_is_not_created_and_that_is_told(client: Client) -> None:
    registrar = Registrar(client, "ca-bundle")
    await registrar.keep_until(FIRST, told=False)
    assert await client.list(MUTATING_WEBHOOKS) == []
    await client.create(MUTATING_WEBHOOKS, webhook_configuration(b""))
    await registrar.keep_until(FIRST, told=True)
    assert await registrar.bundle() == FIRST


async def test_a_replica_with_an_older_bundle_does_not_write_it_back(client: Client) -> None:
    await client.create(MUTATING_WEBHOOKS, webhook_configuration(b""))
    newer = Registrar(client, "ca-bundle")
    await newer.keep_until(SECOND + FIRST, told=True)
    await Registrar(client, "ca-bundle").keep_until(FIRST, told=True)
    assert await newer.bundle() == SECOND + FIRST


async def test_somebody_elses_ca_is_left_alone(client: Client) -> None:
    await client.create(MUTATING_WEBHOOKS, webhook_configuration(SECOND))
    registrar = Registrar(client, "none")
    await registrar.keep_until(FIRST, told=True)
    assert await registrar.bundle() == SECOND


async def test_outside_a_cluster_all_of_it_is_written(client: Client) -> None:
    registrar = Registrar(client, "create")
    await registrar.keep_until(FIRST, told=True)
    assert await registrar.bundle() == FIRST


def test_another_webhook_in_the_same_configuration_is_nobodys_business() -> None:
    configuration = webhook_configuration(b"")
    other = {"name": "other.example.com", "clientConfig": {"caBundle": b64encode(SECOND).decode()}}
    configuration["webhooks"].insert(0, other)
    assert not trusts(configuration, FIRST)
    assert [step["path"] for step in ca_patch(configuration, FIRST)] == [
        "/webhooks/1/name",
        "/webhooks/1/clientConfig/caBundle",
    ]
