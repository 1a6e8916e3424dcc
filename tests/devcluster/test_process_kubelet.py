"""The process kubelet runs any container as a process of this machine, with a pod's volumes, environment and end."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from muster.devcluster.cluster import DevCluster
from muster.devcluster.distribution import SparkUnavailableError
from muster.devcluster.node_registration import KUBELET_LEASE_SECONDS, heartbeat
from muster.devcluster.session import session_members
from muster.kube.client import PatchType
from muster.kube.kinds import CONFIG_MAPS, NODES, PODS, SECRETS
from muster.kube.list_watch import Deleted, ListWatch, Synced
from muster.kube.objects import Pod


def no_spark(version: str) -> Path:
    raise SparkUnavailableError(f"there is no Spark {version!r} here")


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[DevCluster]:
    running = DevCluster((), processes=True, folder=tmp_path, spark_home=no_spark)
    async with asyncio.timeout(60), running:
        yield running


def pod(name: str, script: str, **container: Any) -> dict[str, Any]:
    main = {"name": "main", "image": "none", "command": ["sh", "-c", script]} | container
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"kind": "test"}},
        "spec": {"containers": [main], "restartPolicy": "Never"},
    }


async def until(cluster: DevCluster, name: str, holds: Callable[[Pod], bool]) -> Pod:
    async with aclosing(ListWatch(cluster.client, PODS, "default").events()) as events:
        async for event in events:
            if not isinstance(event, Deleted | Synced) and event.object.metadata.name == name and holds(event.object):
                return event.object
    raise AssertionError("a list-watch never ends")


async def delete_and_see(cluster: DevCluster, name: str, grace_period_seconds: int | None = None) -> Pod:
    """Deletes the pod; its last state."""
    async with aclosing(ListWatch(cluster.client, PODS, "default").events()) as events:
        async for event in events:
            if isinstance(event, Synced):
                await cluster.client.delete(PODS, name, "default", grace_period_seconds=grace_period_seconds)
            elif isinstance(event, Deleted) and event.name == name:
                assert event.object is not None
                return event.object
    raise AssertionError("a list-watch never ends")


def ended(pod: Pod) -> bool:
    return pod.status.phase in ("Succeeded", "Failed")


def exit_code(pod: Pod) -> int:
    (status,) = pod.status.container_statuses
    assert status.state.terminated is not None
    return status.state.terminated.exit_code


def log_of(cluster: DevCluster, name: str) -> str:
    assert cluster.process_kubelet is not None
    return cluster.process_kubelet.tail("default", name)


async def until_logged(cluster: DevCluster, name: str, word: str) -> None:
    while word not in log_of(cluster, name):  # noqa: ASYNC110  (a file tells nobody that it grew)
        await asyncio.sleep(0.02)


async def test_output_exit_code_and_address(cluster: DevCluster) -> None:
    env = [{"name": "ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]
    await cluster.client.create(PODS, pod("talks", "echo at $ADDRESS; exit 7", env=env), "default")
    last = await until(cluster, "talks", ended)
    assert (last.status.phase, exit_code(last)) == ("Failed", 7)
    assert log_of(cluster, "talks") == f"at {last.status.pod_ip}"
    assert last.status.pod_ip.startswith("127.")


async def test_every_pod_has_an_address_of_its_own_that_answers(cluster: DevCluster) -> None:
    server = "import socket,os;s=socket.create_server((os.environ['IP'],7078));print('listening',flush=True);s.accept()"
    env = [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]
    for name in ("one", "two"):
        manifest = pod(name, "", command=["python3", "-c", server], env=env)
        await cluster.client.create(PODS, manifest, "default")
        await until_logged(cluster, name, "listening")
        address = (await cluster.client.get(PODS, name, "default")).status.pod_ip
        _, writer = await asyncio.open_connection(address, 7078)
        writer.close()
        await writer.wait_closed()


async def test_volumes_are_mounted_where_the_command_looks_for_them(cluster: DevCluster) -> None:
    script = (
        "cat /etc/app/settings.properties /etc/keys/key; ls /scratch; echo $(cat "
        "/var/run/secrets/kubernetes.io/serviceaccount/namespace); "
        "test -s /var/run/secrets/kubernetes.io/serviceaccount/token && echo has token"
    )
    manifest = pod("mounts", script)
    mounts = [
        {"name": "settings", "mountPath": "/etc/app"},
        {"name": "keys", "mountPath": "/etc/keys"},
        {"name": "scratch", "mountPath": "/scratch"},
    ]
    manifest["spec"]["containers"][0]["volumeMounts"] = mounts
    manifest["spec"]["volumes"] = [
        {"name": "settings", "configMap": {"name": "settings"}},
        {"name": "keys", "secret": {"secretName": "keys"}},
        {"name": "scratch", "emptyDir": {}},
    ]
    await cluster.client.create(PODS, manifest, "default")
    # The ConfigMap comes after the pod, as a driver's does
    waiting = await until(cluster, "mounts", lambda pod: bool(pod.status.container_statuses))
    assert waiting.status.container_statuses[0].state.waiting is not None
    secret = {"metadata": {"name": "keys"}, "data": {"key": "dmFsdWUK"}, "apiVersion": "v1", "kind": "Secret"}
    settings = {"settings.properties": "scratch=/scratch/a\n"}
    config_map = {"metadata": {"name": "settings"}, "data": settings, "apiVersion": "v1", "kind": "ConfigMap"}
    await cluster.client.create(SECRETS, secret, "default")
    await cluster.client.create(CONFIG_MAPS, config_map, "default")
    last = await until(cluster, "mounts", ended)
    first, *rest = log_of(cluster, "mounts").splitlines()
    assert first.startswith("scratch=/")
    assert first.endswith("/volumes/scratch/a"), "paths in properties are those of this machine"
    assert rest == ["value", "default", "has token"]
    assert exit_code(last) == 0


async def test_a_deleted_pod_gets_sigterm_and_may_end_well(cluster: DevCluster) -> None:
    script = "trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.05; done"
    await cluster.client.create(PODS, pod("polite", script), "default")
    await until_logged(cluster, "polite", "up")
    last = await delete_and_see(cluster, "polite")
    assert exit_code(last) == 5
    assert log_of(cluster, "polite").splitlines() == ["up", "bye"]


async def test_what_ignores_sigterm_is_killed_with_all_its_children(cluster: DevCluster) -> None:
    # setsid would leave the session; a process group of its own, as PySpark's daemon makes, does not
    child = (
        "python3 -c 'import os,time; os.setpgid(0,0); print(\"child\", os.getsid(0), flush=True); time.sleep(600)' &"
    )
    manifest = pod("stubborn", f"trap '' TERM; {child} while :; do sleep 0.05; done")
    manifest["spec"]["terminationGracePeriodSeconds"] = 1
    await cluster.client.create(PODS, manifest, "default")
    await until_logged(cluster, "stubborn", "child")
    session = int(log_of(cluster, "stubborn").split()[1])
    assert len(session_members(session)) >= 2
    last = await delete_and_see(cluster, "stubborn")
    assert exit_code(last) == 137
    assert session_members(session) == []


async def test_whoever_deletes_a_pod_says_how_long_it_may_take(cluster: DevCluster) -> None:
    manifest = pod("stubborn", "trap '' TERM; echo up; while :; do sleep 0.05; done")
    manifest["spec"]["terminationGracePeriodSeconds"] = 3600
    await cluster.client.create(PODS, manifest, "default")
    await until_logged(cluster, "stubborn", "up")
    assert exit_code(await delete_and_see(cluster, "stubborn", grace_period_seconds=1)) == 137


async def test_sparks_decommission_hook_sends_sigpwr_first(cluster: DevCluster) -> None:
    traps = "trap 'echo moving blocks; exit 0' PWR; trap 'echo terminated; exit 1' TERM"
    script = f"{traps}; echo up; while :; do sleep 0.05; done"
    hook = {"preStop": {"exec": {"command": ["/opt/decom.sh"]}}}
    await cluster.client.create(PODS, pod("worker", script, lifecycle=hook), "default")
    await until_logged(cluster, "worker", "up")
    last = await delete_and_see(cluster, "worker")
    assert exit_code(last) == 0
    assert log_of(cluster, "worker").splitlines() == ["up", "moving blocks"]


async def test_a_pod_that_cannot_be_a_process_fails_and_says_why(cluster: DevCluster) -> None:
    manifest = pod("nfs", "true")
    manifest["spec"]["volumes"] = [{"name": "v", "nfs": {"server": "s", "path": "/"}}]
    await cluster.client.create(PODS, manifest, "default")
    last = await until(cluster, "nfs", ended)
    assert last.status.phase == "Failed"
    assert cluster.counters().problems == (
        "pod default/nfs cannot run as a process: volume 'v' is of kind nfs, which processes cannot be given",
    )


async def test_a_pod_of_a_spark_that_is_not_here_fails_and_can_be_deleted(cluster: DevCluster) -> None:
    manifest = pod("driver", "true")
    manifest["metadata"]["labels"] = {"spark-version": "4.9.9"}
    await cluster.client.create(PODS, manifest, "default")
    assert (await until(cluster, "driver", ended)).status.phase == "Failed"
    assert "there is no Spark '4.9.9' here" in cluster.counters().problems[0]
    await delete_and_see(cluster, "driver")


async def test_a_command_that_does_not_exist_fails_the_pod(cluster: DevCluster) -> None:
    await cluster.client.create(PODS, pod("missing", "", command=["/no/such/program"]), "default")
    assert (await until(cluster, "missing", ended)).status.phase == "Failed"
    assert "/no/such/program" in cluster.counters().problems[0]


async def test_logs_are_served_by_the_api(cluster: DevCluster) -> None:
    await cluster.client.create(PODS, pod("lines", "printf '1\\n2\\n3\\n'"), "default")
    await until(cluster, "lines", ended)
    assert cluster.api.pod_logs is not None
    assert await cluster.api.pod_logs("default", "lines", {"tailLines": "2"}) == b"2\n3\n"
    assert await cluster.api.pod_logs("default", "lines", {}) == b"1\n2\n3\n"


async def test_a_node_that_was_given_up_says_that_it_is_ready_again(cluster: DevCluster) -> None:
    # What kube-controller-manager writes after 50 s without a heartbeat (node_lifecycle_controller.go)
    lost = {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}
    status = {"status": {"conditions": [lost]}}
    assert cluster.process_kubelet is not None
    node = cluster.process_kubelet.node_name
    await cluster.client.patch(NODES, node, status, patch_type=PatchType.STRATEGIC, subresource="status")
    await heartbeat(cluster.client, node, KUBELET_LEASE_SECONDS)
    conditions = {each.type: each.status for each in (await cluster.client.get(NODES, node)).status.conditions}
    assert conditions["Ready"] == "True"


async def test_leaving_ends_every_process(tmp_path: Path) -> None:
    async with asyncio.timeout(60), DevCluster((), processes=True, folder=tmp_path, spark_home=no_spark) as cluster:
        script = "import os,time; print(os.getsid(0)); print(flush=True); time.sleep(600)"
        await cluster.client.create(PODS, pod("endless", "", command=["python3", "-c", script]), "default")
        await until_logged(cluster, "endless", "\n")
        session = int(log_of(cluster, "endless"))
        assert session_members(session) != []
    assert session_members(session) == []
