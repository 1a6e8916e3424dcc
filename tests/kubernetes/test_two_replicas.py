"""Two replicas behind a real API server: one decides, both answer, and either may go. The webhook must not fail once:
here its ``failurePolicy`` is Fail, so that a review without an answer would be seen.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import yaml
from cryptography import x509

from muster.devcluster.node_pool import NodePool
from muster.kube.certificates import make_authority, make_serving
from muster.kube.kinds import SECRETS
from muster.kube.manifests import webhook_configuration
from muster.kube.timestamps import parse_time
from tests.kubernetes.installed_muster import NOBODY, InstalledCluster, Replica, installed_cluster
from tests.kubernetes.real_cluster import NAMESPACE, SYSTEM_NAMESPACE, until

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="module")]

LONG_LEASE = {"duration": "300s", "renewDeadline": "200s", "retryPeriod": "0.3s"}
"""So long that whoever takes it over has not waited for its end."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plane(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[InstalledCluster]:
    folder = tmp_path_factory.mktemp("replicas")
    async with installed_cluster(folder, NodePool(count=3, cpu=8), failure_policy="Fail") as installed:
        yield installed


@pytest_asyncio.fixture(loop_scope="module")
async def cluster(plane: InstalledCluster) -> AsyncIterator[InstalledCluster]:
    """No replica runs before a test, and none after it."""
    yield plane
    await plane.muster.stop()
    await plane.delete_applications()


async def two_replicas(cluster: InstalledCluster, **config: Any) -> tuple[Replica, Replica]:
    """The one that leads, and the other."""
    leader = await cluster.muster.start_leading(**config)
    follower = await cluster.muster.start(**config)
    assert not await follower.leads()
    return leader, follower


async def certificate_of(port: int, authorities: bytes) -> x509.Certificate:
    """What is shown to a client that trusts ``authorities`` alone."""
    trust = ssl.create_default_context(cadata=authorities.decode())
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    await writer.wait_closed()
    return x509.load_der_x509_certificate(shown)


async def secret(cluster: InstalledCluster) -> dict[str, bytes]:
    """What the Secret with the certificates holds; nothing while there is none."""
    found = await cluster.client.list(SECRETS, SYSTEM_NAMESPACE, field_selector="metadata.name=muster-webhook-tls")
    return found[0].data if found else {}


@asynccontextmanager
async def creating(cluster: InstalledCluster) -> AsyncIterator[list[int]]:
    """Pods are created one after the other, without being stored, each over a connection that is verified anew.

    Gives the status of each creation so far.
    """
    admin = yaml.safe_load(cluster.plane.kubeconfig.read_text())
    trust = ssl.create_default_context(cafile=admin["clusters"][0]["cluster"]["certificate-authority"])
    headers = {"Authorization": f"Bearer {admin['users'][0]['user']['token']}"}
    url = f"{cluster.plane.url}/api/v1/namespaces/{NAMESPACE}/pods?dryRun=All"
    statuses: list[int] = []

    async def create() -> None:
        async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(ssl=trust)) as http:
            while True:
                async with http.post(url, json=NOBODY) as answer:
                    statuses.append(answer.status)
                    assert answer.status == 201, await answer.text()
                await cluster.muster.balancer.renew()
                await asyncio.sleep(0.02)  # leaves the machine to the others

    work = asyncio.create_task(create())
    try:
        yield statuses
    finally:
        if not work.done():
            work.cancel()
        await asyncio.gather(work, return_exceptions=True)
    if not work.cancelled():
        work.result()


async def test_both_serve_the_same_certificate_of_the_same_authority(cluster: InstalledCluster) -> None:
    leader, follower = await two_replicas(cluster)
    kept = await secret(cluster)
    shown = [await certificate_of(each.webhook_port, kept["ca.crt"]) for each in (leader, follower)]
    assert shown == x509.load_pem_x509_certificates(kept["tls.crt"]) * 2


async def test_the_one_without_the_lease_holds_executors_and_the_leader_releases_them(
    cluster: InstalledCluster,
) -> None:
    leader, follower = await two_replicas(cluster)
    balancer = cluster.muster.balancer
    for asked, mode in ((follower, "pin"), (leader, "bind")):
        balancer.backends[:] = [asked.webhook_port]
        await balancer.renew()
        application = await cluster.submit(f"asks-{mode}", executors=3, run_seconds=30)
        executors = await cluster.expect_executors(application, 3)
        assert {pod.metadata.annotations["muster.dev/mode"] for pod in executors} == {mode}
        gang = await cluster.expect_phase(application, "Running")
        assert sorted(pod.spec.node_name for pod in executors) == sorted(
            slot.node for slot in gang.spec.slots for _ in range(slot.count)
        )
        await cluster.expect_succeeded(application)
    assert await follower.metric("muster_admissions_total") >= 4


@pytest.mark.skip(reason="on a busy machine creations stand still after the hand-over, of yet unknown cause")
async def test_a_leader_that_is_stopped_hands_over_at_once_and_no_review_fails(cluster: InstalledCluster) -> None:
    leader, follower = await two_replicas(cluster, lease=LONG_LEASE, webhook={"shutdownDelay": "2s"})
    before = (await cluster.muster.lease()).spec
    assert before.holder_identity == leader.identity
    async with creating(cluster) as statuses:
        leader.process.terminate()
        await until("the other leads", follower.leads)
        assert leader.runs or leader.process.returncode == 0
        cluster.muster.balancer.backends.remove(leader.webhook_port)
        assert await leader.process.wait() == 0
        count = len(statuses)

        async def more() -> bool:
            return len(statuses) > count + 10

        await until("pods are still created", more)
    after = (await cluster.muster.lease()).spec
    assert after.holder_identity == follower.identity
    waited = parse_time(after.acquire_time or "") - parse_time(before.renew_time or "")
    assert waited < 200, "the lease was released: nobody waited for its end"


async def test_a_leader_that_is_killed_is_followed_when_its_lease_has_run_out(cluster: InstalledCluster) -> None:
    leader, follower = await two_replicas(cluster)
    balancer = cluster.muster.balancer
    await leader.kill()
    balancer.backends.remove(leader.webhook_port)
    last = (await cluster.muster.lease()).spec
    assert last.holder_identity == leader.identity
    application = await cluster.submit("meanwhile", executors=3, run_seconds=30)
    [driver] = await cluster.pods(application, "driver")
    assert [gate.name for gate in driver.spec.scheduling_gates] == ["muster.dev/gang"]
    await cluster.expect_succeeded(application)
    now = (await cluster.muster.lease()).spec
    assert now.holder_identity == follower.identity
    waited = parse_time(now.acquire_time or "") - parse_time(last.renew_time or "")
    assert waited >= (last.lease_duration_seconds or 0) == 5


async def test_certificates_and_authorities_are_renewed_and_every_review_verifies(cluster: InstalledCluster) -> None:
    # what an earlier test left lives for years
    name = "metadata.name=muster-webhook-tls"
    await cluster.client.delete_collection(SECRETS, SYSTEM_NAMESPACE, field_selector=name)
    short = {"lifetime": "15s", "authorityLifetime": "20s", "checkInterval": "1s"}
    replicas = await two_replicas(cluster, webhook={"certificates": short})
    first = (await secret(cluster))["ca.crt"]
    [authority] = x509.load_pem_x509_certificates(first)[:1]
    balancer = cluster.muster.balancer
    balancer.served.clear()
    async with creating(cluster) as statuses:

        async def replaced() -> bool:
            kept = await secret(cluster)
            [serving] = x509.load_pem_x509_certificates(kept["tls.crt"])
            if serving.issuer == authority.subject:
                return False
            shown = [await certificate_of(each.webhook_port, kept["ca.crt"]) for each in replicas]
            return shown == [serving, serving]

        await until("both serve a certificate of another authority", replaced)
    assert len(statuses) > 50
    assert min(balancer.served[each.webhook_port] for each in replicas) > 20


async def test_certificates_of_somebody_else_are_served_and_nothing_of_theirs_is_overwritten(
    cluster: InstalledCluster, tmp_path: Path
) -> None:
    def issue() -> x509.Certificate:
        """As cert-manager does: into the mounted Secret."""
        pair = make_serving(authority, ["127.0.0.1"], datetime.now(UTC), timedelta(days=90))
        (tmp_path / "tls.key").write_bytes(pair.key)
        (tmp_path / "tls.crt").write_bytes(pair.certificate)
        return x509.load_pem_x509_certificate(pair.certificate)

    authority = make_authority(datetime.now(UTC), timedelta(days=365))
    url = f"https://127.0.0.1:{cluster.muster.balancer.port}/mutate"
    injected = webhook_configuration(authority.certificate, url=url)  # as its CA injector does
    injected["webhooks"][0]["failurePolicy"] = "Fail"
    await cluster.muster.kubectl(
        "apply", "--server-side", "--force-conflicts", "-f", "-", stdin=yaml.safe_dump(injected)
    )
    untouched = await secret(cluster)
    issue()
    files = {"certFile": str(tmp_path / "tls.crt"), "keyFile": str(tmp_path / "tls.key"), "checkInterval": "0.2s"}
    replica = await cluster.muster.start_leading(webhook={"registration": "none", "certificates": files})
    async with creating(cluster) as statuses:
        renewed = issue()

        async def shown() -> bool:
            return await certificate_of(replica.webhook_port, authority.certificate) == renewed

        await until("the new certificate is served", shown)
        count = len(statuses)

        async def more() -> bool:
            return len(statuses) > count + 10

        await until("pods are still created", more)
    assert (await cluster.muster.webhook())["clientConfig"] == injected["webhooks"][0]["clientConfig"]
    assert await secret(cluster) == untouched
