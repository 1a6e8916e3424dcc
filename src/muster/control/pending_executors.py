"""A limit on how many executors a driver may have pending, given to it at admission. Pure.

Executors are held, never refused, so a driver with dynamic allocation could pile up thousands of gated pods that nobody
has room for. Spark has a limit of its own, ``spark.kubernetes.allocation.maxPendingPods`` (infinite unless set). It is
given as a system property of the driver's JVM, through the variable that ``spark-submit`` reads JVM options from: what
``spark.properties`` or the application itself sets comes later and wins (``SparkSubmit.runMain`` copies the properties
over the system's; ``new SparkConf()`` starts from these).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from muster.spark import names

MAX_PENDING_PODS = "spark.kubernetes.allocation.maxPendingPods"

JsonPatch = list[dict[str, Any]]


class _Variable(msgspec.Struct, frozen=True):
    name: str = ""


class _Container(msgspec.Struct, frozen=True):
    name: str = ""
    env: tuple[_Variable, ...] | None = None


class _Spec(msgspec.Struct, frozen=True):
    containers: tuple[_Container, ...] = ()


class _Driver(msgspec.Struct, frozen=True):
    spec: _Spec = _Spec()


class _Request(msgspec.Struct, frozen=True):
    object: _Driver = _Driver()


class _Review(msgspec.Struct, frozen=True):
    """An admission review with the environments of its pod: too much to be decoded for every pod that is seen."""

    request: _Request = _Request()


_decode = msgspec.json.Decoder(_Review).decode


def limit_pending(review: bytes, annotations: Mapping[str, str], default: int) -> JsonPatch:
    """What to change on a driver pod; nothing where there is no limit, or it has JVM options for spark-submit already.

    ``review`` is the admission review of the driver as JSON. An annotation that is no count is ignored.
    """
    limit = _limit(annotations.get(names.MAX_PENDING_EXECUTORS_ANNOTATION, ""), default)
    if not limit:
        return []
    try:
        containers = _decode(review).request.object.spec.containers
    except msgspec.MsgspecError:
        return []  # the API server will say what is wrong with it
    at = _spark_container(containers)
    if at is None:
        return []
    environment = containers[at].env
    if environment and any(variable.name == names.ENV_SUBMIT_OPTIONS for variable in environment):
        return []
    variable = {"name": names.ENV_SUBMIT_OPTIONS, "value": f"-D{MAX_PENDING_PODS}={limit}"}
    if environment:
        return [{"op": "add", "path": f"/spec/containers/{at}/env/-", "value": variable}]
    return [{"op": "add", "path": f"/spec/containers/{at}/env", "value": [variable]}]


def _limit(annotation: str, default: int) -> int:
    text = annotation.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else default


def _spark_container(containers: Sequence[_Container]) -> int | None:
    """Where Spark's container is: by Spark's name for it, else the only one (pod templates may rename it)."""
    for at, container in enumerate(containers):
        if container.name == names.DRIVER_CONTAINER:
            return at
    return 0 if len(containers) == 1 else None
