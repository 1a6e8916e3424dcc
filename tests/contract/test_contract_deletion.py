"""DELETE: grace, finalizers, preconditions, collections, owner references, namespaces."""

from __future__ import annotations

from typing import Any

import pytest

from .kubernetes_api import Answer, Api


async def test_a_deleted_object_is_gone_and_the_answer_says_success(api: Api) -> None:
    created = await api.config("a")
    answer = await api.delete(api.path("configmaps", "a"))
    assert answer.code == 200
    assert answer.body["kind"] == "Status"
    assert answer.body["status"] == "Success"
    assert answer.body["details"] == {"name": "a", "kind": "configmaps", "uid": created.body["metadata"]["uid"]}
    assert (await api.get(api.path("configmaps", "a"))).code == 404


async def test_deleting_what_is_not_there_answers_404(api: Api) -> None:
    assert (await api.delete(api.path("configmaps", "a"))).code == 404


async def test_an_unbound_pod_goes_at_once(api: Api) -> None:
    await api.pod("p")
    answer = await api.delete(api.path("pods", "p"))
    assert answer.code == 200
    assert answer.body["kind"] == "Pod"
    assert (await api.get(api.path("pods", "p"))).code == 404


async def test_a_bound_pod_waits_for_its_kubelet(api: Api, node: str) -> None:
    await api.pod("p", {"nodeName": node})
    path = api.path("pods", "p")
    answer = await api.delete(path)
    assert answer.code == 200
    assert answer.body["metadata"]["deletionGracePeriodSeconds"] == 30
    assert answer.body["metadata"]["deletionTimestamp"] > answer.body["metadata"]["creationTimestamp"]
    assert (await api.get(path)).code == 200
    assert (await api.delete(path, gracePeriodSeconds=0)).code == 200
    assert (await api.get(path)).code == 404


async def test_the_grace_period_may_be_given_in_body_or_query(api: Api, node: str) -> None:
    for name in ("p", "q"):
        await api.pod(name, {"nodeName": node})
    body = {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 7}
    by_body = await api.delete(api.path("pods", "p"), body)
    by_query = await api.delete(api.path("pods", "q"), gracePeriodSeconds=8)
    assert by_body.body["metadata"]["deletionGracePeriodSeconds"] == 7
    assert by_query.body["metadata"]["deletionGracePeriodSeconds"] == 8


async def test_a_second_delete_may_shorten_the_grace_but_not_lengthen_it(api: Api, node: str) -> None:
    await api.pod("p", {"nodeName": node})
    path = api.path("pods", "p")
    await api.delete(path, gracePeriodSeconds=20)
    shorter = await api.delete(path, gracePeriodSeconds=10)
    assert shorter.body["metadata"]["deletionGracePeriodSeconds"] == 10
    longer = await api.delete(path, gracePeriodSeconds=60)
    assert longer.body["metadata"]["deletionGracePeriodSeconds"] == 10
    same = await api.delete(path)
    assert same.body["metadata"]["deletionTimestamp"] == longer.body["metadata"]["deletionTimestamp"]


async def test_a_finished_pod_goes_at_once_even_when_bound(api: Api, node: str) -> None:
    await api.pod("p", {"nodeName": node})
    await api.patch(api.path("pods", "p/status"), {"status": {"phase": "Succeeded"}})
    await api.delete(api.path("pods", "p"))
    assert (await api.get(api.path("pods", "p"))).code == 404


async def test_a_finalizer_keeps_an_object_until_it_is_removed(api: Api) -> None:
    await api.create("configmaps", {"metadata": {"name": "a", "finalizers": ["example.com/hold"]}})
    path = api.path("configmaps", "a")
    marked = await api.delete(path)
    assert marked.code == 200
    assert marked.body["metadata"]["deletionTimestamp"]
    assert (await api.get(path)).code == 200
    released = await api.patch(path, {"metadata": {"finalizers": None}})
    assert released.code == 200
    assert (await api.get(path)).code == 404


async def test_a_finalizer_cannot_be_added_once_the_object_is_being_deleted(api: Api) -> None:
    await api.create("configmaps", {"metadata": {"name": "a", "finalizers": ["example.com/hold"]}})
    path = api.path("configmaps", "a")
    await api.delete(path)
    answer = await api.patch(path, {"metadata": {"finalizers": ["example.com/hold", "example.com/late"]}})
    assert (answer.code, answer.reason) == (422, "Invalid")
    await api.patch(path, {"metadata": {"finalizers": None}})


async def test_a_bound_pod_with_a_finalizer_waits_for_both(api: Api, node: str) -> None:
    await api.pod("p", {"nodeName": node}, finalizers=["example.com/hold"])
    path = api.path("pods", "p")
    await api.delete(path)
    await api.delete(path, gracePeriodSeconds=0)
    held = await api.get(path)
    assert held.code == 200
    assert held.body["metadata"]["deletionGracePeriodSeconds"] == 0
    await api.patch(path, {"metadata": {"finalizers": None}})
    assert (await api.get(path)).code == 404


@pytest.mark.parametrize("wrong", ["uid", "resourceVersion"])
async def test_a_precondition_that_does_not_hold_answers_409(api: Api, wrong: str) -> None:
    created = await api.config("a")
    actual = {key: created.body["metadata"][key] for key in ("uid", "resourceVersion")}
    bad = {"uid": "00000000-0000-0000-0000-000000000000", "resourceVersion": "7"}[wrong]
    answer = await api.delete(api.path("configmaps", "a"), {"preconditions": {**actual, wrong: bad}})
    assert (answer.code, answer.reason) == (409, "Conflict")
    assert (await api.delete(api.path("configmaps", "a"), {"preconditions": actual})).code == 200


async def test_a_collection_is_deleted_as_far_as_its_selectors_reach(api: Api, node: str) -> None:
    for name, labels in (("a", {"app": "x"}), ("b", {"app": "x"}), ("c", {"app": "y"})):
        await api.config(name, labels=labels)
    answer = await api.delete(api.path("configmaps"), labelSelector="app=x")
    assert answer.code == 200
    assert (await api.get(api.path("configmaps"), labelSelector="app")).names == ["c"]
    await api.pod("p", {"nodeName": node}, labels={"app": "x"})
    await api.pod("q", labels={"app": "x"})
    await api.delete(api.path("pods"), labelSelector="app=x", fieldSelector="metadata.name=q")
    assert (await api.get(api.path("pods"), labelSelector="app=x")).names == ["p"]


async def test_dependents_go_with_their_owner(controlled: Api) -> None:
    api = controlled
    owner = await api.config("owner")
    await _owned(api, "child", owner)
    grandchild = await _owned(api, "grandchild", await api.get(api.path("configmaps", "child")))
    assert grandchild.body["metadata"]["ownerReferences"][0]["name"] == "child"
    await api.delete(api.path("configmaps", "owner"), {"propagationPolicy": "Background"})
    await api.eventually(api.path("configmaps", "grandchild"), 404)
    assert (await api.get(api.path("configmaps", "child"))).code == 404


async def test_a_dependent_with_a_second_owner_stays(controlled: Api) -> None:
    api = controlled
    first, second = await api.config("first"), await api.config("second")
    await _owned(api, "child", first, second)
    await _owned(api, "other-child", first)
    await api.delete(api.path("configmaps", "first"))
    await api.eventually(api.path("configmaps", "other-child"), 404)
    assert (await api.get(api.path("configmaps", "child"))).code == 200


async def test_orphaned_dependents_stay_and_lose_their_owner(controlled: Api) -> None:
    api = controlled
    owner = await api.config("owner")
    await _owned(api, "child", owner)
    await api.delete(api.path("configmaps", "owner"), {"propagationPolicy": "Orphan"})
    await api.eventually(api.path("configmaps", "owner"), 404)
    child = await api.get(api.path("configmaps", "child"))
    assert child.code == 200
    assert not child.body["metadata"].get("ownerReferences")


async def test_in_the_foreground_the_owner_goes_last(controlled: Api) -> None:
    api = controlled
    owner = await api.config("owner")
    await _owned(api, "child", owner, blockOwnerDeletion=True, finalizers=["example.com/hold"])
    answer = await api.delete(api.path("configmaps", "owner"), {"propagationPolicy": "Foreground"})
    assert answer.body["metadata"]["finalizers"] == ["foregroundDeletion"]
    async with api.watch(api.path("configmaps"), fieldSelector="metadata.name=child") as events:
        while "deletionTimestamp" not in (await events.next())["object"]["metadata"]:
            pass
    assert (await api.get(api.path("configmaps", "owner"))).code == 200
    await api.patch(api.path("configmaps", "child"), {"metadata": {"finalizers": None}})
    await api.eventually(api.path("configmaps", "owner"), 404)


async def test_an_object_whose_owner_never_was_is_collected(controlled: Api) -> None:
    api = controlled
    metadata = {"name": "gone", "uid": "00000000-0000-0000-0000-000000000000"}
    await _owned(api, "child", Answer(200, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}))
    await api.eventually(api.path("configmaps", "child"), 404)


async def test_a_driver_pod_takes_its_executors_with_it(controlled: Api) -> None:
    api = controlled
    driver = await api.pod("driver")
    reference = _reference(driver)
    await api.pod("exec-1", ownerReferences=[reference])
    await api.create(
        "services", {"metadata": {"name": "svc", "ownerReferences": [reference]}, "spec": {"clusterIP": "None"}}
    )
    await api.delete(api.path("pods", "driver"))
    await api.eventually(api.path("pods", "exec-1"), 404)
    await api.eventually(api.path("services", "svc"), 404)


async def test_a_namespace_is_emptied_and_then_goes(controlled: Api) -> None:
    api = controlled
    name = f"{api.namespace}-2"
    assert (await api.post("/api/v1/namespaces", {"metadata": {"name": name}})).code == 201
    held = {"metadata": {"name": "a", "finalizers": ["example.com/hold"]}}
    assert (await api.post(api.path("configmaps", namespace=name), held)).code == 201
    marked = await api.delete(f"/api/v1/namespaces/{name}")
    assert marked.body["status"]["phase"] == "Terminating"
    refused = await api.post(api.path("configmaps", namespace=name), {"metadata": {"name": "late"}})
    assert (refused.code, refused.reason) == (403, "Forbidden")
    assert refused.body["details"]["causes"][0]["reason"] == "NamespaceTerminating"
    await api.patch(api.path("configmaps", "a", namespace=name), {"metadata": {"finalizers": None}})
    await api.eventually(f"/api/v1/namespaces/{name}", 404)


def _reference(owner: Answer, **extra: Any) -> dict[str, Any]:
    body = owner.body
    metadata = body["metadata"]
    reference = {
        "apiVersion": body["apiVersion"],
        "kind": body["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
    }
    return {**reference, **extra}


async def _owned(api: Api, name: str, *owners: Answer, finalizers: Any = None, **extra: Any) -> Answer:
    references = [_reference(owner, **extra) for owner in owners]
    metadata = {"name": name, "ownerReferences": references, "finalizers": finalizers or []}
    return await api.create("configmaps", {"metadata": metadata})
