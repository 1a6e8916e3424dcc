"""Server-side apply: creating, merging, ownership of fields, conflicts."""

from __future__ import annotations

from typing import Any

from .kubernetes_api import APPLY, STRATEGIC_PATCH, Answer, Api


async def _apply(api: Api, plural: str, name: str, body: Any, manager: str | None = "me", **params: Any) -> Answer:
    full = {"apiVersion": "v1", **body, "metadata": {"name": name, **body.get("metadata", {})}}
    if manager is not None:
        params["fieldManager"] = manager
    return await api.call("PATCH", api.path(plural, name), full, content=APPLY, **params)


async def _apply_config(api: Api, data: dict[str, str], manager: str | None = "me", **params: Any) -> Answer:
    return await _apply(api, "configmaps", "a", {"kind": "ConfigMap", "data": data}, manager, **params)


async def test_applying_creates_an_object_and_records_its_manager(api: Api) -> None:
    created = await _apply_config(api, {"x": "1"})
    assert created.code == 201
    assert created.body["data"] == {"x": "1"}
    (entry,) = created.body["metadata"]["managedFields"]
    assert (entry["manager"], entry["operation"], entry["apiVersion"]) == ("me", "Apply", "v1")
    assert entry["fieldsType"] == "FieldsV1"
    assert entry["fieldsV1"] == {"f:data": {"f:x": {}}}


async def test_applying_yaml_as_fabric8_does(api: Api) -> None:
    text = b"apiVersion: v1\nkind: Service\nmetadata:\n  name: s\nspec:\n  clusterIP: None\n  ports:\n  - port: 7078\n"
    params = {"fieldManager": "fabric8", "force": "true"}
    answer = await api.call("PATCH", api.path("services", "s"), text, content=APPLY, **params)
    assert answer.code == 201, answer.body
    assert answer.body["spec"]["clusterIP"] == "None"
    assert answer.body["spec"]["ports"] == [{"port": 7078, "protocol": "TCP", "targetPort": 7078}]


async def test_applying_again_changes_adds_and_removes_ones_own_fields(api: Api) -> None:
    await _apply_config(api, {"x": "1", "y": "2"})
    answer = await _apply_config(api, {"x": "9", "z": "3"})
    assert answer.code == 200
    assert answer.body["data"] == {"x": "9", "z": "3"}


async def test_applying_the_same_again_changes_nothing(api: Api) -> None:
    created = await _apply_config(api, {"x": "1"})
    assert (await _apply_config(api, {"x": "1"})).version == created.version


async def test_fields_of_two_managers_live_side_by_side(api: Api) -> None:
    await _apply_config(api, {"x": "1"}, "one")
    both = await _apply_config(api, {"y": "2"}, "two")
    assert both.body["data"] == {"x": "1", "y": "2"}
    rest = await _apply_config(api, {}, "one")
    assert rest.body["data"] == {"y": "2"}


async def test_another_managers_field_is_a_conflict(api: Api) -> None:
    await _apply_config(api, {"x": "1"}, "one")
    answer = await _apply_config(api, {"x": "2"}, "two")
    assert (answer.code, answer.reason) == (409, "Conflict")
    (cause,) = answer.body["details"]["causes"]
    assert cause["reason"] == "FieldManagerConflict"
    assert cause["field"] == ".data.x"
    assert 'conflict with "one"' in cause["message"]
    assert (await api.get(api.path("configmaps", "a"))).body["data"] == {"x": "1"}


async def test_the_same_value_is_shared_without_conflict(api: Api) -> None:
    await _apply_config(api, {"x": "1"}, "one")
    assert (await _apply_config(api, {"x": "1"}, "two")).code == 200
    left = await _apply_config(api, {}, "one")
    assert left.body["data"] == {"x": "1"}


async def test_force_takes_the_field_over(api: Api) -> None:
    await _apply_config(api, {"x": "1"}, "one")
    taken = await _apply_config(api, {"x": "2"}, "two", force="true")
    assert taken.body["data"] == {"x": "2"}
    answer = await _apply_config(api, {"x": "1"}, "one")
    assert (answer.code, answer.reason) == (409, "Conflict")


async def test_an_update_by_another_client_is_a_conflict_too(api: Api) -> None:
    await _apply_config(api, {"x": "1"}, "one")
    await api.patch(api.path("configmaps", "a"), {"data": {"x": "2"}}, fieldManager="editor")
    answer = await _apply_config(api, {"x": "1"}, "one")
    assert (answer.code, answer.reason) == (409, "Conflict")
    assert 'conflict with "editor"' in answer.body["message"]


async def test_applying_over_an_object_that_was_created_otherwise(api: Api) -> None:
    await api.config("a", x="1", y="2")
    assert (await _apply_config(api, {"x": "2"}, "one")).code == 409
    forced = await _apply_config(api, {"x": "2"}, "one", force="true")
    assert forced.code == 200
    assert forced.body["data"] == {"x": "2", "y": "2"}


async def test_a_field_manager_is_required(api: Api) -> None:
    answer = await _apply_config(api, {"x": "1"}, None)
    assert answer.code in (400, 422)


async def test_lists_with_keys_merge_by_their_keys(api: Api) -> None:
    service = {"kind": "Service", "spec": {"clusterIP": "None", "ports": [{"name": "a", "port": 1}]}}
    await _apply(api, "services", "s", service, "one")
    more = {"kind": "Service", "spec": {"ports": [{"name": "b", "port": 2, "protocol": "TCP"}]}}
    answer = await _apply(api, "services", "s", more, "two")
    assert answer.code == 200, answer.body
    assert [port["name"] for port in answer.body["spec"]["ports"]] == ["a", "b"]


async def test_a_pod_is_released_from_its_gate_by_apply(api: Api) -> None:
    gated = {
        "kind": "Pod",
        "spec": {
            "containers": [{"name": "main", "image": "x:1"}],
            "automountServiceAccountToken": False,
            "schedulingGates": [{"name": "example.com/gang"}],
        },
    }
    created = await _apply(api, "pods", "p", gated, "one")
    assert created.code == 201, created.body
    del gated["spec"]["schedulingGates"]
    released = await _apply(api, "pods", "p", gated, "one")
    assert released.code == 200, released.body
    assert "schedulingGates" not in released.body["spec"]


async def test_a_dry_run_apply_keeps_nothing(api: Api) -> None:
    answer = await _apply_config(api, {"x": "1"}, dryRun="All")
    assert answer.code == 201
    assert (await api.get(api.path("configmaps", "a"))).code == 404


async def test_finalizers_are_owned_one_by_one(api: Api) -> None:
    await _apply(api, "configmaps", "a", {"kind": "ConfigMap", "metadata": {"finalizers": ["x.io/1"]}}, "one")
    both = await _apply(api, "configmaps", "a", {"kind": "ConfigMap", "metadata": {"finalizers": ["x.io/2"]}}, "two")
    assert sorted(both.body["metadata"]["finalizers"]) == ["x.io/1", "x.io/2"]
    less = await _apply(api, "configmaps", "a", {"kind": "ConfigMap"}, "one")
    assert less.body["metadata"]["finalizers"] == ["x.io/2"]
    await api.patch(api.path("configmaps", "a"), {"metadata": {"finalizers": None}}, STRATEGIC_PATCH)
