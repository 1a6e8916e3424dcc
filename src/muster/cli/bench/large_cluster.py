"""A large cluster as its API server would list it: nodes, daemons, running Spark applications and their Gangs, encoded.

Objects are Spark 4.3's own, with the defaults, statuses and ``managedFields`` that an API server adds (6 to 9 kB a
pod). Everything is a function of the sizes and the seed, so that two processes that make it know the same cluster.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import msgspec

from muster.control import gangs
from muster.control.discovery import application_of
from muster.devcluster import pod_status
from muster.devcluster.executor_objects import ExecutorTemplate, executor_pod
from muster.devcluster.node_pool import NodePool, node_objects
from muster.devcluster.pods import default_pod_spec, qos_class
from muster.devcluster.submission_objects import (
    DRIVER_PORT,
    Identity,
    driver_pod,
    owner_reference,
    properties_file,
    properties_of,
)
from muster.devcluster.virtual_application import VirtualApplication
from muster.kube import objects as k
from muster.scheduling.config import SchedulerConfig
from muster.scheduling.model import GangStatus, Phase, Reservation, Slot
from muster.spark import names

Object = dict[str, Any]

CREATED, CREATED_SECONDS = "2026-01-31T12:00:00Z", 1769860800.0
NAMESPACES = 20
DAEMONS = ("kube-proxy", "aws-node")
NODE_CORES, NODE_GIB = 64, 512
MINIMUM_SHARE = 0.9
"""Of applications without dynamic allocation; the others have extras above a minimum of half their executors."""
_MEMORY_MIB = (6144, 8192, 10240)
_NUMBER = 987654321
"""Stands for the executor's number in templates."""


class Spot(msgspec.Struct, frozen=True):
    """What an executor got: where it runs, and whether above its application's minimum."""

    node: str
    extra: bool = False


class LargeApplication:
    """One Spark application with all its executors; its objects as bytes."""

    def __init__(self, number: int, executors: int, seed: random.Random) -> None:
        self.number = number
        self.namespace = f"team-{number % NAMESPACES:02}"
        self.dynamic = executors >= 2 and seed.random() >= MINIMUM_SHARE
        self.minimum = executors // 2 if self.dynamic else executors
        self.executors = executors
        self.virtual = VirtualApplication(
            f"nightly-report-{number}",
            namespace=self.namespace,
            executors=self.minimum,
            dynamic=self.dynamic,
            min_executors=self.minimum,
            executor_cores=seed.choice((2, 2, 2, 4)),
            executor_memory_mib=seed.choice(_MEMORY_MIB),
        )
        self.identity = Identity(
            application_id=f"spark-{number:032x}",
            resource_prefix=f"nightly-report-{number}-{number:016x}",
            config_map=f"spark-drv-{number:016x}-conf-map",
            local_dir=f"/var/data/spark-{_uid(number, 0)}",
        )

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.identity.application_id}"

    @property
    def driver_name(self) -> str:
        return self.identity.driver_pod

    def executor_name(self, executor: int) -> str:
        return f"{self.template.prefix}-exec-{executor}"

    @cached_property
    def properties(self) -> Mapping[str, str]:
        return properties_of(self.virtual, self.identity, "https://10.0.0.1:443", 1769860800000)

    @cached_property
    def template(self) -> ExecutorTemplate:
        owner = owner_reference(self.driver_name, _uid(self.number, 0))
        return ExecutorTemplate(
            application_id=self.identity.application_id,
            application_name=self.virtual.name,
            namespace=self.namespace,
            version=self.virtual.spark_version,
            prefix=f"{self.virtual.name}-{self.number + 2**60:016x}",
            config_map=f"spark-exec-{self.number:016x}-conf-map",
            driver_ip="10.64.7.9",
            driver_url=f"spark://CoarseGrainedScheduler@10.64.7.9:{DRIVER_PORT}",
            owner=owner,
            properties=self.properties,
            local_dir=self.identity.local_dir,
        )

    def driver(self, node: str, version: int) -> bytes:
        """The driver pod: running on ``node``, or waiting behind the gate when that is empty."""
        pod = driver_pod(self.virtual, self.identity, self.properties)
        if not node:
            pod["spec"]["schedulingGates"] = [{"name": names.GANG_GATE}]
        stored = _stored(pod, self.namespace, _uid(self.number, 0), node, "Running" if node else "Pending")
        return msgspec.json.encode(stored).replace(b"%VERSION%", b"%d" % version)

    def config_map(self) -> bytes:
        text = properties_file(self.identity.config_map, self.properties, "Sat Jan 31 12:00:00 GMT 2026")
        metadata = {"name": self.identity.config_map, "namespace": self.namespace, "uid": _uid(self.number, 2**31)}
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {names.PROPERTIES_KEY: text}}
        return msgspec.json.encode(body)

    def executor(self, executor: int, spot: Spot | None, phase: str, version: int, *, ending: bool = False) -> bytes:
        """An executor pod as it is stored; held behind the gate without a ``spot``."""
        text = self._executor_text(phase, spot is None, spot is not None and spot.extra, ending)
        return (
            text.replace(b"%d" % _NUMBER, b"%d" % executor)
            .replace(b"%UID%", _uid(self.number, executor).encode())
            .replace(b"%NODE%", spot.node.encode() if spot is not None else b"")
            .replace(b"%VERSION%", b"%d" % version)
        )

    def review(self, executor: int) -> bytes:
        """The AdmissionReview of an executor that is being created."""
        return self._review_text.replace(b"%d" % _NUMBER, b"%d" % executor)

    def gang(self, driver_node: str, spots: Mapping[int, Spot], version: int) -> bytes:
        """What Muster wrote for it while it ran."""
        pod = msgspec.json.decode(self.driver(driver_node, 1), type=k.Pod)
        config = SchedulerConfig()
        text = properties_file("", self.properties, "")
        application = application_of(pod, text, config.pool_label, frozenset({"default-scheduler"}))
        counts: dict[str, int] = {}
        for spot in spots.values():
            if not spot.extra:
                counts[spot.node] = counts.get(spot.node, 0) + 1
        slots = tuple(Slot(node, count) for node, count in sorted(counts.items()))
        spec = gangs.spec_of(application, Reservation(self.key, 1, driver_node, slots))
        extras = sum(spot.extra for spot in spots.values())
        at = CREATED_SECONDS
        status = GangStatus(
            Phase.RUNNING, running=len(spots), extras=extras, found=at, reserved=at, driver_bound=at, minimum_reached=at
        )
        body = gangs.manifest(self.namespace, self.identity.application_id, spec, application.driver_pod)
        body["status"] = {name: value for name, value in gangs.status_of(status).items() if value is not None}
        body["metadata"] |= {
            "uid": _uid(self.number, 2**32 - 1),
            "resourceVersion": str(version),
            "generation": 1,
            "creationTimestamp": CREATED,
        }
        body["metadata"]["managedFields"] = [_managed("muster", body["spec"], "spec")]
        return msgspec.json.encode(body)

    @cached_property
    def _texts(self) -> dict[tuple[str, bool, bool, bool], bytes]:
        return {}

    def _executor_text(self, phase: str, gated: bool, extra: bool, ending: bool) -> bytes:
        key = (phase, gated, extra, ending)
        text = self._texts.get(key)
        if text is None:
            pod = executor_pod(self.template, _NUMBER)
            notes = {
                names.APPLICATION_ANNOTATION: self.identity.application_id,
                names.MODE_ANNOTATION: "hold" if gated else "bind",
            }
            if gated:
                pod["spec"]["schedulingGates"] = [{"name": names.GANG_GATE}]
            else:
                notes[names.SLOT_ANNOTATION] = "%NODE%"
            if extra:
                notes[names.EXTRA_ANNOTATION] = "true"
            pod["metadata"]["annotations"] = pod["metadata"].get("annotations", {}) | notes
            stored = _stored(pod, self.namespace, "%UID%", "" if gated else "%NODE%", phase)
            if ending:
                stored["metadata"] |= {"deletionTimestamp": CREATED, "deletionGracePeriodSeconds": 30}
            text = self._texts[key] = msgspec.json.encode(stored)
        return text

    @cached_property
    def _review_text(self) -> bytes:
        pod = executor_pod(self.template, _NUMBER)
        pod["metadata"] |= {"namespace": self.namespace}
        _as_admitted(pod)
        user = f"system:serviceaccount:{self.namespace}:spark"
        return msgspec.json.encode(
            {
                "kind": "AdmissionReview",
                "apiVersion": "admission.k8s.io/v1",
                "request": {
                    "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
                    "kind": {"group": "", "version": "v1", "kind": "Pod"},
                    "resource": {"group": "", "version": "v1", "resource": "pods"},
                    "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
                    "requestResource": {"group": "", "version": "v1", "resource": "pods"},
                    "name": pod["metadata"]["name"],
                    "namespace": self.namespace,
                    "operation": "CREATE",
                    "userInfo": {
                        "username": user,
                        "uid": _uid(self.number, 2**30),
                        "groups": ["system:serviceaccounts", "system:authenticated"],
                    },
                    "object": pod,
                    "oldObject": None,
                    "dryRun": False,
                    "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
                },
            }
        )


class LargeCluster:
    """``pods`` pods on ``nodes`` nodes: two daemons on each, the rest drivers and executors of ``applications``."""

    def __init__(self, nodes: int, pods: int, applications: int, seed: int = 1) -> None:
        self.pool = NodePool("spark", nodes, NODE_CORES, NODE_GIB, storage_gib=500, instance_type="r5.16xlarge")
        self.nodes = nodes
        chance = random.Random(seed)
        executors = pods - nodes * len(DAEMONS) - applications
        self.applications = [
            LargeApplication(number, executors // applications + (number < executors % applications), chance)
            for number in range(applications)
        ]
        self.waiting = LargeApplication(applications, 20, chance)
        """Its driver waits behind the gate, and nobody has decided about it yet."""
        self._chance = chance

    def node_objects(self) -> Iterator[tuple[str, bytes]]:
        """(name, body) with the fifty images that a kubelet reports."""
        images = [
            {
                "names": [f"registry.example/team/image-{number}@sha256:{number:064x}", f"image-{number}:v1.{number}"],
                "sizeBytes": 123456789 + number,
            }
            for number in range(50)
        ]
        for number, node in enumerate(node_objects(self.pool, CREATED)):
            node["metadata"] |= {
                "uid": _uid(2**24 + number, 0),
                "resourceVersion": str(number + 1),
                "creationTimestamp": CREATED,
            }
            node["metadata"]["managedFields"] = [_managed("kubelet", node["status"], "status")]
            node["status"]["images"] = images
            yield node["metadata"]["name"], msgspec.json.encode(node)

    def placed(self) -> list[tuple[str, dict[int, Spot]]]:
        """Per application, the driver's node and its executors' spots by number; random, never more than fits."""
        free = [[NODE_CORES - 4, (NODE_GIB - 32) * 1024, 100] for _ in range(self.nodes)]
        names_of_nodes = self.pool.node_names()

        def place(cores: int, mib: int) -> str:
            while True:
                row = self._chance.randrange(self.nodes)
                left = free[row]
                if left[0] >= cores and left[1] >= mib and left[2] >= 1:
                    left[0] -= cores
                    left[1] -= mib
                    left[2] -= 1
                    return names_of_nodes[row]

        found = []
        for app in self.applications:
            driver_node = place(app.virtual.driver_cores, 2 * app.virtual.driver_memory_mib)
            cores, mib = app.virtual.executor_cores, app.virtual.executor_memory_mib * 11 // 10 + 1
            spots = {
                number: Spot(place(cores, mib), extra=number > app.minimum) for number in range(1, app.executors + 1)
            }
            found.append((driver_node, spots))
        return found

    def daemons(self) -> Iterator[tuple[str, str, bytes]]:
        """(namespace, name, body) of what runs on every node."""
        for position, name in enumerate(DAEMONS):
            pod: Object = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": f"{name}-%NODE%",
                    "labels": {
                        "k8s-app": name,
                        "controller-revision-hash": "5d97b7d8d6",
                        "pod-template-generation": "1",
                    },
                    "ownerReferences": [
                        {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": name, "uid": _uid(2**25, position)}
                    ],
                },
                "spec": {
                    "hostNetwork": True,
                    "priorityClassName": "system-node-critical",
                    "priority": 2000001000,
                    "containers": [
                        {
                            "name": name,
                            "image": f"{name}:v1",
                            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
                        }
                    ],
                    "tolerations": [{"operator": "Exists"}],
                },
            }
            text = msgspec.json.encode(_stored(pod, "kube-system", "%UID%", "%NODE%", "Running"))
            text = text.replace(b"%VERSION%", b"1")
            for number, node in enumerate(self.pool.node_names()):
                body = text.replace(b"%UID%", _uid(2**26 + position, number).encode())
                yield "kube-system", f"{name}-{node}", body.replace(b"%NODE%", node.encode())


def least_pods(nodes: int, applications: int) -> int:
    """Daemons, drivers, and two executors for each."""
    return nodes * len(DAEMONS) + 3 * applications


def _stored(pod: Object, namespace: str, uid: str, node: str, phase: str) -> Object:
    """A pod as an API server returns it."""
    pod["metadata"] |= {
        "namespace": namespace,
        "uid": uid,
        "resourceVersion": "%VERSION%",
        "generation": 1,
        "creationTimestamp": CREATED,
    }
    _as_admitted(pod)
    if node:
        pod["spec"]["nodeName"] = node
    pod["status"] = {"phase": "Pending", "qosClass": qos_class(pod["spec"])}
    containers = [(c["name"], c["image"]) for c in pod["spec"]["containers"]]
    if phase == "Running":
        pod["status"] |= pod_status.running(containers, "10.64.11.17", "172.16.3.4", CREATED)
    elif phase == "Succeeded":
        ends = {name: pod_status.ContainerEnd(0, CREATED) for name, _ in containers}
        pod["status"] |= pod_status.ended(containers, ends, CREATED)
    if phase != "Pending":
        status = _managed("kubelet", pod["status"], "status") | {"subresource": "status"}
        pod["metadata"]["managedFields"].append(status)
    return pod


def _as_admitted(pod: Object) -> None:
    """What the API server has added when it asks webhooks: defaults, the account's token, priority, managed fields."""
    spec = pod["spec"]
    entry = _managed("fabric8-kubernetes-client", {key: spec[key] for key in spec}, "spec")
    default_pod_spec(spec)
    spec.setdefault("serviceAccountName", "spark")
    spec.setdefault("serviceAccount", "spark")
    spec.setdefault("priority", 0)
    spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
    volume = "kube-api-access-x7k2p"
    spec["volumes"] = [*spec.get("volumes", []), {"name": volume, "projected": _TOKEN_SOURCES}]
    mount = {"mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "name": volume, "readOnly": True}
    for container in spec["containers"]:
        container["volumeMounts"] = [*container.get("volumeMounts", []), mount]
    spec["tolerations"] = [
        *spec.get("tolerations", []),
        *(
            {"effect": "NoExecute", "key": f"node.kubernetes.io/{key}", "operator": "Exists", "tolerationSeconds": 300}
            for key in ("not-ready", "unreachable")
        ),
    ]
    pod["metadata"]["managedFields"] = [entry]


_TOKEN_SOURCES: Object = {
    "defaultMode": 420,
    "sources": [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"items": [{"key": "ca.crt", "path": "ca.crt"}], "name": "kube-root-ca.crt"}},
        {
            "downwardAPI": {
                "items": [{"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}, "path": "namespace"}]
            }
        },
    ],
}


def _managed(manager: str, part: Object, field: str) -> Object:
    return {
        "manager": manager,
        "operation": "Update",
        "apiVersion": "v1",
        "time": CREATED,
        "fieldsType": "FieldsV1",
        "fieldsV1": {f"f:{field}": _fields(part)},
    }


def _fields(value: Any) -> Object:
    """``FieldsV1`` of a value; list items are named by their first key, which is near enough."""
    if isinstance(value, dict):
        return {f"f:{key}": _fields(item) for key, item in value.items()}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        named: Object = {}
        for item in value:
            key = next(name for name in ("name", "type", "containerPort", "uid", "key", *item) if name in item)
            encoded = msgspec.json.encode({key: item[key]}).decode() if isinstance(item[key], str | int) else "{}"
            named[f"k:{encoded}"] = {".": {}} | _fields(item)
        return named
    return {}


def _uid(group: int, number: int) -> str:
    return f"{group:08x}-0000-4000-8000-{number:012x}"
