"""The structs of Gang and Queue and their schemas speak of the same fields."""

from __future__ import annotations

import jsonschema
import msgspec
import pytest

from muster.kube.definitions import gang_definition, queue_definition
from muster.kube.objects import ObjectMeta
from muster.kube.resources import (
    Gang,
    GangDriver,
    GangExecutor,
    GangProfile,
    GangSlots,
    GangSpec,
    Queue,
    QueueSpec,
    Shape,
)


def struct_fields(kind: object, path: str = "") -> set[str]:
    found: set[str] = set()
    for field in msgspec.inspect.type_info(kind).fields:
        here = f"{path}.{field.encode_name}"
        found.add(here)
        for inner in _structs(field.type):
            found |= struct_fields(inner.cls, here)
    return found


def _structs(kind: object) -> list:
    if isinstance(kind, msgspec.inspect.StructType):
        return [kind]
    if isinstance(kind, msgspec.inspect.UnionType):
        return [struct for each in kind.types for struct in _structs(each)]
    if isinstance(kind, msgspec.inspect.VarTupleType):
        return _structs(kind.item_type)
    return []


def schema_fields(schema: dict, path: str = "") -> set[str]:
    found: set[str] = set()
    for name, child in schema.get("properties", {}).items():
        here = f"{path}.{name}"
        found |= {here} | schema_fields(child, here) | schema_fields(child.get("items", {}), here)
    return found


@pytest.mark.parametrize(("kind", "definition"), [(Gang, gang_definition()), (Queue, queue_definition())])
def test_struct_and_schema_have_the_same_fields(kind, definition):
    """A field that the schema lacks is pruned by the API server without a word."""
    schema = schema_fields(definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
    struct = {f for f in struct_fields(kind) if f not in (".apiVersion", ".kind") and not f.startswith(".metadata")}
    assert struct == schema


def test_a_gang_is_written_in_the_words_of_the_api():
    gang = Gang(
        metadata=ObjectMeta(name="spark-1", namespace="a"),
        spec=GangSpec(
            application_id="spark-1",
            driver=GangDriver("d", shape=Shape({"cpu": "1"})),
            executor=GangExecutor(Shape({"cpu": "2"})),
            min_executors=2,
            slots=(GangSlots("n", 2),),
        ),
    )
    assert msgspec.json.decode(msgspec.json.encode(gang)) == {
        "apiVersion": "muster.dev/v1alpha1",
        "kind": "Gang",
        "metadata": {"name": "spark-1", "namespace": "a"},
        "spec": {
            "applicationId": "spark-1",
            "driver": {"podName": "d", "shape": {"requests": {"cpu": "1"}}},
            "executor": {"shape": {"requests": {"cpu": "2"}}},
            "minExecutors": 2,
            "slots": [{"node": "n", "count": 2}],
        },
        "status": {},
    }


def test_a_queue_written_by_hand_gets_the_same_defaults_from_struct_and_schema():
    spec = queue_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    defaults = {name: field["default"] for name, field in spec["properties"].items() if "default" in field}
    assert defaults == {
        "policy": "fifo",
        "weight": 1,
        "driverShare": 100,
        "preemption": "extras",
        "minRuntimeSeconds": 600,
    }
    assert msgspec.convert(defaults, QueueSpec) == QueueSpec()


@pytest.mark.parametrize(
    "spec",
    [
        GangSpec(application_id="spark-1", driver=GangDriver("d")),
        GangSpec(application_id="spark-1", executor=GangExecutor(Shape())),
        GangSpec(application_id="spark-1", profiles=(GangProfile(1),)),
    ],
    ids=["sizes unknown", "executors without requests", "a profile without requests"],
)
def test_a_gang_that_says_little_is_still_one_that_the_api_accepts(spec):
    """What is empty is not written, so the schema must not require it."""
    schema = gang_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    gang = Gang(metadata=ObjectMeta(name="spark-1"), spec=spec)
    jsonschema.Draft4Validator(schema).validate(msgspec.json.decode(msgspec.json.encode(gang)))
