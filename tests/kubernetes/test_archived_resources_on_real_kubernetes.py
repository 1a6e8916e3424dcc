"""The archived scheduler's resources on the real Kubernetes: definitions, conversion webhook, write-back store."""

from __future__ import annotations

import asyncio
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from muster.control.extender.conversion import answer_review
from muster.control.extender.definitions import (
    ConversionWebhook,
    demand_definition,
    ensure_definition,
    prunes_pod_names,
    reservation_definition,
)
from muster.control.extender.demands import DEMANDS, DemandUnit, new_demand
from muster.control.extender.reservations import RESOURCE_RESERVATIONS, Slot, bound, new_reservation
from muster.control.extender.write_back import Happened, WriteBack
from muster.devcluster.control_plane import ControlPlane
from muster.kube.certificates import make_authority, make_serving
from muster.kube.client import Client
from muster.kube.config import load_access
from muster.kube.errors import ApiError
from muster.kube.kinds import CONFIG_MAPS, NAMESPACES, PODS, Resource
from muster.kube.list_watch import Added, ListWatch
from muster.kube.objects import Pod
from tests.kubernetes.real_cluster import until

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(300)]

UNTYPED: type[dict[str, Any]] = dict
RESERVATIONS_V1BETA1 = Resource(
    RESOURCE_RESERVATIONS.group, "v1beta1", RESOURCE_RESERVATIONS.plural, RESOURCE_RESERVATIONS.kind, UNTYPED
)
DEMANDS_V1ALPHA1 = Resource(DEMANDS.group, "v1alpha1", DEMANDS.plural, DEMANDS.kind, UNTYPED)
RESOURCES = {"cpu": "1", "memory": "1Gi", "nvidia.com/gpu": "1"}


@asynccontextmanager
async def convert_endpoint(folder: Path) -> AsyncIterator[tuple[str, bytes]]:
    """``POST /convert`` over TLS: its URL and the CA to trust."""
    now = datetime.now(UTC)
    authority = make_authority(now, timedelta(days=1))
    serving = make_serving(authority, ["127.0.0.1"], now, timedelta(days=1))
    (folder / "convert.crt").write_bytes(serving.certificate)
    (folder / "convert.key").write_bytes(serving.key)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(folder / "convert.crt", folder / "convert.key")

    async def handle(request: web.Request) -> web.Response:
        return web.Response(body=answer_review(await request.read()), content_type="application/json")

    app = web.Application(client_max_size=2**24)
    app.router.add_post("/convert", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        yield f"https://127.0.0.1:{runner.addresses[0][1]}/convert", authority.certificate
    finally:
        await runner.cleanup()


def reached_by_url(definition: dict[str, Any], url: str, authority: bytes) -> dict[str, Any]:
    """Outside a cluster there is no Service to name."""
    client_config = {"url": url, "caBundle": b64encode(authority).decode()}
    definition["spec"]["conversion"]["webhook"]["clientConfig"] = client_config
    return definition


@asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[tuple[Client, Pod]]:
    """The real control plane with both definitions, and a driver pod to own things."""
    async with AsyncExitStack() as stack:
        plane = await stack.enter_async_context(ControlPlane(folder, scheduler=False))
        url, authority = await stack.enter_async_context(convert_endpoint(folder))
        client = await stack.enter_async_context(Client(load_access(plane.kubeconfig)))
        service = ConversionWebhook("none", "none", 443, "/convert", authority)
        for definition in (reservation_definition(service, {"team": "data"}), demand_definition(service)):
            wanted = reached_by_url(definition, url, authority)
            first = await ensure_definition(client, wanted)
            again = await ensure_definition(client, wanted)
            version = again["metadata"]["resourceVersion"]
            assert first["metadata"]["generation"] == again["metadata"]["generation"], version
        await client.create(NAMESPACES, {"metadata": {"name": "ns"}})
        accounts = Resource("", "v1", "serviceaccounts", "ServiceAccount", UNTYPED)
        await until("the default service account", lambda: _exists(client, accounts, "default"))
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "driver", "namespace": "ns"},
            "spec": {"containers": [{"name": "driver", "image": "none"}]},
        }
        yield client, await client.create(PODS, body, "ns")


async def _exists(client: Client, resource: Resource[Any], name: str, namespace: str = "ns") -> bool:
    try:
        await client.get(resource, name, namespace)
    except ApiError as error:
        if not error.not_found:
            raise
        return False
    return True


@asynccontextmanager
async def watched(client: Client, store: WriteBack[Any], resource: Resource[Any]) -> AsyncIterator[None]:
    async def feed() -> None:
        async with aclosing(ListWatch(client, resource).events()) as events:
            async for event in events:
                store.observed(event)

    task = asyncio.create_task(feed())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await store.close()


async def test_resources_of_the_archived_scheduler(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (client, driver):
        await reservations_are_the_same_in_both_versions(client, driver)
        await demands_keep_the_names_of_pods(client, driver)
        await the_store_writes_follows_and_forgets(client, driver)
        await the_end_of_an_object_is_found_out_without_a_watch(client, driver)
        await creates_in_a_namespace_that_is_going_are_dropped(client, driver)


async def reservations_are_the_same_in_both_versions(client: Client, driver: Pod) -> None:
    reservation = new_reservation(driver, "app-1", "n1", ["n2"], RESOURCES, RESOURCES)
    fpga = Slot("n3", {"cpu": "1", "memory": "1Gi", "example.com/fpga": "2"})
    spec = msgspec.structs.replace(reservation.spec, reservations={**reservation.spec.reservations, "executor-2": fpga})
    reservation = msgspec.structs.replace(reservation, spec=spec)
    made = await client.create(RESOURCE_RESERVATIONS, reservation, "ns")
    assert (made.spec, made.status) == (reservation.spec, reservation.status)

    old = await client.get(RESERVATIONS_V1BETA1, "app-1", "ns")
    assert old["spec"]["reservations"]["executor-1"] == {"node": "n2", "cpu": "1", "memory": "1Gi"}
    old["spec"]["reservations"]["executor-1"]["cpu"] = "10"
    await client.replace(RESERVATIONS_V1BETA1, "app-1", old, "ns")

    new = await client.get(RESOURCE_RESERVATIONS, "app-1", "ns")
    assert new.spec.reservations["executor-1"].resources == RESOURCES | {"cpu": "10"}
    assert new.spec.reservations["executor-2"] == fpga
    assert new.metadata.annotations == {}


async def demands_keep_the_names_of_pods(client: Client, driver: Pod) -> None:
    assert not prunes_pod_names(demand_definition(None))
    unit = DemandUnit(RESOURCES, 1, {"ns": ["driver"]})
    demand = new_demand(driver, "app-1", "batch", (unit,), single_zone=True, zone="z1")
    made = await client.create(DEMANDS, demand, "ns")
    assert made.spec == demand.spec
    fulfilled = {"phase": "fulfilled", "last-transition-time": "2023-04-20T12:00:00Z", "fulfilled-zone": "z1"}
    await client.patch(DEMANDS, "demand-driver", {"status": fulfilled}, "ns", subresource="status")
    old = await client.get(DEMANDS_V1ALPHA1, "demand-driver", "ns")
    assert old["spec"]["units"] == [{"count": 1, "cpu": "1", "memory": "1Gi", "gpu": "1"}]
    assert old["status"]["phase"] == "fulfilled"
    assert (await client.get(DEMANDS, "demand-driver", "ns")).status.fulfilled_zone == "z1"


async def the_store_writes_follows_and_forgets(client: Client, driver: Pod) -> None:
    store = WriteBack(client, RESOURCE_RESERVATIONS)
    async with watched(client, store, RESOURCE_RESERVATIONS):

        async def pods(name: str) -> dict[str, str]:
            return (await client.get(RESOURCE_RESERVATIONS, name, "ns")).status.pods

        async def known(expected: dict[str, str] | None) -> bool:
            found = store.get("ns", "app-2")
            return (found.status.pods if found is not None else None) == expected

        await until("the first one is known", lambda: _known(store, "app-1"))
        reservation = new_reservation(driver, "app-2", "n1", ["n2", "n2"], RESOURCES, RESOURCES)
        store.create(reservation)
        store.update(bound(reservation, "executor-1", "e1"))
        assert await store.drain(30)
        assert await pods("app-2") == {"driver": "driver", "executor-1": "e1"}

        status = {"status": {"pods": {"executor-2": "by-hand"}}}
        await client.patch(RESOURCE_RESERVATIONS, "app-2", status, "ns")
        edited = {"driver": "driver", "executor-1": "e1", "executor-2": "by-hand"}
        await until("an edit by hand is known", lambda: known(edited))

        store.delete("ns", "app-2")
        store.create(reservation)
        assert await store.drain(30)
        assert await pods("app-2") == {"driver": "driver"}

        await client.delete(RESOURCE_RESERVATIONS, "app-2", "ns")
        await until("a delete by hand is known", lambda: known(None))


async def the_end_of_an_object_is_found_out_without_a_watch(client: Client, driver: Pod) -> None:
    store = WriteBack(client, RESOURCE_RESERVATIONS)
    made = await client.create(
        RESOURCE_RESERVATIONS, new_reservation(driver, "app-4", "n1", ["n2"], RESOURCES, RESOURCES), "ns"
    )
    store.observed(Added(made))
    await client.delete(RESOURCE_RESERVATIONS, "app-4", "ns")
    store.update(bound(made, "executor-1", "e1"))
    assert await store.drain(30)
    assert store.get("ns", "app-4") is None
    await store.close()


async def _known(store: WriteBack[Any], name: str) -> bool:
    return store.get("ns", name) is not None


async def creates_in_a_namespace_that_is_going_are_dropped(client: Client, driver: Pod) -> None:
    await client.create(NAMESPACES, {"metadata": {"name": "going"}})
    held = {"metadata": {"name": "held", "finalizers": ["example.com/hold"]}}
    await client.create(CONFIG_MAPS.decoding_to(dict), held, "going")
    await client.delete(NAMESPACES, "going")
    happened: list[Happened] = []
    store = WriteBack(client, RESOURCE_RESERVATIONS, happened=lambda verb, what: happened.append(what))
    for namespace in ("going", "never-there"):
        owner = msgspec.structs.replace(driver, metadata=msgspec.structs.replace(driver.metadata, namespace=namespace))
        store.create(new_reservation(owner, "app-3", "n1", [], RESOURCES, RESOURCES))
    assert await store.drain(60)
    assert happened.count(Happened.DROPPED) == 2
    assert len(store) == 0
    await store.close()
    release = {"metadata": {"finalizers": None}}
    await client.patch(CONFIG_MAPS, "held", release, "going")
