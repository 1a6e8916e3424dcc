"""`helm install`, `upgrade` and `uninstall` on the real API server; the hook before the uninstall really runs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from muster.devcluster.node_pool import NodePool
from muster.kube.kinds import CUSTOM_RESOURCE_DEFINITIONS, MUTATING_WEBHOOKS, NAMESPACES, SECRETS, Resource
from muster.kube.resources import GANGS
from tests.kubernetes.bare_cluster import BareCluster, bare_cluster
from tests.kubernetes.helm import CHART, EVERYTHING_ON, Failed, Helm
from tests.kubernetes.real_cluster import NAMESPACE, SYSTEM_NAMESPACE, until

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(300)]

ONE_NODE = NodePool(count=1, cpu=8)
DEPLOYMENTS = Resource[dict[str, Any]]("apps", "v1", "deployments", "Deployment", dict)
# the replicas run beside the cluster and not in it: its room is for Spark
SMALL = {"replicas": 1, "resources": {"requests": {"cpu": "10m"}, "limits": {}}}


async def install(helm: Helm, *options: str | Path) -> None:
    values = helm.values_file(SMALL)
    release = ("muster", CHART, "-n", SYSTEM_NAMESPACE)
    await helm.run("install", *release, "--create-namespace", "--values", values, *options)


async def the_webhook(cluster: BareCluster) -> dict[str, Any]:
    [hook] = (await cluster.client.get(MUTATING_WEBHOOKS, "muster"))["webhooks"]
    return dict(hook)


async def columns(cluster: BareCluster) -> set[str]:
    definition = await cluster.client.get(CUSTOM_RESOURCE_DEFINITIONS, "gangs.muster.dev")
    return {column["name"] for column in definition["spec"]["versions"][0]["additionalPrinterColumns"]}


def older_chart(folder: Path) -> Path:
    """The chart with custom resources of an earlier time: without the last printer column."""
    old = folder / "older-chart"
    shutil.copytree(CHART, old)
    template = old / "templates" / "crd-gangs.yaml"
    text = template.read_text()
    column = "    - name: Age\n      type: date\n      jsonPath: .metadata.creationTimestamp\n"
    assert column in text
    template.write_text(text.replace(column, ""))
    return old


# Helm 4 applies on the server, Helm 3 merged on the client; users have both
@pytest.mark.parametrize("server_side", ["true", "false"], ids=["server-side", "client-side"])
async def test_an_upgrade_keeps_the_ca_and_the_certificate_and_upgrades_custom_resources(
    tmp_path: Path, server_side: str
) -> None:
    async with bare_cluster(tmp_path, ONE_NODE) as cluster:
        helm = Helm(tmp_path, cluster.plane.kubeconfig)
        release = ("muster", older_chart(tmp_path), "-n", SYSTEM_NAMESPACE, f"--server-side={server_side}")
        await helm.run("install", *release, "--create-namespace", "--values", helm.values_file(SMALL))
        assert "Age" not in await columns(cluster)
        replica = await cluster.start_replica()

        async def trusted() -> bool:
            return await replica.metric("muster_webhook_registered") == 1

        await until("the CA is in the webhook", trusted)
        before = await the_webhook(cluster)
        assert before["clientConfig"]["caBundle"]
        certificate = (await cluster.client.get(SECRETS, "muster-webhook-tls", SYSTEM_NAMESPACE)).data

        values = SMALL | {"replicas": 3, "config": {"webhook": {"timeoutSeconds": 3}}}
        await helm.run(
            *("upgrade", "muster", CHART, "-n", SYSTEM_NAMESPACE, f"--server-side={server_side}"),
            *("--values", helm.values_file(values)),
        )
        after = await the_webhook(cluster)
        assert after == before | {"timeoutSeconds": 3}
        assert (await cluster.client.get(SECRETS, "muster-webhook-tls", SYSTEM_NAMESPACE)).data == certificate
        assert "Age" in await columns(cluster)
        deployment = await cluster.client.get(DEPLOYMENTS, "muster", SYSTEM_NAMESPACE)
        assert deployment["spec"]["replicas"] == 3
        assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


async def test_an_uninstall_releases_who_waits_and_a_replica_that_still_runs_brings_no_webhook_back(
    tmp_path: Path,
) -> None:
    async with bare_cluster(tmp_path, ONE_NODE) as cluster:
        helm = Helm(tmp_path, cluster.plane.kubeconfig)
        await install(helm)
        # nobody answers yet: the API server does without, and counts it
        await cluster.submit("early", executors=1, run_seconds=10)
        assert await cluster.unreached() > 0
        replica = await cluster.start_replica()
        await until("the replica leads", replica.leads)
        await cluster.reach_replicas()
        await cluster.muster.in_force()
        waiting = await cluster.one_waits()
        gangs = {gang.metadata.name for gang in await cluster.client.list(GANGS, NAMESPACE)}

        await helm.run("uninstall", "muster", "-n", SYSTEM_NAMESPACE, "--wait")
        assert "1 waiting pods released" in (tmp_path / "withdraw.log").read_text()
        assert not await cluster.is_gated(waiting)

        async def noticed() -> bool:
            return await replica.metric("muster_webhook_registered") == 0

        await until("the replica has looked", noticed)
        assert await cluster.webhooks() == []
        unreached, asked = await cluster.unreached(), await cluster.muster.reviews()
        late = await cluster.submit("late", executors=1, run_seconds=10)
        assert not await cluster.is_gated(late)
        assert (await cluster.unreached(), await cluster.muster.reviews()) == (unreached, asked)

        left = await cluster.muster.kubectl(
            "get", "clusterroles,clusterrolebindings,deploy,jobs,pdb", "-A", "-o", "name"
        )
        assert [name for name in left.splitlines() if "muster" in name] == []
        assert gangs <= {gang.metadata.name for gang in await cluster.client.list(GANGS, NAMESPACE)}, "kept"
        # what was kept is taken up again
        await install(helm)
        assert await cluster.webhooks() == ["muster"]


async def test_a_hook_that_cannot_run_stops_the_uninstall_and_can_be_left_out(tmp_path: Path) -> None:
    async with bare_cluster(tmp_path) as cluster:  # no node: no pod runs
        helm = Helm(tmp_path, cluster.plane.kubeconfig)
        await install(helm)
        with pytest.raises(Failed):
            await helm.run("uninstall", "muster", "-n", SYSTEM_NAMESPACE, "--timeout", "5s")
        assert await cluster.webhooks() == ["muster"]
        assert "withdrawn" in await cluster.muster_command("withdraw")
        await helm.run("uninstall", "muster", "-n", SYSTEM_NAMESPACE, "--no-hooks")
        assert await cluster.webhooks() == []


async def test_with_everything_on_the_api_server_takes_every_object_strictly(tmp_path: Path) -> None:
    async with bare_cluster(tmp_path, scheduler=False) as cluster:
        for group, version, kind, plural in (
            ("monitoring.coreos.com", "v1", "ServiceMonitor", "servicemonitors"),
            ("monitoring.coreos.com", "v1", "PrometheusRule", "prometheusrules"),
            ("cert-manager.io", "v1", "Certificate", "certificates"),
            ("cert-manager.io", "v1", "Issuer", "issuers"),
        ):
            await cluster.client.create(CUSTOM_RESOURCE_DEFINITIONS, stand_in(group, version, kind, plural))
        metadata = {"name": SYSTEM_NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}
        await cluster.client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        helm = Helm(tmp_path, cluster.plane.kubeconfig)
        objects = helm.template(EVERYTHING_ON)
        told = await cluster.muster.kubectl(
            *("apply", "--dry-run=server", "--validate=strict", "-n", SYSTEM_NAMESPACE, "-f", "-"),
            stdin=yaml.safe_dump_all(objects),
        )
        assert "deployment.apps/muster created" in told
        # a Deployment is accepted though its pods would not be: Pod Security only warns of it
        for template in (one["spec"]["template"] for one in objects if one["kind"] in ("Job", "Deployment")):
            pod = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "probe", **template["metadata"]},
                "spec": {key: value for key, value in template["spec"].items() if key != "serviceAccountName"},
            }
            text = yaml.safe_dump(pod)
            await cluster.muster.kubectl(
                *("create", "--dry-run=server", "--validate=strict", "-n", SYSTEM_NAMESPACE, "-f", "-"), stdin=text
            )
        values = helm.values_file(EVERYTHING_ON)
        await helm.run("install", "muster", CHART, "-n", SYSTEM_NAMESPACE, "--values", values)
        listed = await cluster.muster.kubectl("get", "servicemonitor,prometheusrule,certificate", "-A", "-o", "name")
        assert len(listed.splitlines()) == 3


def stand_in(group: str, version: str, kind: str, plural: str) -> dict[str, Any]:
    """A custom resource of another project, any content allowed."""
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "versions": [{"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": anything}}],
        },
    }
