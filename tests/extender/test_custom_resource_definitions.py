"""The archived scheduler's custom resources are brought into a cluster, and never taken out of one."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from muster.control.extender.definitions import (
    ConversionWebhook,
    DefinitionError,
    demand_definition,
    ensure_definition,
    is_current,
    prunes_pod_names,
    reservation_definition,
)
from muster.control.extender.demands import DEMANDS, DemandUnit, new_demand
from muster.control.extender.reservations import RESOURCE_RESERVATIONS, bound, new_reservation
from muster.devcluster.server import ApiServer
from muster.kube.client import Client
from muster.kube.config import load_access
from muster.kube.errors import ApiError
from muster.kube.kinds import NAMESPACES, PODS
from tests.extender.spark_objects import cases, driver_pod

CASES = cases("crd-verify")
SCHEMAS = json.loads((Path(__file__).parents[1] / "kube" / "data" / "kubernetes-1.30-schemas.json").read_text())
WEBHOOK = ConversionWebhook("spark", "A", 443, "/spark-scheduler/convert", b"X")


def definition(described: str) -> dict[str, Any]:
    """What the words of a case stand for."""
    if described == "no client config":
        made = reservation_definition(WEBHOOK)
        del made["spec"]["conversion"]["webhook"]["clientConfig"]
        return made
    if described.startswith("webhook"):
        words = described.split()
        authority = words[4].encode() if "ca" in words else b"X"
        return reservation_definition(ConversionWebhook("spark", words[2], 443, "/convert", authority))
    made = reservation_definition(WEBHOOK)
    wanted = described.removesuffix(" only").split("+")
    made["spec"]["versions"] = [each for each in made["spec"]["versions"] if each["name"] in wanted]
    return made


@pytest.mark.parametrize("name", sorted(CASES))
def test_a_definition_is_current_as_it_was_for_the_archived_scheduler(name: str) -> None:
    case = CASES[name]
    assert is_current(definition(case["existing"]), definition(case["desired"])) is case["expected"]


def test_annotations_of_others_do_not_make_it_outdated() -> None:
    installed = reservation_definition(WEBHOOK, {"ours": "1", "theirs": "2"})
    assert is_current(installed, reservation_definition(WEBHOOK, {"ours": "1"}))
    assert not is_current(installed, reservation_definition(WEBHOOK, {"ours": "2"}))
    assert not is_current(reservation_definition(WEBHOOK), reservation_definition(WEBHOOK, {"ours": "1"}))


def test_the_api_servers_defaults_do_not_make_it_outdated() -> None:
    installed = reservation_definition(WEBHOOK)
    wanted = reservation_definition(WEBHOOK)
    del wanted["spec"]["conversion"]["webhook"]["clientConfig"]["service"]["port"]
    assert is_current(installed, wanted)
    single = reservation_definition(None)
    del single["spec"]["conversion"]
    assert is_current(single, reservation_definition(None))


@pytest.mark.parametrize("made", [reservation_definition, demand_definition])
@pytest.mark.parametrize("webhook", [WEBHOOK, None], ids=["webhook", "alone"])
def test_kubernetes_accepts_each_definition(made: Any, webhook: ConversionWebhook | None) -> None:
    name = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition"
    [found] = [key for key in SCHEMAS["$defs"] if key.endswith(name.rsplit(".", 1)[1])]
    jsonschema.Draft202012Validator({**SCHEMAS, "$ref": f"#/$defs/{found}"}).validate(made(webhook))


def test_v1beta1_stays_the_stored_version_where_it_can_be_converted() -> None:
    def flags(made: dict[str, Any]) -> dict[str, tuple[bool, bool]]:
        return {each["name"]: (each["served"], each["storage"]) for each in made["spec"]["versions"]}

    assert flags(reservation_definition(WEBHOOK)) == {"v1beta1": (True, True), "v1beta2": (True, False)}
    assert flags(reservation_definition(None)) == {"v1beta2": (True, True)}
    assert flags(demand_definition(WEBHOOK)) == {"v1alpha1": (True, False), "v1alpha2": (True, True)}


def test_a_definition_that_loses_pod_names_is_recognised() -> None:
    archived = demand_definition(None)
    spec = archived["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    spec["properties"]["units"]["items"]["properties"]["pod-names-by-namespace"] = {"type": "object"}
    assert prunes_pod_names(archived)
    assert not prunes_pod_names(demand_definition(None))


class Definitions:
    """What ``ensure_definition`` needs of ``Client``; a definition is served ``after`` so many looks."""

    def __init__(self, installed: dict[str, Any] | None = None, after: int = 0) -> None:
        self.installed = installed
        self.after = after
        self.writes: list[str] = []
        self.failures: list[ApiError] = []
        self.clock = self
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)

    async def get(self, resource: Any, name: str) -> dict[str, Any]:
        if self.installed is None:
            raise ApiError("GET", 404, "NotFound", "not found")
        return self._served()

    async def create(self, resource: Any, body: dict[str, Any]) -> dict[str, Any]:
        return self._write("create", body)

    async def replace(self, resource: Any, name: str, body: dict[str, Any]) -> dict[str, Any]:
        assert self.installed is not None
        assert body["metadata"]["resourceVersion"] == self.installed["metadata"]["resourceVersion"]
        return self._write("update", body)

    def _write(self, verb: str, body: dict[str, Any]) -> dict[str, Any]:
        if self.failures:
            raise self.failures.pop()
        self.writes.append(verb)
        self.installed = body
        return self._served()

    def _served(self) -> dict[str, Any]:
        assert self.installed is not None
        self.after -= 1
        status = {"conditions": [{"type": "Established", "status": "True" if self.after < 0 else "False"}]}
        return {**self.installed, "status": status}


async def ensured(definitions: Definitions, wanted: dict[str, Any], **more: Any) -> dict[str, Any]:
    return await ensure_definition(definitions, wanted, **more)  # type: ignore[arg-type]


async def test_what_is_absent_is_created_and_waited_for() -> None:
    definitions = Definitions(after=3)
    await ensured(definitions, reservation_definition(WEBHOOK))
    assert definitions.writes == ["create"]
    assert definitions.now == 1.5


async def test_what_is_current_is_left_alone() -> None:
    definitions = Definitions(reservation_definition(WEBHOOK, {"theirs": "2"}))
    await ensured(definitions, reservation_definition(WEBHOOK))
    assert definitions.writes == []


async def test_what_is_outdated_is_updated_and_keeps_what_others_wrote() -> None:
    old = definition("webhook svc B")
    old["metadata"] |= {"resourceVersion": "7", "annotations": {"theirs": "2"}, "labels": {"team": "x"}}
    definitions = Definitions(old)
    installed = await ensured(definitions, reservation_definition(WEBHOOK, {"ours": "1"}))
    assert definitions.writes == ["update"]
    assert installed["metadata"]["annotations"] == {"theirs": "2", "ours": "1"}
    assert installed["metadata"]["labels"] == {"team": "x"}
    assert installed["spec"] == reservation_definition(WEBHOOK)["spec"]


@pytest.mark.parametrize(
    ("code", "reason"), [(409, "AlreadyExists"), (409, "Conflict"), (0, "Unreachable"), (429, ""), (503, "")]
)
async def test_a_faster_replica_or_an_api_server_that_is_away_is_no_failure(code: int, reason: str) -> None:
    definitions = Definitions()
    definitions.failures.append(ApiError("call", code, reason, "not now"))
    await ensured(definitions, reservation_definition(WEBHOOK))
    assert definitions.writes == ["create"]


async def test_what_is_not_served_in_time_is_told_and_stays() -> None:
    definitions = Definitions(after=1_000_000)
    with pytest.raises(DefinitionError, match=r"resourcereservations\.sparkscheduler\.palantir\.com is not served"):
        await ensured(definitions, reservation_definition(WEBHOOK), timeout=60)
    assert definitions.installed is not None
    assert definitions.now == 60


async def test_a_refusal_is_told() -> None:
    definitions = Definitions()
    definitions.failures.append(ApiError("POST", 422, "Invalid", "spec.conversion: bad"))
    with pytest.raises(DefinitionError, match=r"cannot be installed: .*spec\.conversion: bad.*untouched"):
        await ensured(definitions, reservation_definition(WEBHOOK))


async def test_objects_go_through_an_api_server_unharmed(tmp_path: Path) -> None:
    resources = {"cpu": "1", "memory": "1Gi"}
    async with ApiServer() as server:
        server.write_kubeconfig(tmp_path / "kubeconfig")
        async with Client(load_access(tmp_path / "kubeconfig")) as client:
            await client.create(NAMESPACES, {"metadata": {"name": "ns"}})
            # an owner that does not exist would have its objects collected
            body = msgspec.to_builtins(driver_pod())
            body["spec"]["containers"] = [{"name": "driver", "image": "spark"}]
            driver = await client.create(PODS, {**body, "apiVersion": "v1", "kind": "Pod"}, "ns")
            await ensure_definition(client, reservation_definition(None))
            await ensure_definition(client, demand_definition(None))
            await ensure_definition(client, demand_definition(None))

            reservation = new_reservation(driver, "app-1", "n1", ["n1", "n2"], resources, resources)
            made = await client.create(RESOURCE_RESERVATIONS, reservation, "ns")
            assert (made.spec, made.status) == (reservation.spec, reservation.status)
            changed = await client.replace(RESOURCE_RESERVATIONS, "app-1", bound(made, "executor-2", "e2"), "ns")
            assert changed.status.pods == {"driver": "driver", "executor-2": "e2"}

            unit = DemandUnit({"cpu": "1", "memory": "1Gi", "nvidia.com/gpu": "0"}, 1, {"ns": ["driver"]})
            demand = new_demand(driver, "app-1", "batch", (unit,), single_zone=False)
            stored = await client.create(DEMANDS, demand, "ns")
            assert stored.spec == demand.spec
