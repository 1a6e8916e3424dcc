"""Muster needs each of the rights that its manifests ask for, and no other.

One scenario goes through everything the service ever does; the API server's audit log tells which rights it took.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio

from muster.devcluster.control_plane import ControlPlane
from muster.devcluster.node_pool import NodePool
from muster.devcluster.pace import Pace
from muster.devcluster.virtual_kubelet import VirtualKubelets
from muster.devcluster.virtual_spark import VirtualSpark
from muster.kube.client import Client, PatchType
from muster.kube.config import load_access
from muster.kube.kinds import EVENTS, MUTATING_WEBHOOKS, NAMESPACES, PODS, SECRETS, Resource
from muster.kube.manifests import Manifest, manifests
from muster.kube.resources import Gang
from tests.control.spark_pods import executor_pod
from tests.kubernetes.audit_trail import Permission, Use, permissions, uses
from tests.kubernetes.installed_muster import USER, Installation, Replica, installation
from tests.kubernetes.real_cluster import ACCOUNTS, NAMESPACE, SYSTEM_NAMESPACE, RealCluster, until

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="module")]

RBAC = "rbac.authorization.k8s.io"
ROLES = Resource[dict[str, Any]](RBAC, "v1", "roles", "Role", dict)
CLUSTER_ROLES = Resource[dict[str, Any]](RBAC, "v1", "clusterroles", "ClusterRole", dict, namespaced=False)
SHIPPED = {
    one["kind"]: one
    for one in manifests()
    if one["kind"] in ("Role", "ClusterRole") and one["metadata"]["name"] == "muster"
}
SHORT_LIVED = {"certificates": {"lifetime": "15s", "authorityLifetime": "20s", "checkInterval": "1s"}}
REVIEWS = Resource[dict[str, Any]](
    "authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", dict, namespaced=False
)


class Land(RealCluster):
    def __init__(self, client: Client, kubelets: VirtualKubelets, plane: ControlPlane, muster: Installation) -> None:
        super().__init__(client, kubelets)
        self.plane = plane
        self.muster = muster

    def used(self) -> list[Use]:
        return list(uses(self.plane.audit_log, USER))

    async def put_role(self, role: Manifest) -> None:
        resource = ROLES if role["kind"] == "Role" else CLUSTER_ROLES
        await self.client.apply(resource, role, field_manager="test")

    async def may_not(self, permission: Permission) -> bool:
        """Whether RBAC, which learns of changes through watches, refuses it by now."""
        asked = {
            "verb": permission.verb,
            "group": permission.group,
            "resource": permission.resource.partition("/")[0],
            "subresource": permission.resource.partition("/")[2],
            "namespace": permission.namespace,
            "name": next(iter(permission.names), ""),
        }
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview"}
        spec = {"user": USER, "resourceAttributes": asked}
        return not (await self.client.create(REVIEWS, review | {"spec": spec}))["status"]["allowed"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def land(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Land]:
    folder = tmp_path_factory.mktemp("rights")
    async with AsyncExitStack() as stack:
        plane = await stack.enter_async_context(ControlPlane(folder, audit_reads=True))
        client = await stack.enter_async_context(Client(load_access(plane.kubeconfig), user_agent="test"))
        await client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "spark"}}
        await client.create(ACCOUNTS, account, NAMESPACE)
        pace = Pace(30)
        spark = VirtualSpark(client, pace)
        pools = (NodePool(count=2, cpu=8),)
        kubelets = await stack.enter_async_context(VirtualKubelets(client, pools, pace, spark.program))
        muster = await stack.enter_async_context(installation(plane, client, folder))
        yield Land(client, kubelets, plane, muster)


async def everything_that_muster_does(land: Land) -> None:
    client, muster = land.client, land.muster
    first = await muster.start_leading(webhook=SHORT_LIVED)
    certificate = (await client.get(SECRETS, "muster-webhook-tls", SYSTEM_NAMESPACE)).data["tls.crt"]

    # gated, reserved, released, bound; a second one waits, with a Gang that is changed when its turn comes
    running = await land.submit("running", executors=9, run_seconds=120)
    await land.expect_executors(running, 9)
    waiting = await land.submit("waiting", executors=9, run_seconds=60)
    await land.expect_phase(waiting, "Pending")

    # another replica takes over what is there
    await first.terminate()
    muster.balancer.backends.clear()
    await muster.start_leading(webhook=SHORT_LIVED)

    # bad sizes: said on the driver
    invalid = await land.submit(
        "invalid", executors=1, run_seconds=10, driver_annotations={"muster.dev/min-executors": "-1"}
    )
    await land.expect_phase(invalid, "Invalid")

    async def told() -> bool:
        return any(event.reason == "InvalidSize" for event in await client.list(EVENTS, NAMESPACE))

    await until("a warning on the driver", told)
    await land.expect_succeeded(running)
    await land.expect_executors(waiting, 9)
    await land.expect_succeeded(waiting)
    await land.expect_phase(waiting, "Finished")

    # client mode: executors without a driver pod; their Gang goes with them
    for number in (1, 2):
        pod = executor_pod(number)
        del pod["metadata"]["ownerReferences"]
        pod["metadata"]["annotations"] = {"muster.dev/executor-count": "2"}
        await client.create(PODS, pod, NAMESPACE)
    notebook = pod["metadata"]["labels"]["spark-app-selector"]
    await land.expect_executors(notebook, 2)
    await land.expect_phase(notebook, "Running")
    await client.delete_collection(PODS, NAMESPACE, label_selector=f"spark-app-selector={notebook}")

    async def gone() -> bool:
        return await land.gang(notebook) is None

    await until("the Gang of the notebook is gone", gone)

    async def renewed() -> bool:
        secret = await client.get(SECRETS, "muster-webhook-tls", SYSTEM_NAMESPACE)
        return secret.data["tls.crt"] != certificate

    await until("the certificate is another one", renewed)


async def test_everything_works_and_each_right_is_used(land: Land) -> None:
    await everything_that_muster_does(land)
    used = land.used()
    assert [use for use in used if use.code in (401, 403)] == []
    granted = [one for role in SHIPPED.values() for one in permissions(role)]
    assert [one for one in granted if not any(one.allows(use) for use in used)] == []
    await land.muster.stop()


async def drivers_stay_gated(land: Land, replica: Replica, application: str) -> None:
    [driver] = await land.pods(application, "driver")
    assert [gate.name for gate in driver.spec.scheduling_gates] == ["muster.dev/gang"]


async def it_starts_without_a_gang(land: Land, replica: Replica, application: str) -> None:
    gang = await land.expect_phase(application, "Invalid")
    assert gang.status.reason == "ConfigMapMissing"


async def nobody_is_told(land: Land, replica: Replica, application: str) -> None:
    await land.expect_phase(application, "Invalid")
    [driver] = await land.pods(application, "driver")
    about = f"involvedObject.uid={driver.metadata.uid},reason=InvalidSize"
    assert await land.client.list(EVENTS, NAMESPACE, field_selector=about) == []


async def its_gang_has_no_phase(land: Land, replica: Replica, application: str) -> None:
    async def gang() -> Gang | None:
        return await land.gang(application)

    found: Gang = await until("a gang is written", gang)
    assert found.status.phase == ""


async def the_webhook_is_not_trusted(land: Land, replica: Replica, application: str) -> None:
    assert "caBundle" not in (await land.muster.webhook())["clientConfig"]
    [driver] = await land.pods(application, "driver")
    assert driver.spec.scheduling_gates == ()


async def it_ends_and_says_why(land: Land, replica: Replica, application: str) -> None:
    assert await replica.process.wait() == 1
    assert 'cannot get resource "secrets"' in replica.text()


Breakage = Callable[[Land, Replica, str], Awaitable[None]]
BAD_SIZE = {"driver_annotations": {"muster.dev/min-executors": "-1"}}
REMOVALS: list[tuple[str, str, dict[str, Any], Breakage]] = [
    ("ClusterRole", "pods", {}, drivers_stay_gated),
    ("ClusterRole", "nodes", {}, drivers_stay_gated),
    ("ClusterRole", "configmaps", {}, it_starts_without_a_gang),
    ("ClusterRole", "events", BAD_SIZE, nobody_is_told),
    ("ClusterRole", "gangs", {}, drivers_stay_gated),
    ("ClusterRole", "gangs/status", {}, its_gang_has_no_phase),
    ("ClusterRole", "mutatingwebhookconfigurations", {}, the_webhook_is_not_trusted),
    ("Role", "leases", {}, drivers_stay_gated),
    ("Role", "secrets", {}, it_ends_and_says_why),
]


async def test_every_resource_of_the_roles_is_removed_once() -> None:
    removed = {(kind, resource) for kind, resource, _, _ in REMOVALS}
    assert removed == {(kind, one.resource) for kind, role in SHIPPED.items() for one in permissions(role)}


@pytest.mark.parametrize(
    ("kind", "resource", "more", "breaks"), REMOVALS, ids=[f"{kind}-{resource}" for kind, resource, _, _ in REMOVALS]
)
async def test_without_a_rule_something_breaks(
    land: Land, kind: str, resource: str, more: dict[str, Any], breaks: Breakage
) -> None:
    client, muster = land.client, land.muster
    if resource == "mutatingwebhookconfigurations":
        await muster.install()
        patch = [{"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}]
        await client.patch(MUTATING_WEBHOOKS, "muster", patch, patch_type=PatchType.JSON)
    role = SHIPPED[kind]
    without = {**role, "rules": [rule for rule in role["rules"] if resource not in rule["resources"]]}
    await land.put_role(without)
    lost = next(one for one in permissions(role) if one.resource == resource)
    await until(f"{lost} is lost", lambda: land.may_not(lost))
    already = len(land.used())
    try:
        replica = await muster.start(wait=resource != "secrets", sizes={"configMapTimeout": "1s"})
        if resource not in ("secrets", "mutatingwebhookconfigurations"):
            await muster.in_force()
        application = await land.submit("app", executors=1, run_seconds=5, **more)

        async def refused() -> bool:
            return any(use.code == 403 and lost.is_about(use) for use in land.used()[already:])

        await until(f"{resource} is asked for in vain", refused)
        await breaks(land, replica, application)
    finally:
        await land.put_role(role)
        await muster.stop()
        await client.delete_collection(PODS, NAMESPACE)
