"""PATCH with JSON Patch, merge patch and strategic merge patch."""

from __future__ import annotations

from typing import Any

import pytest

from .kubernetes_api import JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, Api


async def test_a_merge_patch_sets_changes_and_removes_keys(api: Api) -> None:
    await api.config("a", x="1", y="2")
    answer = await api.patch(api.path("configmaps", "a"), {"data": {"x": "9", "y": None, "z": "3"}})
    assert answer.code == 200
    assert answer.body["data"] == {"x": "9", "z": "3"}


async def test_a_json_patch_applies_its_operations_in_order(api: Api) -> None:
    await api.config("a", x="1")
    operations = [
        {"op": "test", "path": "/data/x", "value": "1"},
        {"op": "replace", "path": "/data/x", "value": "2"},
        {"op": "add", "path": "/metadata/labels", "value": {}},
        {"op": "add", "path": "/metadata/labels/example.com~1role", "value": "r"},
    ]
    answer = await api.patch(api.path("configmaps", "a"), operations, JSON_PATCH)
    assert answer.code == 200
    assert answer.body["data"] == {"x": "2"}
    assert answer.body["metadata"]["labels"] == {"example.com/role": "r"}


@pytest.mark.parametrize(
    "operation",
    [{"op": "test", "path": "/data/x", "value": "other"}, {"op": "remove", "path": "/data/nothing"}],
    ids=["test fails", "path is absent"],
)
async def test_a_json_patch_that_does_not_apply_answers_422_and_changes_nothing(
    api: Api, operation: dict[str, Any]
) -> None:
    created = await api.config("a", x="1")
    operations = [{"op": "replace", "path": "/data/x", "value": "2"}, operation]
    answer = await api.patch(api.path("configmaps", "a"), operations, JSON_PATCH)
    assert (answer.code, answer.reason) == (422, "Invalid")
    assert (await api.get(api.path("configmaps", "a"))).body == created.body


@pytest.mark.parametrize("body", [{"not": "a list"}, [{"op": "jump", "path": "/x"}]], ids=["object", "operation"])
async def test_a_malformed_json_patch_is_refused(api: Api, body: Any) -> None:
    await api.config("a")
    answer = await api.patch(api.path("configmaps", "a"), body, JSON_PATCH)
    assert answer.code in (400, 422)


async def test_a_patch_of_an_unknown_type_answers_415(api: Api) -> None:
    await api.config("a")
    answer = await api.patch(api.path("configmaps", "a"), {}, "application/json")
    assert (answer.code, answer.reason) == (415, "UnsupportedMediaType")


async def test_a_patch_with_a_stale_version_answers_409(api: Api) -> None:
    created = await api.config("a", x="1")
    await api.patch(api.path("configmaps", "a"), {"data": {"x": "2"}})
    stale = {"metadata": {"resourceVersion": created.version}, "data": {"x": "3"}}
    answer = await api.patch(api.path("configmaps", "a"), stale)
    assert (answer.code, answer.reason) == (409, "Conflict")


async def test_a_patch_of_an_object_that_is_not_there_answers_404(api: Api) -> None:
    assert (await api.patch(api.path("configmaps", "a"), {})).code == 404


async def test_a_patch_cannot_rename(api: Api) -> None:
    await api.config("a")
    answer = await api.patch(api.path("configmaps", "a"), {"metadata": {"name": "b"}})
    assert answer.code in (400, 422)
    assert (await api.get(api.path("configmaps", "b"))).code == 404


async def test_a_patch_cannot_change_uid_or_creation_time(api: Api) -> None:
    created = await api.config("a")
    answer = await api.patch(
        api.path("configmaps", "a"), {"metadata": {"creationTimestamp": "2001-01-01T00:00:00Z", "labels": {"x": "y"}}}
    )
    assert answer.body["metadata"]["creationTimestamp"] == created.body["metadata"]["creationTimestamp"]


async def test_strategic_merge_merges_containers_by_name(api: Api) -> None:
    await api.pod("p", {"containers": [_container("main"), _container("side")]})
    patch = {"spec": {"containers": [{"name": "side", "image": "registry.example/side:2"}]}}
    answer = await api.patch(api.path("pods", "p"), patch, STRATEGIC_PATCH)
    assert answer.code == 200, answer.body
    images = {c["name"]: c["image"] for c in answer.body["spec"]["containers"]}
    assert images == {"main": "registry.example/main:1", "side": "registry.example/side:2"}


async def test_strategic_merge_merges_conditions_by_type(api: Api) -> None:
    await api.pod("p")
    path = api.path("pods", "p/status")
    ready = {"type": "Ready", "status": "False"}
    await api.patch(path, {"status": {"conditions": [ready, {"type": "Mine", "status": "True"}]}}, STRATEGIC_PATCH)
    answer = await api.patch(path, {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}, STRATEGIC_PATCH)
    assert {c["type"]: c["status"] for c in answer.body["status"]["conditions"]} == {"Ready": "True", "Mine": "True"}


async def test_strategic_merge_deletes_list_items_by_key(api: Api) -> None:
    await api.pod("p", {"schedulingGates": [{"name": "example.com/a"}, {"name": "example.com/b"}]})
    patch = {"spec": {"schedulingGates": [{"name": "example.com/a", "$patch": "delete"}]}}
    answer = await api.patch(api.path("pods", "p"), patch, STRATEGIC_PATCH)
    assert answer.code == 200, answer.body
    assert answer.body["spec"]["schedulingGates"] == [{"name": "example.com/b"}]


async def test_strategic_merge_adds_and_deletes_finalizers_as_a_set(api: Api) -> None:
    path = api.path("configmaps", "a")
    await api.create("configmaps", {"metadata": {"name": "a", "finalizers": ["example.com/a"]}})
    added = await api.patch(path, {"metadata": {"finalizers": ["example.com/b"]}}, STRATEGIC_PATCH)
    assert sorted(added.body["metadata"]["finalizers"]) == ["example.com/a", "example.com/b"]
    removal = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["example.com/a"]}}
    assert (await api.patch(path, removal, STRATEGIC_PATCH)).body["metadata"]["finalizers"] == ["example.com/b"]
    last = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["example.com/b"]}}
    assert "finalizers" not in (await api.patch(path, last, STRATEGIC_PATCH)).body["metadata"]


async def test_strategic_merge_replaces_taints_as_a_whole(api: Api, node: str) -> None:
    path = f"/api/v1/nodes/{node}"
    await api.patch(path, {"spec": {"taints": [{"key": "a", "effect": "NoExecute"}]}}, STRATEGIC_PATCH)
    answer = await api.patch(path, {"spec": {"taints": [{"key": "b", "effect": "NoSchedule"}]}}, STRATEGIC_PATCH)
    assert "a" not in [taint["key"] for taint in answer.body["spec"]["taints"]]
    assert "b" in [taint["key"] for taint in answer.body["spec"]["taints"]]


async def test_strategic_merge_replaces_a_map_when_told_to(api: Api) -> None:
    await api.config("a", x="1", y="2")
    patch = {"data": {"$patch": "replace", "z": "3"}}
    answer = await api.patch(api.path("configmaps", "a"), patch, STRATEGIC_PATCH)
    assert answer.body["data"] == {"z": "3"}


async def test_strategic_merge_without_the_merge_key_is_refused(api: Api) -> None:
    await api.pod("p")
    answer = await api.patch(api.path("pods", "p"), {"spec": {"containers": [{"image": "x"}]}}, STRATEGIC_PATCH)
    assert answer.code in (400, 422, 500)


async def test_a_merge_patch_replaces_lists(api: Api, node: str) -> None:
    path = f"/api/v1/nodes/{node}"
    await api.patch(path, {"spec": {"taints": [{"key": "a", "effect": "NoExecute"}]}}, MERGE_PATCH)
    answer = await api.patch(path, {"spec": {"taints": []}}, MERGE_PATCH)
    assert "a" not in [taint["key"] for taint in answer.body["spec"].get("taints", [])]


def _container(name: str) -> dict[str, str]:
    return {"name": name, "image": f"registry.example/{name}:1"}
