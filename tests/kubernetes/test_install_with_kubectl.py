"""`muster manifests | kubectl apply -f -` on the real API server, and away again."""

from __future__ import annotations

from pathlib import Path

import pytest

from muster.cli.main import main
from muster.devcluster.node_pool import NodePool
from muster.kube.kinds import LEASES, MUTATING_WEBHOOKS
from tests.kubernetes.bare_cluster import BareCluster, bare_cluster
from tests.kubernetes.real_cluster import NAMESPACE, SYSTEM_NAMESPACE, until

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(300)]

ONE_NODE = NodePool(count=1, cpu=8)


def printed(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    capsys.readouterr()
    assert main(["manifests", *options]) == 0
    return capsys.readouterr().out


async def apply(cluster: BareCluster, text: str) -> dict[str, list[str]]:
    """Objects by what kubectl says of them: created, configured, unchanged."""
    told = await cluster.muster.kubectl("apply", "--validate=strict", "-f", "-", stdin=text)
    found: dict[str, list[str]] = {}
    for line in told.splitlines():
        name, verdict = line.rsplit(" ", 1)
        found.setdefault(verdict, []).append(name)
    return found


async def resource_versions(cluster: BareCluster, text: str) -> str:
    columns = "custom-columns=:kind,:metadata.name,:metadata.resourceVersion"
    return await cluster.muster.kubectl("get", "-o", columns, "-f", "-", stdin=text)


async def test_applied_twice_the_second_time_nothing_changes_though_muster_has_written_its_ca(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with bare_cluster(tmp_path, ONE_NODE) as cluster:
        text = printed(capsys)
        assert (await apply(cluster, text)).keys() == {"created"}
        replica = await cluster.start_replica()
        await until("the replica leads", replica.leads)

        async def trusted() -> bool:
            return await replica.metric("muster_webhook_registered") == 1

        await until("the CA is in the webhook", trusted)
        [hook] = (await cluster.client.get(MUTATING_WEBHOOKS, "muster"))["webhooks"]
        assert hook["clientConfig"]["caBundle"]
        assert (await cluster.client.get(LEASES, "muster", SYSTEM_NAMESPACE)).spec.holder_identity == replica.identity
        versions = await resource_versions(cluster, text)
        again = await apply(cluster, text)
        # kubectl never knows: the selector of a budget is replaced, not merged
        assert again.pop("configured") == ["poddisruptionbudget.policy/muster"]
        assert again.keys() == {"unchanged"}
        assert await resource_versions(cluster, text) == versions
        [after] = (await cluster.client.get(MUTATING_WEBHOOKS, "muster"))["webhooks"]
        assert after == hook
        more = await apply(cluster, printed(capsys, "--network-policy", "--priority-classes", "--replicas", "3"))
        assert more["created"] == [
            "networkpolicy.networking.k8s.io/muster",
            "priorityclass.scheduling.k8s.io/spark-driver",
            "priorityclass.scheduling.k8s.io/spark-executor",
        ]
        assert "deployment.apps/muster" in more["configured"]
        [after] = (await cluster.client.get(MUTATING_WEBHOOKS, "muster"))["webhooks"]
        assert after == hook


async def test_a_withdrawal_and_a_delete_leave_nothing_that_holds_or_asks_for_pods(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with bare_cluster(tmp_path, ONE_NODE) as cluster:
        text = printed(capsys, "--network-policy", "--priority-classes", "--replicas", "1")
        await apply(cluster, text)
        replica = await cluster.start_replica()
        await until("the replica leads", replica.leads)
        await cluster.reach_replicas()
        await cluster.muster.in_force()
        # what docs/install.md tells people to look at
        probe = ("run", "probe", "--dry-run=server", "--image=none", "-l", "spark-role=driver,spark-app-selector=probe")
        account = '--overrides={"spec": {"serviceAccountName": "spark"}}'
        shown = await cluster.muster.kubectl(
            *probe, account, "-n", NAMESPACE, "-o", "jsonpath={.spec.schedulingGates[*].name}"
        )
        assert shown == "muster.dev/gang"
        waiting = await cluster.one_waits()

        withdraw = await cluster.muster_command("withdraw")
        assert "1 waiting pods released" in withdraw
        assert not await cluster.is_gated(waiting)
        await cluster.muster.kubectl("delete", "--ignore-not-found", "-f", "-", stdin=text)

        # a replica that still runs sees that its webhook is gone, and does not bring it back
        async def noticed() -> bool:
            return await replica.metric("muster_webhook_registered") == 0

        await until("the replica has looked", noticed)
        assert await cluster.webhooks() == []
        unreached, asked = await cluster.unreached(), await cluster.muster.reviews()
        late = await cluster.submit("late", executors=1, run_seconds=10)
        assert not await cluster.is_gated(late)
        assert (await cluster.unreached(), await cluster.muster.reviews()) == (unreached, asked)
