"""How long the ConfigMap of a driver is looked for, and what counts as having looked."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from muster.control import discovery
from muster.control.discovery import Discovery, Finding
from muster.kube import objects as k
from muster.kube.errors import ApiError
from muster.scheduling.events import ApplicationInvalid
from muster.scheduling.model import Application
from tests.control.spark_pods import APPLICATION, driver_pod

KEY = f"team-a/{APPLICATION}"
THERE = k.ConfigMap(data={"spark.properties": "spark.executor.instances=3\n"})
ABSENT = ApiError("GET …", 404, "NotFound", "")
AWAY = ApiError("GET …", 0, "Unreachable", "connection refused")
FAILING = ApiError("GET …", 503, "ServiceUnavailable", "etcd leader changed")
FORBIDDEN = ApiError("GET …", 403, "Forbidden", "")


class SlowClient:
    """Each answer takes 40 of the 60 seconds."""

    def __init__(self, answers: list[k.ConfigMap | ApiError]) -> None:
        self.now = 0.0
        self._answers = answers

    def clock(self) -> float:
        return self.now

    async def get(self, *_: Any) -> k.ConfigMap:
        self.now += 40.0
        answer = self._answers.pop(0)
        if isinstance(answer, ApiError):
            raise answer
        return answer


async def look(monkeypatch: pytest.MonkeyPatch, *answers: k.ConfigMap | ApiError) -> Finding:
    monkeypatch.setattr(discovery, "FIRST_LOOK", 0.0)
    client = SlowClient(list(answers))
    driver = msgspec.json.decode(msgspec.json.encode(driver_pod()), type=k.Pod)
    looking = Discovery(
        client,  # type: ignore[arg-type]
        client.clock,
        timeout=60.0,
        pool_label="muster.dev/pool",
        scheduler_names=frozenset({"default-scheduler"}),
    )
    finding: asyncio.Future[Finding] = asyncio.get_running_loop().create_future()
    looking.start(driver, KEY, finding.set_result)
    try:
        return await finding
    finally:
        await looking.close()


async def test_a_config_map_that_is_absent_for_a_minute_is_not_waited_for_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    finding = await look(monkeypatch, ABSENT, ABSENT)
    assert isinstance(finding, ApplicationInvalid)
    assert finding.reason == "ConfigMapMissing"


@pytest.mark.parametrize("failure", [AWAY, FAILING])
async def test_while_the_api_server_is_away_nothing_is_concluded(
    monkeypatch: pytest.MonkeyPatch, failure: ApiError
) -> None:
    finding = await look(monkeypatch, ABSENT, failure, failure, failure, ABSENT, THERE)
    assert isinstance(finding, Application)
    assert finding.minimum == 3


async def test_a_config_map_that_may_not_be_read_is_waited_for_no_longer_than_an_absent_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert isinstance(await look(monkeypatch, FORBIDDEN, FORBIDDEN), ApplicationInvalid)
