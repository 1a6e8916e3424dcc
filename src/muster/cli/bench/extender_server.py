"""The extender in a process of its own, with a large cluster and no API server; ``muster bench extender`` calls it.

It prints its port. Beside the extender's routes: ``GET /bench/cpu`` (seconds of this process, and those of them that
went into answers), ``POST /bench/pods`` (the watch tells of a pod), ``POST /bench/forget`` (it tells of their end),
``POST /bench/catch-up`` (quiet moments pass).
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import ssl
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Generic, TypeVar

import msgspec
from aiohttp import web

from muster.control.extender.demand_book import DemandBook
from muster.control.extender.filter import CATCH_UP, Answer, Filter
from muster.control.extender.messages import ExtenderArgs
from muster.control.extender.object_states import key_of
from muster.control.extender.reservations import ResourceReservation, new_reservation
from muster.control.extender.routes import extender_app
from muster.control.listening import listening
from muster.control.process import event_loop, keep_collections_short, keep_large_blocks
from muster.kube.certificates import KeyPair, load_pair, serving_context
from muster.kube.objects import KubeStruct, Node, Pod
from muster.scheduling.config import SchedulerConfig

T = TypeVar("T", bound=KubeStruct)

EXECUTORS = 20
_decode_pods = msgspec.json.Decoder(list[Pod]).decode


class Objects(Generic[T]):
    """A store without an API server behind it."""

    def __init__(self) -> None:
        self._objects: dict[tuple[str, str], T] = {}

    def get(self, namespace: str, name: str) -> T | None:
        return self._objects.get((namespace, name))

    def create(self, value: T) -> None:
        self._objects[key_of(value)] = value

    def update(self, value: T) -> None:
        self._objects[key_of(value)] = value

    def delete(self, namespace: str, name: str) -> bool:
        return self._objects.pop((namespace, name), None) is not None

    def __iter__(self) -> Iterator[T]:
        return iter(list(self._objects.values()))


def spark_pod(
    name: str,
    app: str,
    role: str,
    *,
    node: str = "",
    cpu: str = "1",
    minimum: int = EXECUTORS,
    maximum: int = EXECUTORS,
) -> dict[str, object]:
    """A driver or executor as kube-scheduler sends it."""
    annotations = {
        "spark-driver-cpu": "1",
        "spark-driver-mem": "2Gi",
        "spark-executor-cpu": cpu,
        "spark-executor-mem": "4Gi",
        "spark-dynamic-allocation-enabled": "true",
        "spark-dynamic-allocation-min-executor-count": str(minimum),
        "spark-dynamic-allocation-max-executor-count": str(maximum),
    }
    group = {"key": "resource_channel", "operator": "In", "values": ["batch"]}
    affinity = {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [group]}]}
    }
    return {
        "metadata": {
            "name": name,
            "namespace": "spark",
            "uid": f"uid-{name}",
            "labels": {"spark-role": role, "spark-app-id": app},
            "annotations": annotations if role == "driver" else {},
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {
            "schedulerName": "spark-scheduler",
            "nodeName": node,
            "affinity": {"nodeAffinity": affinity},
            "containers": [{"name": "spark", "image": "spark:3.5", "resources": {"requests": {"cpu": "1"}}}],
        },
        "status": {"phase": "Running" if node else "Pending"},
    }


def node_names(count: int) -> list[str]:
    return [f"ip-10-{number // 250}-{number % 250}-17.eu-west-1.compute.internal" for number in range(count)]


def _node(name: str, zone: str) -> Node:
    return msgspec.convert(
        {
            "metadata": {
                "name": name,
                "labels": {"resource_channel": "batch", "topology.kubernetes.io/zone": zone},
                "creationTimestamp": "2026-01-01T00:00:00Z",
            },
            "status": {
                "allocatable": {"cpu": "64", "memory": "256Gi", "pods": "250"},
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        },
        Node,
    )


def _daemon(node: str, number: int) -> Pod:
    return msgspec.convert(
        {
            "metadata": {"name": f"daemon-{number}-{node}", "namespace": "kube-system", "uid": f"uid-{number}-{node}"},
            "spec": {
                "nodeName": node,
                "containers": [{"name": "daemon", "resources": {"requests": {"cpu": "200m", "memory": "256Mi"}}}],
            },
            "status": {"phase": "Running"},
        },
        Pod,
    )


def busy_filter(nodes: int) -> Filter:
    """Five daemons a node, and seven tenths of a running application of 1 + 20 a node, in three zones."""
    randomly = random.Random(nodes)
    reservations: Objects[ResourceReservation] = Objects()
    config = SchedulerConfig(packer="tightly-pack", pool_label="resource_channel", asked=True, bind_enabled=False)
    book = DemandBook(
        Objects(), label=config.pool_label, single_zone=False, clock=time.time, announce=lambda name, fields: None
    )
    found = Filter(config, reservations, book, time.time)
    names = node_names(nodes)
    for number, name in enumerate(names):
        found.view.node_seen(_node(name, f"eu-west-1{'abc'[number % 3]}"))
        for daemon in range(5):
            found.view.pod_seen(_daemon(name, daemon))
    for number in range(nodes * 7 // 10):
        app = f"app-{number}"
        hosts = randomly.sample(names, min(5, nodes))
        driver = msgspec.convert(spark_pod(f"{app}-driver", app, "driver", node=hosts[0]), Pod)
        found.view.pod_seen(driver)
        where = [hosts[each % len(hosts)] for each in range(EXECUTORS)]
        for each, node in enumerate(where):
            pod = spark_pod(f"{app}-exec-{each}", app, "executor", node=node)
            found.view.pod_seen(msgspec.convert(pod, Pod))
        sizes = {"cpu": "1", "memory": "4Gi", "nvidia.com/gpu": "0"}
        reservations.create(new_reservation(driver, app, hosts[0], where, sizes, sizes))
    found.begin()
    return found


class _Asked:
    """Answers, and the CPU seconds they take."""

    def __init__(self, found: Filter) -> None:
        self._filter = found
        self.seconds = 0.0

    def __call__(self, args: ExtenderArgs) -> Answer:
        begun = time.process_time()
        answer = self._filter.answer(args)
        self.seconds += time.process_time() - begun
        return answer


def _app(found: Filter) -> web.Application:
    asked = _Asked(found)
    app = extender_app("/spark-scheduler", asked)

    async def cpu(request: web.Request) -> web.Response:
        return web.json_response([time.process_time(), asked.seconds])

    async def tell(request: web.Request) -> web.Response:
        for pod in _decode_pods(await request.read()):
            found.view.pod_seen(pod)
        return web.json_response({})

    async def forget(request: web.Request) -> web.Response:
        for pod in _decode_pods(await request.read()):
            found.view.pod_gone(pod.metadata.namespace, pod.metadata.name, pod.metadata.uid)
        gc.collect()
        return web.json_response({})

    async def catch_up(request: web.Request) -> web.Response:
        while found.catch_up(CATCH_UP):
            pass
        return web.json_response({})

    app.router.add_get("/bench/cpu", cpu)
    app.router.add_post("/bench/catch-up", catch_up)
    app.router.add_post("/bench/pods", tell)
    app.router.add_post("/bench/forget", forget)
    return app


async def _serve(nodes: int, tls: ssl.SSLContext) -> None:
    app = _app(busy_filter(nodes))
    gc.collect()
    gc.freeze()
    async with listening(app, "127.0.0.1", 0, tls) as port:
        print(port, flush=True)
        await asyncio.to_thread(sys.stdin.read)  # until the bench goes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, required=True)
    parser.add_argument("--certificate", type=Path, required=True)
    parser.add_argument("--key", type=Path, required=True)
    arguments = parser.parse_args()
    pair = KeyPair(arguments.certificate.read_bytes(), arguments.key.read_bytes())
    tls = serving_context()
    load_pair(tls, pair, "certificate")
    keep_collections_short()
    keep_large_blocks()
    with asyncio.Runner(loop_factory=event_loop()) as runner:
        runner.run(_serve(arguments.nodes, tls))
    return 0


if __name__ == "__main__":
    sys.exit(main())
