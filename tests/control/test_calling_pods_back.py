"""Evicting a pod: a delete of this very pod, with time to hand on its data."""

from __future__ import annotations

from typing import Any

import pytest

from muster.control.outbox import Gone, Retry
from muster.control.writer import ApiWriter, GatedPods
from muster.kube.errors import ApiError
from muster.scheduling.model import PodRef

POD = PodRef("team-a", "pi-exec-1", "uid-1")


class AnsweringClient:
    def __init__(self, error: ApiError | None = None) -> None:
        self.error = error
        self.deletes: list[tuple[str, str, dict[str, Any]]] = []

    async def delete(self, _: object, name: str, namespace: str, **options: Any) -> None:
        self.deletes.append((namespace, name, options))
        if self.error is not None:
            raise self.error


def writer_on(client: object) -> ApiWriter:
    return ApiWriter(client, GatedPods(), None)  # type: ignore[arg-type]


async def test_the_delete_names_the_pods_uid_and_whole_seconds_of_grace() -> None:
    client = AnsweringClient()
    await writer_on(client).evict(POD, 60.2)
    assert client.deletes == [("team-a", "pi-exec-1", {"uid": "uid-1", "grace_period_seconds": 61})]


@pytest.mark.parametrize(
    "error",
    [
        ApiError("DELETE …", 404, "NotFound", ""),
        ApiError(
            "DELETE …", 409, "Conflict", "Precondition failed: UID in precondition: uid-1, UID in object meta: uid-2"
        ),
    ],
)
async def test_a_pod_that_is_gone_or_another_one_needs_no_delete(error: ApiError) -> None:
    with pytest.raises(Gone):
        await writer_on(AnsweringClient(error)).evict(POD, 60.0)


@pytest.mark.parametrize(
    "error",
    [
        ApiError("DELETE …", 0, "Unreachable", ""),
        ApiError("DELETE …", 409, "Conflict", "the object has been modified"),
        ApiError("DELETE …", 429, "TooManyRequests", "", 1.0),
        ApiError("DELETE …", 500, "InternalError", ""),
    ],
)
async def test_every_other_failure_is_tried_again(error: ApiError) -> None:
    with pytest.raises(Retry):
        await writer_on(AnsweringClient(error)).evict(POD, 60.0)
