"""The proxy between a client and an API server: what it says happened is what happened."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from muster.devcluster.cluster import DevCluster
from muster.kube.client import Client
from muster.kube.config import load_access
from muster.kube.errors import ApiError
from muster.kube.kinds import CONFIG_MAPS
from muster.kube.list_watch import Deleted, ListWatch, Synced
from muster.kube.retry import RetryPolicy
from tests.faults.fault_plan import FaultPlan, Rates
from tests.faults.fault_proxy import FaultProxy
from tests.kubernetes.real_cluster import until

ONCE = RetryPolicy(attempts=1)


def always(**rates: float) -> FaultPlan:
    return FaultPlan(seed=1, faulty_seconds=3600.0, rates=Rates(**rates), events=())


@asynccontextmanager
async def proxied(folder: Path) -> AsyncIterator[tuple[DevCluster, FaultProxy, Client]]:
    """The cluster, the proxy before it, and a client through it that asks once."""
    async with (
        DevCluster((), namespaces=("a",)) as cluster,
        FaultProxy(cluster.kubeconfig, folder) as proxy,
        Client(load_access(proxy.kubeconfig), retry=ONCE, timeout=5.0) as client,
    ):
        yield cluster, proxy, client


def config_map(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}


async def created(client: Client, name: str) -> int:
    """The code that a client gets; 201 is told as 200."""
    try:
        await client.create(CONFIG_MAPS, config_map(name), "a")
    except ApiError as error:
        return error.code
    return 200


async def names(cluster: DevCluster) -> set[str]:
    found = await cluster.client.list(CONFIG_MAPS, "a")
    return {item.metadata.name for item in found if item.metadata.name != "kube-root-ca.crt"}


async def test_without_faults_everything_passes(tmp_path: Path) -> None:
    async with proxied(tmp_path) as (cluster, proxy, client):
        assert [await created(client, f"m{number}") for number in range(3)] == [200] * 3
        assert await names(cluster) == {"m0", "m1", "m2"}
        assert not proxy.injected


async def test_what_is_refused_is_not_done(tmp_path: Path) -> None:
    async with proxied(tmp_path) as (cluster, proxy, client):
        proxy.follow(always(refuse=1.0))
        codes = {await created(client, f"m{number}") for number in range(3)}
        assert codes <= {409, 429, 500, 503}
        assert proxy.injected.total() == 3
        assert await names(cluster) == set()


async def test_what_loses_its_answer_is_done_all_the_same(tmp_path: Path) -> None:
    async with proxied(tmp_path) as (cluster, proxy, client):
        proxy.follow(always(lose_answer=1.0))
        codes = {await created(client, f"m{number}") for number in range(8)}
        assert codes == {0, 500}
        assert await names(cluster) == {f"m{number}" for number in range(8)}


async def test_a_request_that_is_given_up_on_its_way_is_never_done(tmp_path: Path) -> None:
    async with proxied(tmp_path) as (cluster, proxy, client):
        proxy.follow(always(delay=1.0, longest_delay=1e6))
        async with asyncio.timeout(30):
            while not {"delay the request", "delay the answer"} <= proxy.injected.keys():
                before = proxy.injected["delay the request"]
                name = f"m{proxy.injected.total()}"
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.5):
                        await client.create(CONFIG_MAPS, config_map(name), "a")
                on_its_way = proxy.injected["delay the request"] > before
                assert (name in await names(cluster)) is not on_its_way


@pytest.mark.parametrize("rates", [{"cut_watch": 0.7}, {"expire_watch": 0.7}, {"cut_watch": 0.5, "expire_watch": 0.3}])
async def test_a_list_watch_through_cut_and_expired_watches_misses_nothing(
    tmp_path: Path, rates: dict[str, float]
) -> None:
    async with proxied(tmp_path) as (cluster, proxy, client):
        seen: set[str] = set()

        def see(event: object) -> None:
            if isinstance(event, Deleted):
                seen.discard(event.name)
            elif not isinstance(event, Synced):
                seen.add(event.object.metadata.name)  # type: ignore[attr-defined]

        proxy.follow(always(**rates))
        watch = asyncio.create_task(ListWatch(client, CONFIG_MAPS, "a").run(see))
        try:
            async with asyncio.timeout(30):
                number = 0
                while proxy.injected.total() < 4:
                    await cluster.client.create(CONFIG_MAPS, config_map(f"m{number}"), "a")
                    if number >= 3:
                        await cluster.client.delete(CONFIG_MAPS, f"m{number - 3}", "a")
                    number += 1
                    await asyncio.sleep(0.05)

            async def knows_all() -> bool:
                return seen - {"kube-root-ca.crt"} == await names(cluster)

            await until("it knows what there is", knows_all, 30)
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
