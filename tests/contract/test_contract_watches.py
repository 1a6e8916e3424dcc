"""WATCH: what is told, in which order, from where on."""

from __future__ import annotations

import asyncio
import json
import os

import pytest

from .kubernetes_api import MERGE_PATCH, PATIENCE, Api


async def test_a_watch_tells_of_additions_changes_and_deletions_in_order(api: Api) -> None:
    path = api.path("configmaps")
    start = (await api.get(path)).version
    async with api.watch(path, resourceVersion=start) as events:
        await api.config("a", x="1")
        changed = await api.patch(f"{path}/a", {"data": {"x": "2"}})
        await api.delete(f"{path}/a")
        added, modified, deleted = [await events.next() for _ in range(3)]
    assert [event["type"] for event in (added, modified, deleted)] == ["ADDED", "MODIFIED", "DELETED"]
    assert added["object"]["data"] == {"x": "1"}
    assert modified["object"] == changed.body
    assert deleted["object"]["data"] == {"x": "2"}
    assert int(deleted["object"]["metadata"]["resourceVersion"]) > int(changed.version)


async def test_watched_objects_carry_their_kind(api: Api) -> None:
    await api.config("a", labels={"test": "x"})
    async with api.watch(api.path("configmaps"), labelSelector="test=x") as events:
        event = await events.next()
    assert event["object"]["kind"] == "ConfigMap"
    assert event["object"]["apiVersion"] == "v1"


async def test_a_watch_without_a_version_begins_with_what_is_there(api: Api) -> None:
    await api.config("a", labels={"test": "x"})
    await api.config("b", labels={"test": "x"})
    async with api.watch(api.path("configmaps"), labelSelector="test=x") as events:
        assert sorted(await events.seen(2)) == [("ADDED", "a"), ("ADDED", "b")]
        await api.config("c", labels={"test": "x"})
        assert await events.seen(1) == [("ADDED", "c")]


async def test_a_watch_from_version_0_begins_with_what_is_there(api: Api) -> None:
    await api.config("a", labels={"test": "x"})
    async with api.watch(api.path("configmaps"), labelSelector="test=x", resourceVersion="0") as events:
        assert await events.seen(1) == [("ADDED", "a")]


async def test_a_watch_from_a_version_tells_only_what_came_after(api: Api) -> None:
    path = api.path("configmaps")
    await api.config("a", labels={"test": "x"})
    middle = await api.config("b", labels={"test": "x"})
    await api.config("c", labels={"test": "x"})
    async with api.watch(path, labelSelector="test=x", resourceVersion=middle.version) as events:
        assert await events.seen(1) == [("ADDED", "c")]
        await api.delete(f"{path}/a")
        assert await events.seen(1) == [("DELETED", "a")]


async def test_an_object_that_enters_a_selector_is_added_and_one_that_leaves_it_is_deleted(api: Api) -> None:
    path = api.path("configmaps")
    created = await api.config("a", labels={"test": "other"})
    async with api.watch(path, labelSelector="test=x", resourceVersion=created.version) as events:
        await api.patch(f"{path}/a", {"metadata": {"labels": {"test": "x"}}})
        await api.patch(f"{path}/a", {"data": {"k": "v"}})
        left = await api.patch(f"{path}/a", {"metadata": {"labels": {"test": "other"}}})
        assert await events.seen(2) == [("ADDED", "a"), ("MODIFIED", "a")]
        gone = await events.next()
    assert gone["type"] == "DELETED"
    # The object as it was while it still matched, at the version of the change that took it away.
    assert gone["object"]["metadata"]["labels"] == {"test": "x"}
    assert gone["object"]["metadata"]["resourceVersion"] == left.version


async def test_a_watch_of_one_object_tells_of_no_other(api: Api) -> None:
    path = api.path("configmaps")
    start = (await api.get(path)).version
    async with api.watch(path, fieldSelector="metadata.name=b", resourceVersion=start) as events:
        for name in ("a", "b", "c"):
            await api.config(name)
        await api.delete(f"{path}/b")
        assert await events.seen(2) == [("ADDED", "b"), ("DELETED", "b")]


async def test_a_watch_by_node_sees_a_pod_when_it_is_bound(api: Api, node: str) -> None:
    start = (await api.get(api.path("pods"))).version
    async with api.watch("/api/v1/pods", fieldSelector=f"spec.nodeName={node}", resourceVersion=start) as events:
        await api.pod("p")
        binding = {"metadata": {"name": "p"}, "target": {"kind": "Node", "name": node}}
        assert (await api.post(api.path("pods", "p/binding"), binding)).code == 201
        event = await events.next()
    assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "p")
    assert event["object"]["spec"]["nodeName"] == node


async def test_a_watch_ends_by_itself_after_timeout_seconds(api: Api) -> None:
    await api.config("a", labels={"test": "x"})
    async with api.watch(api.path("configmaps"), labelSelector="test=x", timeoutSeconds=1) as events:
        assert [event["type"] for event in await events.until_end()] == ["ADDED"]


@pytest.mark.skipif("MUSTER_CONTRACT_KUBECONFIG" in os.environ, reason="a young server may still know version 1")
async def test_a_version_that_is_too_old_gets_an_expired_error(api: Api) -> None:
    async with api.watch(api.path("configmaps"), resourceVersion="1") as events:
        event = await events.next()
    assert event["type"] == "ERROR"
    assert event["object"]["kind"] == "Status"
    assert event["object"]["code"] == 410
    assert event["object"]["reason"] == "Expired"


async def test_initial_events_end_with_an_annotated_bookmark(api: Api) -> None:
    await api.config("a", labels={"test": "x"})
    options = {
        "labelSelector": "test=x",
        "sendInitialEvents": "true",
        "resourceVersionMatch": "NotOlderThan",
        "allowWatchBookmarks": "true",
    }
    async with api.watch(api.path("configmaps"), **options) as events:
        assert await events.seen(1) == [("ADDED", "a")]
        bookmark = await events.next()
        assert bookmark["type"] == "BOOKMARK"
        assert bookmark["object"]["kind"] == "ConfigMap"
        assert bookmark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
        assert int(bookmark["object"]["metadata"]["resourceVersion"]) > 0
        await api.config("b", labels={"test": "x"})
        assert await events.seen(1) == [("ADDED", "b")]


async def test_initial_events_without_a_version_match_answer_422(api: Api) -> None:
    answer = await api.get(api.path("configmaps"), watch="true", sendInitialEvents="true")
    assert (answer.code, answer.reason) == (422, "Invalid")


async def test_a_watch_with_a_selector_that_cannot_be_parsed_answers_400(api: Api) -> None:
    answer = await api.get(api.path("configmaps"), watch="true", labelSelector="a in (")
    assert answer.code == 400


async def test_a_watch_over_a_web_socket_tells_the_same(api: Api) -> None:
    path = api.path("configmaps")
    start = (await api.get(path)).version
    headers = {"Authorization": f"Bearer {api.token}", "Origin": api.url}
    params = {"watch": "true", "resourceVersion": start}
    async with api.session.ws_connect(api.url + path, headers=headers, params=params) as socket:
        await api.config("a", x="1")
        await api.call("PATCH", f"{path}/a", {"data": {"x": "2"}}, content=MERGE_PATCH)
        async with asyncio.timeout(PATIENCE):
            first, second = [json.loads(await socket.receive_str()) for _ in range(2)]
    assert (first["type"], first["object"]["data"]) == ("ADDED", {"x": "1"})
    assert (second["type"], second["object"]["data"]) == ("MODIFIED", {"x": "2"})


async def test_every_watcher_sees_every_change_in_the_same_order(api: Api) -> None:
    path = api.path("configmaps")
    start = (await api.get(path)).version
    async with api.watch(path, resourceVersion=start) as first, api.watch(path, resourceVersion=start) as second:
        await asyncio.gather(*(api.config(f"c{index}") for index in range(30)))
        seen = await first.seen(30)
        assert seen == await second.seen(30)
    assert sorted(name for _, name in seen) == sorted(f"c{index}" for index in range(30))
