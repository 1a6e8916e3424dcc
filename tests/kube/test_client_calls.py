"""What the client sends, what it sends again, and how it says that a call failed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from muster.kube.client import PatchType
from muster.kube.errors import ApiError
from muster.kube.kinds import CONFIG_MAPS, NODES, PODS
from muster.kube.objects import ConfigMap, ObjectMeta

POD = {
    "kind": "Pod",
    "apiVersion": "v1",
    "metadata": {"name": "b", "namespace": "a", "uid": "u1", "resourceVersion": "7"},
}
ONE_POD = "/api/v1/namespaces/a/pods/b"
PODS_OF_A = "/api/v1/namespaces/a/pods"


async def test_an_object_is_decoded_to_the_type_of_its_resource(api, client):
    api.on("GET", ONE_POD, api.json(POD))
    pod = await client.get(PODS, "b", "a")
    assert (pod.metadata.uid, pod.metadata.resource_version) == ("u1", "7")
    sent = api.asked[0].headers
    assert sent["Authorization"] == "Bearer s3cr3t"
    assert sent["User-Agent"].startswith("muster/")


async def test_the_whole_object_can_be_had_as_a_dictionary(api, client):
    api.on("GET", ONE_POD, api.json(POD))
    assert await client.get(PODS.decoding_to(dict), "b", "a") == POD


async def test_a_failure_carries_the_status_of_the_api(api, client, calls):
    api.on("GET", ONE_POD, api.status(404, "NotFound", 'pods "b" not found'))
    with pytest.raises(ApiError, match='GET /api/v1/namespaces/a/pods/b: 404 NotFound: pods "b" not found') as caught:
        await client.get(PODS, "b", "a")
    assert caught.value.not_found
    assert [(call.verb, call.resource, call.code) for call in calls] == [("get", "pods", 404)]


async def test_a_list_is_fetched_page_by_page(api, client):
    first = {"metadata": {"resourceVersion": "9", "continue": "more"}, "items": [{"metadata": {"name": "n1"}}]}
    last = {"metadata": {"resourceVersion": "9"}, "items": [{"metadata": {"name": "n2"}}]}
    api.on("GET", "/api/v1/nodes", api.json(first), api.json(last))
    nodes = await client.list(NODES, label_selector="pool=spark")
    assert [node.metadata.name for node in nodes] == ["n1", "n2"]
    assert api.asked[0].query == {"limit": "500", "labelSelector": "pool=spark"}
    assert api.asked[1].query == {"limit": "500", "labelSelector": "pool=spark", "continue": "more"}


async def test_an_empty_list_written_by_go_as_null_is_empty(api, client):
    api.on("GET", "/api/v1/nodes", api.json({"metadata": {}, "items": None}))
    assert await client.list(NODES) == []


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
async def test_a_read_is_repeated_while_the_server_is_overloaded_or_broken(api, client, clock, code):
    api.on("GET", ONE_POD, api.status(code, "Trouble"), api.status(code, "Trouble"), api.json(POD))
    assert (await client.get(PODS, "b", "a")).metadata.name == "b"
    assert clock.slept == [0.25, 0.5]


async def test_retry_after_is_waited_for_before_the_back_off(api, client, clock):
    api.on("GET", ONE_POD, api.status(429, "TooManyRequests", Retry_After="7"), api.json(POD))
    await client.get(PODS, "b", "a")
    assert clock.slept == [7.25]


async def test_a_server_that_asks_for_too_much_patience_is_left_to_the_caller(api, client, clock):
    api.on("GET", ONE_POD, api.status(429, "TooManyRequests", Retry_After="3600"))
    with pytest.raises(ApiError) as caught:
        await client.get(PODS, "b", "a")
    assert caught.value.retry_after == 3600
    assert clock.slept == []


async def test_repeating_ends_after_six_attempts(api, client, calls):
    api.on("GET", ONE_POD, *[api.status(500, "InternalError")] * 6)
    with pytest.raises(ApiError):
        await client.get(PODS, "b", "a")
    assert len(calls) == 6


async def test_a_refusal_by_rule_is_not_repeated(api, client, calls):
    api.on("GET", ONE_POD, api.status(403, "Forbidden"))
    with pytest.raises(ApiError):
        await client.get(PODS, "b", "a")
    assert len(calls) == 1


async def test_a_named_create_whose_answer_was_lost_is_repeated_and_reports_what_it_finds(api, client):
    api.on("POST", PODS_OF_A, api.hang_up(), api.status(409, "AlreadyExists", 'pods "b" already exists'))
    with pytest.raises(ApiError) as caught:
        await client.create(PODS, POD, "a")
    assert caught.value.already_exists
    assert not caught.value.conflict
    assert len(api.asked) == 2


@pytest.mark.parametrize("trouble", ["hang_up", "internal_error"])
async def test_a_create_without_a_name_is_never_repeated_when_it_may_have_worked(api, client, trouble):
    api.on("POST", PODS_OF_A, api.hang_up() if trouble == "hang_up" else api.status(500, "InternalError"))
    with pytest.raises(ApiError):
        await client.create(PODS, {"metadata": {"generateName": "b-"}}, "a")
    assert len(api.asked) == 1


async def test_a_create_without_a_name_is_repeated_when_the_server_refused_to_look_at_it(api, client):
    api.on("POST", PODS_OF_A, api.status(429, "TooManyRequests", Retry_After="1"), api.json(POD, 201))
    assert (await client.create(PODS, {"metadata": {"generateName": "b-"}}, "a")).metadata.name == "b"


async def test_a_json_patch_without_a_test_is_not_repeated_after_a_lost_answer(api, client):
    api.on("PATCH", ONE_POD, api.hang_up())
    patch = [{"op": "add", "path": "/metadata/finalizers/-", "value": "x"}]
    with pytest.raises(ApiError):
        await client.patch(PODS, "b", patch, "a", patch_type=PatchType.JSON)
    assert len(api.asked) == 1


async def test_a_json_patch_that_tests_first_is_repeated(api, client):
    api.on("PATCH", ONE_POD, api.hang_up(), api.json(POD))
    patch = [
        {"op": "test", "path": "/spec/schedulingGates/0/name", "value": "g"},
        {"op": "remove", "path": "/spec/schedulingGates/0"},
    ]
    await client.patch(PODS, "b", patch, "a", patch_type=PatchType.JSON)
    assert [asked.headers["Content-Type"] for asked in api.asked] == ["application/json-patch+json"] * 2


async def test_an_apply_names_its_manager(api, client):
    api.on("PATCH", "/api/v1/namespaces/a/configmaps/m", api.json({"metadata": {"name": "m"}}))
    body = ConfigMap(metadata=ObjectMeta(name="m"), data={"k": "v"})
    await client.patch(CONFIG_MAPS, "m", body, "a", patch_type=PatchType.APPLY, field_manager="muster", force=True)
    assert api.asked[0].query == {"fieldManager": "muster", "force": "true"}
    assert api.asked[0].headers["Content-Type"] == "application/apply-patch+yaml"


async def test_a_status_is_written_to_its_subresource_and_counted_as_such(api, client, calls):
    api.on("PUT", ONE_POD + "/status", api.json(POD))
    await client.replace(PODS, "b", POD, "a", subresource="status")
    assert [(call.verb, call.resource, call.code) for call in calls] == [("update", "pods/status", 200)]


async def test_a_stale_replace_is_a_conflict(api, client):
    api.on("PUT", ONE_POD, api.status(409, "Conflict", "the object has been modified"))
    with pytest.raises(ApiError) as caught:
        await client.replace(PODS, "b", POD, "a")
    assert caught.value.conflict


async def test_a_delete_by_name_alone_is_not_repeated_because_a_successor_could_be_hit(api, client):
    api.on("DELETE", ONE_POD, api.hang_up())
    with pytest.raises(ApiError):
        await client.delete(PODS, "b", "a")
    assert len(api.asked) == 1


async def test_a_delete_of_one_uid_is_repeated(api, client):
    api.on("DELETE", ONE_POD, api.hang_up(), api.json({"kind": "Status", "status": "Success"}))
    await client.delete(PODS, "b", "a", uid="u1", grace_period_seconds=0)
    assert api.asked[1].body == {
        "kind": "DeleteOptions",
        "apiVersion": "v1",
        "preconditions": {"uid": "u1"},
        "gracePeriodSeconds": 0,
    }


async def test_a_collection_is_deleted_by_selector_and_not_repeated(api, client):
    api.on("DELETE", PODS_OF_A, api.status(500, "InternalError"))
    with pytest.raises(ApiError):
        await client.delete_collection(PODS, "a", label_selector="spark-app-selector=x")
    assert [asked.query for asked in api.asked] == [{"labelSelector": "spark-app-selector=x"}]


async def test_binding_names_the_node_and_the_uid(api, client, calls):
    api.on("POST", ONE_POD + "/binding", api.json({"kind": "Status", "status": "Success"}, 201))
    await client.bind("b", "a", "node-1", uid="u1")
    assert api.asked[0].body == {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": "b", "namespace": "a", "uid": "u1"},
        "target": {"apiVersion": "v1", "kind": "Node", "name": "node-1"},
    }
    assert [(call.verb, call.resource) for call in calls] == [("create", "pods/binding")]


async def test_an_unauthorized_call_is_sent_once_more_with_fresh_credentials(api, client, calls):
    api.on("GET", ONE_POD, api.status(401, "Unauthorized"), api.json(POD))
    await client.get(PODS, "b", "a")
    assert [call.code for call in calls] == [401, 200]


async def test_no_error_shows_the_token(api, client):
    api.on("GET", ONE_POD, api.status(401, "Unauthorized"), api.status(401, "Unauthorized"))
    with pytest.raises(ApiError) as caught:
        await client.get(PODS, "b", "a")
    assert "s3cr3t" not in f"{caught.value!r} {caught.value} {client.access!r}"


async def test_a_server_that_is_not_there_is_unreachable_and_asked_again(client, clock, api):
    client.access = replace(client.access, server="http://127.0.0.1:1")
    with pytest.raises(ApiError) as caught:
        await client.create(PODS, {"metadata": {"generateName": "b-"}}, "a")
    assert caught.value.unreachable
    assert not caught.value.sent
    assert len(clock.slept) == 5, "a request that never left may be sent again, whatever it says"


async def test_an_answer_from_something_else_than_kubernetes_is_shown_in_part(api, client):
    async def proxy_page(request):
        from aiohttp import web

        return web.Response(text="<html>Sign in</html>", status=403)

    api.on("GET", ONE_POD, proxy_page)
    with pytest.raises(ApiError, match="Sign in"):
        await client.get(PODS, "b", "a")
