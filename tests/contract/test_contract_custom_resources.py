"""Custom resources: definitions, schemas, status, columns."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from .kubernetes_api import APPLY, Answer, Api

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
SCHEMA = {
    "type": "object",
    "required": ["spec"],
    "properties": {
        "spec": {
            "type": "object",
            "required": ["queue"],
            "properties": {
                "queue": {"type": "string", "minLength": 1, "maxLength": 10, "pattern": "^[a-z]+$"},
                "min": {"type": "integer", "minimum": 0, "maximum": 9, "default": 2},
                "mode": {"type": "string", "enum": ["bind", "pin"]},
                "size": {"x-kubernetes-int-or-string": True},
                "note": {"type": "string", "nullable": True},
                "shape": {
                    "type": "object",
                    "default": {},
                    "properties": {"cpu": {"type": "string", "default": "1"}},
                },
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "slots": {
                    "type": "array",
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["node"],
                    "items": {
                        "type": "object",
                        "required": ["node"],
                        "properties": {"node": {"type": "string"}, "count": {"type": "integer"}},
                    },
                },
            },
        },
        "status": {"type": "object", "properties": {"phase": {"type": "string"}, "running": {"type": "integer"}}},
    },
}
COLUMNS = [
    {"name": "Queue", "type": "string", "jsonPath": ".spec.queue"},
    {"name": "Min", "type": "integer", "jsonPath": ".spec.min"},
    {"name": "Phase", "type": "string", "jsonPath": ".status.phase"},
    {"name": "Since", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
]


@dataclass
class Gangs:
    """A custom kind of this test alone."""

    api: Api
    group: str

    def path(self, name: str = "") -> str:
        return self.api.path("gangs", name, group=f"{self.group}/v1")

    def body(self, name: str, spec: dict[str, Any], **rest: Any) -> dict[str, Any]:
        return {"apiVersion": f"{self.group}/v1", "kind": "Gang", "metadata": {"name": name}, "spec": spec, **rest}

    async def create(self, name: str, spec: dict[str, Any], **params: Any) -> Answer:
        return await self.api.post(self.path(), self.body(name, spec), **params)


@pytest.fixture
async def gangs(api: Api) -> AsyncIterator[Gangs]:
    group = f"g{secrets.token_hex(4)}.example.com"
    definition = {
        "metadata": {"name": f"gangs.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": "gangs", "kind": "Gang", "shortNames": ["gg"]},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": SCHEMA},
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": COLUMNS,
                }
            ],
        },
    }
    created = await api.post(CRDS, definition)
    assert created.code == 201, created.body
    served = Gangs(api, group)
    await _established(api, f"gangs.{group}")
    await api.eventually(served.path(), 200)
    yield served
    await api.delete(f"{CRDS}/gangs.{group}")


async def _established(api: Api, name: str) -> None:
    async with api.watch(CRDS, fieldSelector=f"metadata.name={name}") as events:
        while True:
            definition = (await events.next())["object"]
            conditions = {c["type"]: c["status"] for c in definition.get("status", {}).get("conditions") or []}
            if conditions.get("Established") == "True":
                assert definition["status"]["acceptedNames"]["singular"] == "gang"
                assert conditions["NamesAccepted"] == "True"
                return


async def test_defaults_fill_what_is_missing(gangs: Gangs) -> None:
    created = await gangs.create("g", {"queue": "q"})
    assert created.code == 201, created.body
    assert created.body["spec"] == {"queue": "q", "min": 2, "shape": {"cpu": "1"}}
    assert created.body["metadata"]["generation"] == 1


async def test_unknown_fields_are_pruned_except_where_they_are_preserved(gangs: Gangs) -> None:
    spec = {"queue": "q", "colour": "red", "free": {"any": {"thing": 1}}, "slots": [{"node": "n", "x": 1}]}
    created = await gangs.create("g", spec)
    assert "colour" not in created.body["spec"]
    assert created.body["spec"]["free"] == {"any": {"thing": 1}}
    assert created.body["spec"]["slots"] == [{"node": "n"}]


async def test_unknown_fields_are_an_error_in_strict_mode(gangs: Gangs) -> None:
    answer = await gangs.create("g", {"queue": "q", "colour": "red"}, fieldValidation="Strict")
    assert (answer.code, answer.reason) == (400, "BadRequest")
    assert 'unknown field "spec.colour"' in answer.body["message"]


@pytest.mark.parametrize(
    ("spec", "field", "reason"),
    [
        ({}, "spec.queue", "FieldValueRequired"),
        ({"queue": ""}, "spec.queue", "FieldValueInvalid"),
        ({"queue": "x" * 11}, "spec.queue", "FieldValueTooLong"),
        ({"queue": "Q"}, "spec.queue", "FieldValueInvalid"),
        ({"queue": 7}, "spec.queue", "FieldValueTypeInvalid"),
        ({"queue": "q", "min": -1}, "spec.min", "FieldValueInvalid"),
        ({"queue": "q", "min": 10}, "spec.min", "FieldValueInvalid"),
        ({"queue": "q", "min": 1.5}, "spec.min", "FieldValueTypeInvalid"),
        ({"queue": "q", "mode": "other"}, "spec.mode", "FieldValueNotSupported"),
        ({"queue": "q", "labels": {"a": 1}}, "spec.labels.a", "FieldValueTypeInvalid"),
        ({"queue": "q", "slots": [{"count": 1}]}, "spec.slots[0].node", "FieldValueRequired"),
        ({"queue": "q", "slots": [{"node": "n"}, {"node": "n"}]}, "spec.slots[1]", "FieldValueDuplicate"),
        ({"queue": "q", "size": True}, "spec.size", "FieldValueTypeInvalid"),
    ],
)
async def test_a_value_that_the_schema_forbids_answers_422(
    gangs: Gangs, spec: dict[str, Any], field: str, reason: str
) -> None:
    answer = await gangs.create("g", spec)
    assert (answer.code, answer.reason) == (422, "Invalid"), answer.body
    assert (field, reason) in [(cause["field"], cause["reason"]) for cause in answer.body["details"]["causes"]]


async def test_values_the_schema_allows(gangs: Gangs) -> None:
    for index, size in enumerate((1, "2")):
        created = await gangs.create(f"g{index}", {"queue": "q", "size": size, "note": None})
        assert created.code == 201, created.body
        assert created.body["spec"]["size"] == size
        assert created.body["spec"]["note"] is None


async def test_the_generation_counts_spec_changes_and_not_status_changes(gangs: Gangs) -> None:
    api = gangs.api
    await gangs.create("g", {"queue": "q"})
    changed = await api.patch(gangs.path("g"), {"spec": {"min": 3}})
    assert changed.body["metadata"]["generation"] == 2
    status = await api.patch(gangs.path("g/status"), {"status": {"phase": "Running"}})
    assert status.body["metadata"]["generation"] == 2
    labelled = await api.patch(gangs.path("g"), {"metadata": {"labels": {"a": "b"}}})
    assert labelled.body["metadata"]["generation"] == 2


async def test_status_and_spec_are_written_through_different_endpoints(gangs: Gangs) -> None:
    api = gangs.api
    created = await api.post(gangs.path(), gangs.body("g", {"queue": "q"}, status={"phase": "Early"}))
    assert "status" not in created.body
    ignored = await api.patch(gangs.path("g"), {"status": {"phase": "Wrong"}})
    assert "status" not in ignored.body
    patch = {"status": {"phase": "Running"}, "spec": {"min": 9}, "metadata": {"labels": {"a": "b"}}}
    written = await api.patch(gangs.path("g/status"), patch)
    assert written.body["status"] == {"phase": "Running"}
    assert written.body["spec"]["min"] == 2
    assert "labels" not in written.body["metadata"]


async def test_a_status_that_the_schema_forbids_answers_422(gangs: Gangs) -> None:
    await gangs.create("g", {"queue": "q"})
    answer = await gangs.api.patch(gangs.path("g/status"), {"status": {"running": "many"}})
    assert (answer.code, answer.reason) == (422, "Invalid")


async def test_replacing_needs_a_resource_version(gangs: Gangs) -> None:
    created = await gangs.create("g", {"queue": "q"})
    without = await gangs.api.put(gangs.path("g"), gangs.body("g", {"queue": "r"}))
    assert (without.code, without.reason) == (422, "Invalid")
    replaced = await gangs.api.put(gangs.path("g"), {**created.body, "spec": {"queue": "r"}})
    assert replaced.code == 200
    assert replaced.body["spec"]["queue"] == "r"


async def test_strategic_merge_is_not_for_custom_resources(gangs: Gangs) -> None:
    await gangs.create("g", {"queue": "q"})
    answer = await gangs.api.patch(gangs.path("g"), {}, "application/strategic-merge-patch+json")
    assert (answer.code, answer.reason) == (415, "UnsupportedMediaType")


async def test_server_side_apply_merges_keyed_lists(gangs: Gangs) -> None:
    api = gangs.api
    for manager, node in (("one", "a"), ("two", "b")):
        body = gangs.body("g", {"queue": "q", "slots": [{"node": node, "count": 1}]})
        answer = await api.call("PATCH", gangs.path("g"), body, content=APPLY, fieldManager=manager)
        assert answer.code in (200, 201), answer.body
    assert answer.body["spec"]["slots"] == [{"node": "a", "count": 1}, {"node": "b", "count": 1}]


async def test_lists_and_watches_of_a_custom_kind(gangs: Gangs) -> None:
    api = gangs.api
    created = await gangs.create("a", {"queue": "q"})
    listed = await api.get(gangs.path())
    assert listed.body["kind"] == "GangList"
    assert listed.body["apiVersion"] == f"{gangs.group}/v1"
    assert listed.body["items"][0] == created.body
    async with api.watch(gangs.path(), resourceVersion=listed.version) as events:
        await gangs.create("b", {"queue": "q"})
        await api.delete(gangs.path("a"))
        assert await events.seen(2) == [("ADDED", "b"), ("DELETED", "a")]


async def test_printer_columns_make_the_table(gangs: Gangs) -> None:
    api = gangs.api
    await gangs.create("g", {"queue": "q"})
    await api.patch(gangs.path("g/status"), {"status": {"phase": "Running"}})
    table = (await api.get(gangs.path(), accept="application/json;as=Table;v=v1;g=meta.k8s.io")).body
    assert table["kind"] == "Table"
    assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Queue", "Min", "Phase", "Since"]
    (row,) = table["rows"]
    assert row["cells"][:4] == ["g", "q", 2, "Running"]
    assert row["object"]["kind"] == "PartialObjectMetadata"


async def test_discovery_knows_the_kind(gangs: Gangs) -> None:
    resources = (await gangs.api.get(f"/apis/{gangs.group}/v1")).body["resources"]
    by_name = {resource["name"]: resource for resource in resources}
    assert by_name["gangs"]["kind"] == "Gang"
    assert by_name["gangs"]["shortNames"] == ["gg"]
    assert by_name["gangs"]["namespaced"] is True
    assert "gangs/status" in by_name


async def test_a_deleted_definition_takes_its_objects_and_its_paths_away(gangs: Gangs) -> None:
    api = gangs.api
    await gangs.create("g", {"queue": "q"})
    assert (await api.delete(f"{CRDS}/gangs.{gangs.group}")).code == 200
    await api.eventually(gangs.path(), 404)


async def test_a_definition_whose_name_does_not_fit_answers_422(api: Api) -> None:
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
    spec = {
        "group": "a.example.com",
        "scope": "Namespaced",
        "names": {"plural": "xs", "kind": "X"},
        "versions": [version],
    }
    answer = await api.post(CRDS, {"metadata": {"name": "ys.a.example.com"}, "spec": spec})
    assert (answer.code, answer.reason) == (422, "Invalid")
