"""The whole room against the embedded API server, over TLS: what is written is what is read and what is watched."""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing, asynccontextmanager

import pytest

from muster.devcluster.server import ApiServer
from muster.kube.certificates import ServingCertificates
from muster.kube.client import Client, PatchType
from muster.kube.config import load_access
from muster.kube.errors import ApiError
from muster.kube.events import EventRecorder
from muster.kube.kinds import CONFIG_MAPS, EVENTS, LEASES, MUTATING_WEBHOOKS, NAMESPACES, PODS, SECRETS
from muster.kube.kinds import CUSTOM_RESOURCE_DEFINITIONS as CRDS
from muster.kube.lease import LeaderElection
from muster.kube.list_watch import Added, Deleted, ListWatch, Modified, Synced
from muster.kube.manifests import manifests, webhook_configuration
from muster.kube.objects import ConfigMap, ObjectMeta, ObjectReference
from muster.kube.resources import GANGS, QUEUES, Gang, GangDriver, GangExecutor, GangSlots, GangSpec, QueuePolicy, Shape


@asynccontextmanager
async def cluster(tmp_path, **options):
    async with ApiServer(**options) as server:
        server.write_kubeconfig(tmp_path / "kubeconfig")
        async with Client(load_access(tmp_path / "kubeconfig")) as client:
            await client.create(NAMESPACES, {"metadata": {"name": "spark"}})
            yield client


@pytest.fixture
async def live(tmp_path):
    async with cluster(tmp_path) as client:
        yield client


async def install(client: Client, kinds: set[str]) -> None:
    by_kind = {
        "CustomResourceDefinition": CRDS,
        "MutatingWebhookConfiguration": MUTATING_WEBHOOKS,
        "Namespace": NAMESPACES,
    }
    for manifest in manifests():
        if manifest["kind"] in kinds:
            await client.create(by_kind[manifest["kind"]], manifest)
    async with asyncio.timeout(10):
        while True:
            try:
                await client.list(GANGS)
                await client.list(QUEUES)
                return
            except ApiError as error:
                if not error.not_found:
                    raise
                await asyncio.sleep(0.01)


async def test_an_object_is_created_read_patched_and_deleted(live):
    made = await live.create(CONFIG_MAPS, ConfigMap(ObjectMeta(name="m"), {"a": "1"}), "spark")
    assert made.metadata.uid
    patched = await live.patch(CONFIG_MAPS, "m", {"data": {"b": "2"}}, "spark")
    assert patched.data == {"a": "1", "b": "2"}
    stale = {"metadata": {"name": "m", "resourceVersion": made.metadata.resource_version}, "data": {}}
    with pytest.raises(ApiError) as caught:
        await live.replace(CONFIG_MAPS, "m", stale, "spark")
    assert caught.value.conflict
    with pytest.raises(ApiError) as caught:
        await live.create(CONFIG_MAPS, ConfigMap(ObjectMeta(name="m")), "spark")
    assert caught.value.already_exists
    with pytest.raises(ApiError) as caught:
        await live.delete(CONFIG_MAPS, "m", "spark", uid="another")
    assert caught.value.conflict
    await live.delete(CONFIG_MAPS, "m", "spark", uid=made.metadata.uid)
    with pytest.raises(ApiError) as caught:
        await live.get(CONFIG_MAPS, "m", "spark")
    assert caught.value.not_found


async def test_a_gate_is_taken_off_and_the_pod_bound_once(live):
    pod = {
        "metadata": {"name": "driver"},
        "spec": {"schedulingGates": [{"name": "muster.dev/gang"}], "containers": [{"name": "c", "image": "spark"}]},
    }
    assert (await live.create(PODS, pod, "spark")).spec.scheduling_gates[0].name == "muster.dev/gang"
    patch = [
        {"op": "test", "path": "/spec/schedulingGates/0/name", "value": "muster.dev/gang"},
        {"op": "remove", "path": "/spec/schedulingGates/0"},
    ]
    free = await live.patch(PODS, "driver", patch, "spark", patch_type=PatchType.JSON)
    assert free.spec.scheduling_gates == ()
    await live.bind("driver", "spark", "node-1", uid=free.metadata.uid)
    assert (await live.get(PODS, "driver", "spark")).spec.node_name == "node-1"
    with pytest.raises(ApiError) as caught:
        await live.bind("driver", "spark", "node-2", uid=free.metadata.uid)
    assert caught.value.conflict


async def test_gangs_and_queues_are_installed_checked_and_defaulted(live):
    await install(live, {"CustomResourceDefinition"})
    spec = GangSpec(
        application_id="spark-1",
        driver=GangDriver("driver", shape=Shape({"cpu": "1"})),
        executor=GangExecutor(Shape({"cpu": "2", "memory": "1408Mi"})),
        min_executors=2,
        slots=(GangSlots("n", 2),),
    )
    made = await live.create(GANGS, Gang(ObjectMeta(name="spark-1", namespace="spark"), spec), "spark")
    assert (made.spec.queue, made.spec.slots) == ("default", (GangSlots("n", 2, 0),))
    status = {"status": {"phase": "Reserved", "found": "2026-11-25T04:00:00.123456Z"}}
    assert (await live.patch(GANGS, "spark-1", status, "spark", subresource="status")).status.phase == "Reserved"
    with pytest.raises(ApiError) as caught:
        await live.patch(GANGS, "spark-1", {"spec": {"minExecutors": -1}}, "spark")
    assert (caught.value.code, caught.value.reason) == (422, "Invalid")
    queue = await live.create(
        QUEUES, {"apiVersion": QUEUES.api_version, "kind": "Queue", "metadata": {"name": "q"}, "spec": {}}
    )
    assert (queue.spec.policy, queue.spec.weight, queue.spec.driver_share) == (QueuePolicy.FIFO, 1, 100)


async def test_the_webhook_configuration_gets_its_authority_by_apply(live):
    await install(live, {"CustomResourceDefinition", "MutatingWebhookConfiguration", "Namespace"})
    certificates = ServingCertificates(live, "muster-system", "muster")
    await certificates.ready()
    await live.apply(MUTATING_WEBHOOKS, webhook_configuration(certificates.ca_pem), field_manager="muster")
    [hook] = (await live.get(MUTATING_WEBHOOKS, "muster"))["webhooks"]
    assert hook["clientConfig"]["caBundle"].startswith("LS0tLS1CRUdJTi")  # "-----BEGIN" in base64
    assert (await live.get(SECRETS, "muster-webhook-tls", "muster-system")).type == "kubernetes.io/tls"


async def test_one_of_two_leads_and_hands_over(live):
    first, second = (LeaderElection(live, "spark", "muster", name) for name in ("first", "second"))
    assert sorted(await asyncio.gather(first.attempt(), second.attempt())) == [False, True]
    leader, other = (first, second) if first.is_leader() else (second, first)
    assert await leader.attempt()
    await leader.release()
    assert await other.attempt()
    assert (await live.get(LEASES, "muster", "spark")).spec.lease_transitions == 1


async def test_an_event_is_stored_where_its_object_is(live):
    about = ObjectReference(kind="Pod", namespace="spark", name="driver", uid="u", api_version="v1")
    await EventRecorder(live, "muster", "m-0").publish(about, "Waiting", "no room", warning=True)
    [event] = await live.list(EVENTS, "spark")
    assert (event.reason, event.type, event.involved_object.name) == ("Waiting", "Warning", "driver")


class Outages(Client):
    """A client whose next watch is refused as often as told, and who waits by counting what others write meanwhile."""

    refusals = 0
    writes = 0
    writing = True

    @asynccontextmanager
    async def watch(self, *arguments, **options):
        if self.refusals:
            self.refusals -= 1
            raise ApiError("WATCH", 0, "Unreachable", "")
        async with super().watch(*arguments, **options) as stream:
            yield stream

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        until = self.writes + 20
        while self.writing and not self.refusals and self.writes < until:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("streaming", [False, True], ids=["pages", "stream"])
@pytest.mark.parametrize(("history", "lists"), [(10_000, 1), (3, 5)], ids=["long-history", "history-of-3"])
async def test_what_is_told_adds_up_to_what_is_there(tmp_path, streaming, history, lists):
    """Random writes by one client; a second one's list-watch, cut four times for 20 writes, mirrors them exactly."""
    chance = random.Random(history)
    mirror: dict[str, str] = {}
    told: list[object] = []
    async with cluster(tmp_path, history=history) as client, Outages(client.access) as watching:
        watching.clock = watching
        watch = ListWatch(
            watching,
            CONFIG_MAPS,
            "spark",
            label_selector="test=mirror",
            page_size=3,
            streaming=streaming,
            inactivity=0.05,
        )

        async def follow() -> None:
            async with aclosing(watch.events()) as events:
                async for event in events:
                    match event:
                        case Added(item):
                            assert item.metadata.name not in mirror
                            mirror[item.metadata.name] = item.metadata.resource_version
                        case Modified(item):
                            assert mirror[item.metadata.name] != item.metadata.resource_version
                            mirror[item.metadata.name] = item.metadata.resource_version
                        case Deleted(name=name):
                            del mirror[name]
                        case Synced(objects=objects):
                            assert objects == len(mirror)
                    told.append(event)

        async def until(holds) -> None:
            async with asyncio.timeout(20):
                while not holds():
                    assert not follower.done()
                    await asyncio.sleep(0.001)

        follower = asyncio.create_task(follow())
        await until(lambda: told)
        there: set[str] = set()
        for step in range(1, 251):
            name = f"m{chance.randrange(12)}"
            if name not in there:
                await client.create(CONFIG_MAPS, ConfigMap(ObjectMeta(name=name, labels={"test": "mirror"})), "spark")
                there.add(name)
            elif chance.random() < 0.5:
                await client.delete(CONFIG_MAPS, name, "spark")
                there.remove(name)
            else:
                await client.patch(CONFIG_MAPS, name, {"data": {"step": str(step)}}, "spark")
            watching.writes += 1
            if step % 50 == 0 and step < 250:
                watching.refusals = 1
                await until(lambda: not watching.refusals)  # the silent watch was given up, the next one refused
        watching.writing = False
        left = await client.list(CONFIG_MAPS, "spark", label_selector="test=mirror")
        truth = {item.metadata.name: item.metadata.resource_version for item in left}
        await until(lambda: mirror == truth)
        follower.cancel()
        await asyncio.gather(follower, return_exceptions=True)
    assert sum(isinstance(event, Synced) for event in told) >= lists
    if lists == 1:
        assert sum(isinstance(event, Synced) for event in told) == 1
        assert len(told) == 251, "a history that is long enough loses nothing: every write is told"
