"""kube-scheduler's side of the extender, without any I/O: pods come, are asked about, bound as told, and end.

``Cluster`` keeps what the API server would have: nodes, pods, reservations, demands. ``restart`` forgets everything
else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from muster.control.extender.configuration import parse, scheduler_config
from muster.control.extender.demand_book import DemandBook
from muster.control.extender.demands import Demand
from muster.control.extender.filter import Answer, Filter
from muster.control.extender.messages import ExtenderArgs
from muster.control.extender.object_states import key_of
from muster.control.extender.reservations import ReservationSpec, ReservationStatus, ResourceReservation, Slot
from muster.kube.objects import KubeStruct, Node, ObjectMeta, OwnerReference, Pod
from muster.kube.timestamps import format_time
from muster.packing import find_packer
from muster.scheduling.decisions import Publish

T = TypeVar("T", bound=KubeStruct)

GROUP = "batch-medium-priority"
GIB = 2**30


class Objects(Generic[T]):
    """A store whose writes are done at once."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], T] = {}

    def get(self, namespace: str, name: str) -> T | None:
        return self.objects.get((namespace, name))

    def create(self, value: T) -> None:
        assert key_of(value) not in self.objects, "object already exists"
        self.objects[key_of(value)] = value

    def update(self, value: T) -> None:
        assert key_of(value) in self.objects, "object does not exist"
        self.objects[key_of(value)] = value

    def delete(self, namespace: str, name: str) -> bool:
        return self.objects.pop((namespace, name), None) is not None

    def __iter__(self) -> Iterator[T]:
        return iter(list(self.objects.values()))


class Cluster:
    """``install``: what ``install.yml`` has besides the harness's own."""

    def __init__(self, binpack: str = "tightly-pack", **install: Any) -> None:
        self.install = {
            "fifo": True,
            "should-schedule-dynamically-allocated-executors-in-same-az": True,
            "server": {"cert-file": "tls.crt", "key-file": "tls.key"},
            "binpack": binpack,
            **install,
        }
        self.at = 1_700_000_000.0
        self.nodes: dict[str, Node] = {}
        self.pods: dict[tuple[str, str], Pod] = {}
        self.reservations: Objects[ResourceReservation] = Objects()
        self.demands: Objects[Demand] = Objects()
        self.told: list[tuple[str, dict[str, object]]] = []
        self.published: list[Publish] = []
        self.nudged: list[str] = []
        self._uids = 0
        self.filter = self._filter()
        self.filter.begin()

    def _filter(self) -> Filter:
        install = parse(self.install, "install.yml").install
        config = scheduler_config(install)
        self.demand_book = DemandBook(
            self.demands,
            label=config.pool_label,
            single_zone=find_packer(config.packer).single_zone,
            clock=lambda: self.at,
            announce=self._announce,
        )
        return Filter(
            config,
            self.reservations,
            self.demand_book,
            lambda: self.at,
            same_zone=install.should_schedule_dynamically_allocated_executors_in_same_az,
            announce=self._announce,
            publish=self.published.append,
            nudge=lambda pod_id: self.nudged.append(pod_id[1]),
            validate=True,
        )

    def _announce(self, name: str, fields: dict[str, object]) -> None:
        self.told.append((name, fields))

    # What is there

    def node(
        self,
        name: str,
        cpu: float = 8,
        memory: float = 8 * GIB,
        gpu: float = 1,
        *,
        labels: Mapping[str, str] | None = None,
        ready: bool = True,
        unschedulable: bool = False,
        age: float = 0.0,
        **spec: Any,
    ) -> Node:
        given = {
            "metadata": {
                "name": name,
                "labels": dict(labels if labels is not None else {"resource_channel": GROUP}),
                "creationTimestamp": format_time(self.at - age),
            },
            "spec": {"unschedulable": unschedulable, **spec},
            "status": {
                "allocatable": {"cpu": f"{cpu:g}", "memory": f"{memory:.0f}", "nvidia.com/gpu": f"{gpu:g}"},
                "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            },
        }
        self.nodes[name] = node = msgspec.convert(given, Node)
        self.filter.view.node_seen(node)
        return node

    def lose_node(self, name: str) -> None:
        del self.nodes[name]
        self.filter.view.node_gone(name)

    def driver(
        self,
        app: str = "app",
        *,
        name: str = "",
        cpu: float = 1,
        memory: str = "1",
        gpu: int = 1,
        executor: Sequence[float | str] = (1, "1", 0),
        count: int | None = None,
        minimum: int | None = None,
        maximum: int | None = None,
        annotations: Mapping[str, str] | None = None,
        **more: Any,
    ) -> Pod:
        """A driver pod, created and told by the watch; not asked about yet."""
        sizes = {
            "spark-driver-cpu": f"{cpu:g}",
            "spark-driver-mem": memory,
            "spark-driver-nvidia.com/gpu": str(gpu),
            "spark-executor-cpu": f"{executor[0]:g}",
            "spark-executor-mem": str(executor[1]),
            "spark-executor-nvidia.com/gpu": str(executor[2]),
        }
        if minimum is not None:
            sizes |= {
                "spark-dynamic-allocation-enabled": "true",
                "spark-dynamic-allocation-min-executor-count": str(minimum),
                "spark-dynamic-allocation-max-executor-count": str(maximum),
            }
        else:
            sizes["spark-executor-count"] = str(count or 0)
        return self.pod(
            name or f"{app}-driver",
            labels={"spark-role": "driver", "spark-app-id": app},
            annotations={**sizes, **(annotations or {})},
            group=GROUP,
            **more,
        )

    def executor(self, name: str, app: str = "app", **more: Any) -> Pod:
        return self.pod(name, labels={"spark-role": "executor", "spark-app-id": app}, group="example", **more)

    def pod(
        self,
        name: str,
        *,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
        group: str = "",
        namespace: str = "ns",
        scheduler: str = "spark-scheduler",
        node: str = "",
        phase: str = "",
        requests: Mapping[str, str] | None = None,
        created: float | None = None,
        told: bool = True,
        **spec: Any,
    ) -> Pod:
        self._uids += 1
        given: dict[str, Any] = {
            "metadata": {
                "name": name,
                "namespace": namespace,
                "uid": f"uid-{self._uids}",
                "labels": dict(labels or {}),
                "annotations": dict(annotations or {}),
                "creationTimestamp": format_time(self.at if created is None else created),
            },
            "spec": {
                "schedulerName": scheduler,
                "nodeName": node,
                "containers": [{"name": "main", "resources": {"requests": dict(requests or {})}}],
                **spec,
            },
            "status": {"phase": phase or ("Running" if node else "Pending")},
        }
        if group:
            terms = [{"matchExpressions": [{"key": "resource_channel", "operator": "In", "values": [group]}]}]
            given["spec"]["affinity"] = {
                "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
            }
        pod = msgspec.convert(given, Pod)
        self.pods[(namespace, name)] = pod
        if told:
            self.filter.view.pod_seen(pod)
        return pod

    def reservation(
        self, nodes: Mapping[str, str], names: Mapping[str, str], *, app: str = "app", driver: Pod | None = None
    ) -> ResourceReservation:
        """A reservation that is there already, as another process wrote it."""
        owners = (OwnerReference("v1", "Pod", driver.metadata.name, driver.metadata.uid),) if driver else ()
        slots = {
            slot: Slot(node, {"cpu": "1", "memory": "1", "nvidia.com/gpu": "1" if slot == "driver" else "0"})
            for slot, node in nodes.items()
        }
        value = ResourceReservation(
            ObjectMeta(name=app, namespace="ns", labels={"app-id": app}, owner_references=owners),
            ReservationSpec(slots),
            ReservationStatus(dict(names)),
        )
        self.reservations.objects[("ns", app)] = value
        return value

    # What happens

    def change(self, pod: Pod, *, spec: Mapping[str, Any] = {}, status: Mapping[str, Any] = {}) -> Pod:
        """An update of a pod that the watch tells."""
        key = key_of(pod)
        now = msgspec.to_builtins(self.pods[key])
        now["spec"] |= spec
        now["status"] |= status
        self.pods[key] = changed = msgspec.convert(now, Pod)
        self.filter.view.pod_seen(changed)
        return changed

    def annotate(self, pod: Pod, annotations: Mapping[str, str]) -> Pod:
        key = key_of(pod)
        metadata = msgspec.structs.replace(self.pods[key].metadata, annotations=dict(annotations))
        self.pods[key] = changed = msgspec.structs.replace(self.pods[key], metadata=metadata)
        self.filter.view.pod_seen(changed)
        return changed

    def bind(self, pod: Pod, node: str) -> Pod:
        return self.change(pod, spec={"nodeName": node}, status={"phase": "Running"})

    def terminate_containers(self, pod: Pod) -> Pod:
        ended = [{"name": "main", "state": {"terminated": {"exitCode": 1}}}]
        return self.change(pod, status={"containerStatuses": ended})

    def delete(self, pod: Pod) -> None:
        gone = self.pods.pop(key_of(pod))
        self.filter.view.pod_gone(gone.metadata.namespace, gone.metadata.name, gone.metadata.uid)

    def wait(self, seconds: float) -> None:
        """Time passes, a second at a time."""
        until = self.at + seconds
        while self.at < until:
            self.at = min(until, self.at + 1.0)
            self.filter.tick()
            self.filter.catch_up(len(self.pods))

    def ask(self, pod: Pod, offered: Sequence[str] | None = None) -> Answer:
        """kube-scheduler's call; without ``offered`` all nodes pass its own filters."""
        names = tuple(self.nodes) if offered is None else tuple(offered)
        answer = self.filter.answer(ExtenderArgs(self.pods.get(key_of(pod), pod), names))
        assert answer.node == "" or answer.node in names, "a node that was not offered is an error to kube-scheduler"
        assert bool(answer.node) is (answer.outcome is not None and answer.outcome.succeeded)
        return answer

    def schedule(self, pod: Pod, offered: Sequence[str] | None = None) -> Answer:
        """Ask, and bind as told."""
        answer = self.ask(pod, offered)
        if answer.node:
            self.bind(pod, answer.node)
        return answer

    def restart(self) -> None:
        """Another process starts: it knows what the API server has, and nothing else."""
        self.filter = self._filter()
        for node in self.nodes.values():
            self.filter.view.node_seen(node)
        for pod in self.pods.values():
            self.filter.view.pod_seen(pod)
        self.filter.begin()

    # What came of it

    def slots(self, app: str = "app", namespace: str = "ns") -> dict[str, tuple[str, str]]:
        """Node and pod of each slot, as written."""
        value = self.reservations.get(namespace, app)
        assert value is not None, "there is no reservation"
        return {name: (slot.node, pod) for name, slot, pod in value.slots()}

    def nodes_of(self, app: str = "app") -> dict[str, str]:
        return {slot: node for slot, (node, _) in self.slots(app).items()}

    def names_of(self, app: str = "app") -> dict[str, str]:
        value = self.reservations.get("ns", app)
        assert value is not None, "there is no reservation"
        return value.status.pods

    def soft(self, app: str = "app", namespace: str = "ns") -> dict[str, str]:
        """Executors above the minimum: their nodes."""
        return dict(self.filter.view.known.applications[f"{namespace}/{app}"].soft)
