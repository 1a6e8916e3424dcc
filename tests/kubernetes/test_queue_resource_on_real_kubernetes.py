"""What the real API server makes of Queue objects: defaults, refusals (CEL too), the table of kubectl."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from muster.devcluster.control_plane import ControlPlane
from muster.kube.client import Client
from muster.kube.config import load_access
from muster.kube.definitions import queue_definition
from muster.kube.errors import ApiError
from muster.kube.kinds import CUSTOM_RESOURCE_DEFINITIONS
from muster.kube.resources import QUEUES, PreemptionPolicy, QueuePolicy
from tests.kubernetes.real_cluster import until

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="module")]

EXAMPLES = Path(__file__).parents[2] / "deploy" / "examples" / "queues.yaml"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Client]:
    folder = tmp_path_factory.mktemp("plane")
    async with (
        ControlPlane(folder, scheduler=False, controllers=False) as plane,
        Client(load_access(plane.kubeconfig), user_agent="test") as client,
    ):
        await client.create(CUSTOM_RESOURCE_DEFINITIONS, queue_definition())

        async def served() -> bool:
            try:
                await client.list(QUEUES)
            except ApiError as error:
                assert error.not_found
                return False
            return True

        await until("queues are served", served)
        yield client


def queue(name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": QUEUES.api_version, "kind": "Queue", "metadata": {"name": name}, "spec": spec}


async def test_a_queue_that_says_nothing_gets_every_default(client: Client) -> None:
    made = (await client.create(QUEUES, queue("plain"))).spec
    assert (made.policy, made.preemption) == (QueuePolicy.FIFO, PreemptionPolicy.EXTRAS)
    assert (made.weight, made.driver_share, made.min_runtime_seconds, made.submitters) == (1, 100, 600, None)


async def test_the_examples_are_accepted(client: Client) -> None:
    examples = list(yaml.safe_load_all(EXAMPLES.read_text()))
    assert len(examples) >= 3
    for example in examples:
        await client.create(QUEUES, example)


@pytest.mark.parametrize(
    ("guaranteed", "maximum"),
    [
        ({"cpu": "2"}, {"cpu": "1500m"}),
        ({"memory": "1Gi"}, {"memory": "1000M"}),
        ({"nvidia.com/gpu": 3}, {"nvidia.com/gpu": "2"}),
    ],
)
async def test_a_guarantee_above_the_maximum_is_refused(
    client: Client, guaranteed: dict[str, Any], maximum: dict[str, Any]
) -> None:
    with pytest.raises(ApiError, match="guaranteed must not be above max") as caught:
        await client.create(QUEUES, queue("greedy", guaranteed=guaranteed, max=maximum))
    assert caught.value.code == 422


async def test_a_guarantee_up_to_the_maximum_or_without_one_is_accepted(client: Client) -> None:
    guaranteed = {"cpu": 2, "memory": "1Gi", "nvidia.com/gpu": "1"}
    maximum = {"cpu": "2000m", "memory": "1024Mi", "pods": "7"}
    await client.create(QUEUES, queue("exact", guaranteed=guaranteed, max=maximum))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"parent": "own"}, "a queue cannot be its own parent"),
        ({"limits": [{"max": {"cpu": "1"}}]}, "a limit must name users or groups"),
        ({"policy": "FIFO"}, 'supported values: "fifo", "fair", "priority"'),
        ({"preemption": "executors"}, 'supported values: "never", "extras", "applications"'),
    ],
)
async def test_what_makes_no_sense_is_refused(client: Client, spec: dict[str, Any], message: str) -> None:
    with pytest.raises(ApiError, match=message) as caught:
        await client.create(QUEUES, queue("own", **spec))
    assert caught.value.code == 422
