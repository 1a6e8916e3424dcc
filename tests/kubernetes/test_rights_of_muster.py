"""Muster needs each of the rights that its manifests ask for, and no other.

One scenario goes through everything the service ever does; the API server's audit log tells which rights it took.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
import pytest_asyncio

from muster.devcluster.node_pool import NodePool
from muster.kube.client import PatchType
from muster.kube.errors import ApiError
from muster.kube.kinds import EVENTS, MUTATING_WEBHOOKS, PODS, SECRETS, Resource
from muster.kube.manifests import Manifest, manifests
from muster.kube.resources import GROUP, QUEUES, Gang
from tests.control.spark_pods import executor_pod
from tests.kubernetes.audit_trail import Permission, Use, permissions, uses
from tests.kubernetes.installed_muster import USER, InstalledCluster, Replica, installed_cluster
from tests.kubernetes.real_cluster import NAMESPACE, SYSTEM_NAMESPACE, until

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="module")]

RBAC = "rbac.authorization.k8s.io"
ROLES = Resource[dict[str, Any]](RBAC, "v1", "roles", "Role", dict)
ROLE_BINDINGS = Resource[dict[str, Any]](RBAC, "v1", "rolebindings", "RoleBinding", dict)
CLUSTER_ROLES = Resource[dict[str, Any]](RBAC, "v1", "clusterroles", "ClusterRole", dict, namespaced=False)
SHIPPED = {
    one["kind"]: one
    for one in manifests()
    if one["kind"] in ("Role", "ClusterRole") and one["metadata"]["name"] == "muster"
}
DEFAULT_QUEUE = {"apiVersion": QUEUES.api_version, "kind": "Queue", "metadata": {"name": "default"}, "spec": {}}
SHORT_LIVED = {"certificates": {"lifetime": "15s", "authorityLifetime": "20s", "checkInterval": "1s"}}
REVIEWS = Resource[dict[str, Any]](
    "authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", dict, namespaced=False
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[InstalledCluster]:
    folder = tmp_path_factory.mktemp("rights")
    async with installed_cluster(folder, NodePool(count=2, cpu=8), audit_reads=True) as installed:
        yield installed


def used(cluster: InstalledCluster) -> list[Use]:
    return list(uses(cluster.plane.audit_log, USER))


async def put_role(cluster: InstalledCluster, role: Manifest) -> None:
    resource = ROLES if role["kind"] == "Role" else CLUSTER_ROLES
    await cluster.client.apply(resource, role, field_manager="test")


async def is_refused(cluster: InstalledCluster, permission: Permission, user: str = USER) -> bool:
    """Whether RBAC, which learns of changes through watches, refuses it by now."""
    resource, _, subresource = permission.resource.partition("/")
    asked = {
        "verb": permission.verb,
        "group": permission.group,
        "resource": resource,
        "subresource": subresource,
        "namespace": permission.namespace,
        "name": next(iter(permission.names), ""),
    }
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview"}
    answer = await cluster.client.create(REVIEWS, review | {"spec": {"user": user, "resourceAttributes": asked}})
    return not answer["status"]["allowed"]


async def everything_that_muster_does(cluster: InstalledCluster) -> None:
    client, muster = cluster.client, cluster.muster
    first = await muster.start_leading(webhook=SHORT_LIVED, scheduling={"pressure": {"after": "1s"}})
    certificate = (await client.get(SECRETS, "muster-webhook-tls", SYSTEM_NAMESPACE)).data["tls.crt"]

    # a queue is read, and told what it holds
    await client.create(QUEUES, DEFAULT_QUEUE)

    async def accepted() -> bool:
        conditions = (await client.get(QUEUES, "default")).status.conditions
        return [one.status for one in conditions] == ["True"]

    await until("the queue is accepted", accepted)

    # client mode: executors without a driver pod; their Gang goes with them
    for number in (1, 2):
        pod = executor_pod(number)
        del pod["metadata"]["ownerReferences"]
        pod["metadata"]["annotations"] = {"muster.dev/executor-count": "2"}
        await client.create(PODS, pod, NAMESPACE)
    notebook = pod["metadata"]["labels"]["spark-app-selector"]
    await cluster.expect_executors(notebook, 2)
    await cluster.expect_phase(notebook, "Running")
    await client.delete_collection(PODS, NAMESPACE, label_selector=f"spark-app-selector={notebook}")

    # executors above a minimum are called back for a gang that waits
    lender = await cluster.submit("lender", dynamic=True, executors=1, max_executors=12, run_seconds=3600)
    await cluster.expect_executors(lender, 12)
    claims = await cluster.submit("claims", executors=3, run_seconds=1)
    await cluster.expect_succeeded(claims)
    [driver] = await cluster.pods(lender, "driver")
    await client.delete(PODS, driver.metadata.name, NAMESPACE, uid=driver.metadata.uid)

    # gated, reserved, released, bound; a second one waits, with a Gang that is changed when its turn comes
    running = await cluster.submit("running", executors=9, run_seconds=120)
    await cluster.expect_executors(running, 9)
    waiting = await cluster.submit("waiting", executors=9, run_seconds=60)
    await cluster.expect_phase(waiting, "Pending")

    # another replica takes over what is there
    await first.terminate()
    muster.balancer.backends.clear()
    await muster.start_leading(webhook=SHORT_LIVED)

    # bad sizes: said on the driver
    invalid = await cluster.submit(
        "invalid", executors=1, run_seconds=10, driver_annotations={"muster.dev/min-executors": "-1"}
    )
    await cluster.expect_phase(invalid, "Invalid")

    async def told() -> bool:
        return any(event.reason == "InvalidSize" for event in await client.list(EVENTS, NAMESPACE))

    await until("a warning on the driver", told)
    await cluster.expect_succeeded(running)
    await cluster.expect_executors(waiting, 9)
    await cluster.expect_succeeded(waiting)
    await cluster.expect_phase(waiting, "Finished")

    async def gone() -> bool:
        return await cluster.gang(notebook) is None

    await until("the Gang of the notebook is gone", gone)

    async def renewed() -> bool:
        secret = await client.get(SECRETS, "muster-webhook-tls", SYSTEM_NAMESPACE)
        return bool(secret.data["tls.crt"] != certificate)

    await until("the certificate is another one", renewed)


async def test_everything_works_and_each_right_is_used(cluster: InstalledCluster) -> None:
    await everything_that_muster_does(cluster)
    calls = used(cluster)
    assert [call for call in calls if call.code in (401, 403)] == []
    granted = [one for role in SHIPPED.values() for one in permissions(role)]
    assert [one for one in granted if not any(one.allows(call) for call in calls)] == []
    await cluster.muster.stop()


async def drivers_stay_gated(cluster: InstalledCluster, replica: Replica, application: str) -> None:
    [driver] = await cluster.pods(application, "driver")
    assert [gate.name for gate in driver.spec.scheduling_gates] == ["muster.dev/gang"]


async def it_starts_without_a_gang(cluster: InstalledCluster, replica: Replica, application: str) -> None:
    gang = await cluster.expect_phase(application, "Invalid")
    assert gang.status.reason == "ConfigMapMissing"
    assert "could not be read for 1 s" in gang.status.message and "forbidden" in gang.status.message


async def nobody_is_told(cluster: InstalledCluster, replica: Replica, application: str) -> None:
    await cluster.expect_phase(application, "Invalid")
    [driver] = await cluster.pods(application, "driver")
    about = f"involvedObject.uid={driver.metadata.uid},reason=InvalidSize"
    assert await cluster.client.list(EVENTS, NAMESPACE, field_selector=about) == []


async def its_gang_has_no_phase(cluster: InstalledCluster, replica: Replica, application: str) -> None:
    async def gang() -> Gang | None:
        return await cluster.gang(application)

    found: Gang = await until("a gang is written", gang)
    assert found.status.phase == ""


async def the_queue_says_nothing(cluster: InstalledCluster, replica: Replica, application: str) -> None:
    await cluster.expect_succeeded(application)
    assert (await cluster.client.get(QUEUES, "default")).status.conditions == ()


async def the_webhook_is_not_trusted(cluster: InstalledCluster, replica: Replica, application: str) -> None:
    assert "caBundle" not in (await cluster.muster.webhook())["clientConfig"]
    [driver] = await cluster.pods(application, "driver")
    assert driver.spec.scheduling_gates == ()


async def it_ends_and_says_why(cluster: InstalledCluster, replica: Replica, application: str) -> None:
    assert await replica.process.wait() == 1
    assert 'cannot get resource "secrets"' in replica.text()


async def test_whoever_may_view_a_namespace_may_view_its_gangs_and_change_nothing(cluster: InstalledCluster) -> None:
    binding = {
        "apiVersion": f"{RBAC}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "jane-views"},
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": "view"},
        "subjects": [{"apiGroup": RBAC, "kind": "User", "name": "jane"}],
    }
    await cluster.client.create(ROLE_BINDINGS, binding, NAMESPACE)

    async def may(verb: str) -> bool:
        return not await is_refused(cluster, Permission(verb, GROUP, "gangs", NAMESPACE), "jane")

    await until("jane may list gangs: roles are aggregated by a controller", lambda: may("list"))
    assert [verb for verb in ("create", "update", "patch", "delete") if await may(verb)] == []


Breakage = Callable[[InstalledCluster, Replica, str], Awaitable[None]]
BAD_SIZE = {"driver_annotations": {"muster.dev/min-executors": "-1"}}
REMOVALS: list[tuple[str, str, dict[str, Any], Breakage]] = [
    ("ClusterRole", "pods", {}, drivers_stay_gated),
    ("ClusterRole", "nodes", {}, drivers_stay_gated),
    ("ClusterRole", "configmaps", {}, it_starts_without_a_gang),
    ("ClusterRole", "events", BAD_SIZE, nobody_is_told),
    ("ClusterRole", "gangs", {}, drivers_stay_gated),
    ("ClusterRole", "gangs/status", {}, its_gang_has_no_phase),
    ("ClusterRole", "queues", {}, drivers_stay_gated),
    ("ClusterRole", "queues/status", {}, the_queue_says_nothing),
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
    cluster: InstalledCluster, kind: str, resource: str, more: dict[str, Any], breaks: Breakage
) -> None:
    client, muster = cluster.client, cluster.muster
    if resource == "mutatingwebhookconfigurations":
        await muster.install()
        patch = [{"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}]
        await client.patch(MUTATING_WEBHOOKS, "muster", patch, patch_type=PatchType.JSON)
    if resource == "queues/status":
        with suppress(ApiError):  # there is none when this test runs alone
            await client.delete(QUEUES, "default")
        await client.create(QUEUES, DEFAULT_QUEUE)
    role = SHIPPED[kind]
    without = {**role, "rules": [rule for rule in role["rules"] if resource not in rule["resources"]]}
    await put_role(cluster, without)
    lost = next(one for one in permissions(role) if one.resource == resource)
    await until(f"{lost} is lost", lambda: is_refused(cluster, lost))
    already = len(used(cluster))
    try:
        replica = await muster.start(wait=resource != "secrets", sizes={"configMapTimeout": "1s"})
        if resource not in ("secrets", "mutatingwebhookconfigurations"):
            await muster.in_force()
        application = await cluster.submit("app", executors=1, run_seconds=5, **more)

        async def refused() -> bool:
            return any(use.code == 403 and lost.is_about(use) for use in used(cluster)[already:])

        await until(f"{resource} is asked for in vain", refused)
        await breaks(cluster, replica, application)
    finally:
        await put_role(cluster, role)
        await muster.stop()
        await client.delete_collection(PODS, NAMESPACE)
