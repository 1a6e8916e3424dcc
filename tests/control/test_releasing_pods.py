"""Releasing goes on until the pod is known to be past its gate; what the API server answers meanwhile proves little."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from muster.control.facts import pod_from
from muster.control.outbox import Gone, Retry
from muster.control.writer import ApiWriter, GatedPods
from muster.kube import objects as k
from muster.kube.errors import ApiError
from muster.scheduling.model import PodRef
from muster.spark.names import GANG_GATE
from tests.control.spark_pods import APPLICATION, driver_pod

KEY = f"team-a/{APPLICATION}"
CONFLICT = ApiError("PATCH …", 409, "Conflict", "the object has been modified; please apply your changes to the latest")
INVALID = ApiError("PATCH …", 422, "Invalid", "spec: Forbidden: pod updates may not change fields other than …")
ABSENT = ApiError("PATCH …", 404, "NotFound", "")


class FailingClient:
    def __init__(self, error: ApiError) -> None:
        self._error = error

    async def patch(self, *_: Any, **__: Any) -> None:
        raise self._error


def a_gated_driver() -> tuple[GatedPods, PodRef, dict[str, Any]]:
    body = driver_pod()
    body["spec"]["schedulingGates"] = [{"name": GANG_GATE}]
    gated = GatedPods()
    pod = pod_from(msgspec.json.decode(msgspec.json.encode(body), type=k.Pod))
    gated.see(pod)
    return gated, PodRef(pod.namespace, pod.name, pod.uid), body


@pytest.mark.parametrize("error", [CONFLICT, INVALID])
async def test_a_refusal_is_no_proof_that_the_pod_needs_no_release(error: ApiError) -> None:
    gated, ref, body = a_gated_driver()
    writer = ApiWriter(FailingClient(error), gated, None)  # type: ignore[arg-type]
    with pytest.raises(Retry):
        await writer.release(ref, KEY, "node-1", extra=False)

    body["spec"]["schedulingGates"] = []  # somebody else has released it, as the watch tells
    gated.see(pod_from(msgspec.json.decode(msgspec.json.encode(body), type=k.Pod)))
    with pytest.raises(Gone):
        await writer.release(ref, KEY, "node-1", extra=False)


async def test_a_pod_that_is_gone_needs_none() -> None:
    gated, ref, _ = a_gated_driver()
    with pytest.raises(Gone):
        await ApiWriter(FailingClient(ABSENT), gated, None).release(ref, KEY, "", extra=False)  # type: ignore[arg-type]
