"""The list-watch tells everything once, whatever the server and the network do."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from muster.kube.kinds import PODS
from muster.kube.list_watch import Added, Deleted, ListWatch, Modified, Synced

PATH = "/api/v1/pods"


def pod(name: str, version: int, uid: str = "", **spec) -> dict:
    return {
        "metadata": {"name": name, "namespace": "a", "uid": uid or f"uid-{name}", "resourceVersion": str(version)},
        "spec": {"containers": [{"name": "main", "resources": {}}], **spec},
        "status": {"phase": "Pending"},
    }


def page(version: int, *items: dict, more: str = "") -> dict:
    metadata = {"resourceVersion": str(version)} | ({"continue": more} if more else {})
    return {"kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": list(items)}


def event(kind: str, item: dict) -> dict:
    return {"type": kind, "object": {"kind": "Pod", "apiVersion": "v1", **item}}


def bookmark(version: int, **annotations: str) -> dict:
    """As kube-apiserver sends it: an empty pod, whose containers Go writes as null."""
    metadata = {"resourceVersion": str(version), "creationTimestamp": None}
    if annotations:
        metadata["annotations"] = annotations
    return {
        "type": "BOOKMARK",
        "object": {"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": {"containers": None}, "status": {}},
    }


def error(code: int, reason: str) -> dict:
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": reason, "code": code}
    return {"type": "ERROR", "object": {**status, "message": "too old resource version: 5 (100)"}}


def in_words(told) -> str:
    match told:
        case Added(item):
            return f"+{item.metadata.name}@{item.metadata.resource_version}"
        case Modified(item):
            return f"~{item.metadata.name}@{item.metadata.resource_version}"
        case Deleted(_, name, uid, item):
            return f"-{name}" + ("" if item else " unseen") + ("" if uid == f"uid-{name}" else f" {uid}")
        case Synced(version, objects):
            return f"synced@{version} {objects}"
    raise AssertionError(told)


async def told_by(watch: ListWatch, count: int) -> list[str]:
    """The first ``count`` events, in words."""
    words: list[str] = []
    async with asyncio.timeout(20), aclosing(watch.events()) as events:
        async for told in events:
            words.append(in_words(told))
            if len(words) == count:
                break
    return words


@pytest.fixture
def failures() -> list[Exception]:
    return []


@pytest.fixture
def watch(client, failures) -> ListWatch:
    return ListWatch(client, PODS, label_selector="spark-role", page_size=2, notice=failures.append)


async def test_what_exists_is_told_then_synced_then_what_changes(api, watch):
    api.on("GET", PATH, api.json(page(10, pod("p", 3), pod("q", 4))))
    changes = [event("MODIFIED", pod("p", 11)), event("ADDED", pod("r", 12)), event("DELETED", pod("q", 13))]
    api.on("GET", PATH, api.stream(*changes, end="silent"))
    assert await told_by(watch, 6) == ["+p@3", "+q@4", "synced@10 2", "~p@11", "+r@12", "-q"]
    assert api.asked[0].query == {"labelSelector": "spark-role", "limit": "2"}
    assert api.asked[1].query["resourceVersion"] == "10"
    assert api.asked[1].query["allowWatchBookmarks"] == "true"
    assert api.asked[1].query["labelSelector"] == "spark-role"
    assert 300 <= int(api.asked[1].query["timeoutSeconds"]) <= 600


async def test_a_long_list_comes_in_pages_and_one_synced(api, watch):
    api.on("GET", PATH, api.json(page(10, pod("p", 1), pod("q", 2), more="t1")), api.json(page(10, pod("r", 3))))
    api.on("GET", PATH, api.stream(end="silent"))
    assert await told_by(watch, 4) == ["+p@1", "+q@2", "+r@3", "synced@10 3"]
    assert api.asked[1].query["continue"] == "t1"


async def test_a_continue_token_that_expires_starts_the_list_again_and_repeats_nothing(api, watch):
    api.on("GET", PATH, api.json(page(10, pod("p", 1), pod("gone", 2), more="t1")))
    api.on("GET", PATH, api.status(410, "Expired", "The provided continue parameter is too old"))
    api.on("GET", PATH, api.json(page(50, pod("p", 1), pod("r", 3))), api.stream(end="silent"))
    assert await told_by(watch, 5) == ["+p@1", "+gone@2", "+r@3", "-gone unseen", "synced@50 2"]


async def test_a_watch_that_ends_is_resumed_where_it_was(api, watch):
    api.on("GET", PATH, api.json(page(10)), api.stream(event("ADDED", pod("p", 11))))
    api.on("GET", PATH, api.stream(event("MODIFIED", pod("p", 12)), end="silent"))
    assert await told_by(watch, 3) == ["synced@10 0", "+p@11", "~p@12"]
    assert [asked.query.get("resourceVersion") for asked in api.asked] == [None, "10", "11"]


async def test_a_bookmark_moves_the_place_to_resume_from_and_is_not_told(api, watch):
    api.on("GET", PATH, api.json(page(10)), api.stream(bookmark(500)))
    api.on("GET", PATH, api.stream(event("ADDED", pod("p", 501)), end="silent"))
    assert await told_by(watch, 2) == ["synced@10 0", "+p@501"]
    assert api.asked[2].query["resourceVersion"] == "500"


async def test_a_watch_cut_within_a_line_is_resumed_and_the_half_line_forgotten(api, watch, failures):
    half = b'{"type":"MODIFIED","object":{"metadata":{"name":"p","resourceVersion":"99"'
    api.on("GET", PATH, api.json(page(10)), api.stream(event("ADDED", pod("p", 11)), half))
    api.on("GET", PATH, api.stream(event("MODIFIED", pod("p", 12)), end="silent"))
    assert await told_by(watch, 3) == ["synced@10 0", "+p@11", "~p@12"]
    assert api.asked[2].query["resourceVersion"] == "11"
    assert "middle of a line" in str(failures[0])


async def test_a_connection_that_breaks_within_a_line_is_resumed(api, watch, failures):
    half = b'{"type":"MODIFIED","object":'
    api.on("GET", PATH, api.json(page(10)), api.stream(event("ADDED", pod("p", 11)), half, end="cut"))
    api.on("GET", PATH, api.stream(event("MODIFIED", pod("p", 12)), end="silent"))
    assert await told_by(watch, 3) == ["synced@10 0", "+p@11", "~p@12"]
    assert failures[0].unreachable


async def test_lines_that_arrive_in_pieces_are_put_together(api, watch):
    async def crumbs(request):
        from aiohttp import web

        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        import json

        text = b"".join(json.dumps(event("ADDED", pod(f"p{i}", 11 + i))).encode() + b"\n" for i in range(3))
        for start in range(0, len(text), 37):
            await response.write(text[start : start + 37])
            await asyncio.sleep(0)
        await api.stopping.wait()
        return response

    api.on("GET", PATH, api.json(page(10)), crumbs)
    assert await told_by(watch, 4) == ["synced@10 0", "+p0@11", "+p1@12", "+p2@13"]


async def test_after_a_gap_too_long_everything_is_listed_again_and_what_vanished_is_deleted(api, watch):
    api.on(
        "GET",
        PATH,
        api.json(page(10, pod("stays", 1), pod("changes", 2), more="t")),
        api.json(page(10, pod("goes", 3))),
    )
    api.on("GET", PATH, api.stream(error(410, "Expired")))
    api.on(
        "GET",
        PATH,
        api.json(page(99, pod("stays", 1), pod("changes", 50), more="t")),
        api.json(page(99, pod("new", 60))),
    )
    api.on("GET", PATH, api.stream(end="silent"))
    words = await told_by(watch, 8)
    assert words[:4] == ["+stays@1", "+changes@2", "+goes@3", "synced@10 3"]
    assert words[4:] == ["~changes@50", "+new@60", "-goes unseen", "synced@99 3"]


async def test_a_watch_refused_as_too_old_is_listed_again(api, watch):
    api.on("GET", PATH, api.json(page(10, pod("p", 1))), api.status(410, "Gone"))
    api.on("GET", PATH, api.json(page(20)), api.stream(end="silent"))
    assert await told_by(watch, 4) == ["+p@1", "synced@10 1", "-p unseen", "synced@20 0"]


async def test_a_pod_recreated_under_its_name_during_a_gap_ends_before_it_begins(api, watch):
    api.on("GET", PATH, api.json(page(10, pod("p", 1, "old"))), api.stream(error(410, "Expired")))
    api.on("GET", PATH, api.json(page(20, pod("p", 15, "new"))), api.stream(end="silent"))
    assert await told_by(watch, 5) == ["+p@1", "synced@10 1", "-p unseen old", "+p@15", "synced@20 1"]


async def test_events_told_twice_are_told_once(api, watch):
    twice = [event("ADDED", pod("p", 11)), event("MODIFIED", pod("p", 12)), event("DELETED", pod("p", 13))]
    api.on("GET", PATH, api.json(page(10)))
    api.on("GET", PATH, api.stream(*[e for e in twice for _ in range(2)], event("ADDED", pod("end", 14)), end="silent"))
    assert await told_by(watch, 5) == ["synced@10 0", "+p@11", "~p@12", "-p", "+end@14"]


async def test_an_error_event_of_another_kind_is_waited_out_without_a_new_list(api, watch, clock):
    api.on("GET", PATH, api.json(page(10)), api.stream(error(500, "InternalError")))
    api.on("GET", PATH, api.stream(event("ADDED", pod("p", 11)), end="silent"))
    assert await told_by(watch, 2) == ["synced@10 0", "+p@11"]
    assert clock.slept == [0.5]


async def test_a_failing_server_is_asked_less_and_less_often(api, watch, clock):
    api.on("GET", PATH, api.json(page(10)), *[api.status(503, "ServiceUnavailable")] * 8)
    api.on("GET", PATH, api.stream(event("ADDED", pod("p", 11)), end="silent"))
    await told_by(watch, 2)
    assert clock.slept == [0.5, 1, 2, 4, 8, 16, 30, 30]


async def test_a_watch_told_to_retry_later_waits_as_long(api, watch, clock):
    api.on("GET", PATH, api.json(page(10)), api.status(429, "TooManyRequests", Retry_After="12"))
    api.on("GET", PATH, api.stream(event("ADDED", pod("p", 11)), end="silent"))
    await told_by(watch, 2)
    assert clock.slept == [12]


async def test_watches_that_close_at_once_are_not_reopened_in_a_tight_loop(api, watch, clock):
    api.on("GET", PATH, api.json(page(10)), api.stream(), api.stream(), api.stream())
    api.on("GET", PATH, api.stream(event("ADDED", pod("p", 11)), end="silent"))
    await told_by(watch, 2)
    assert clock.slept == [0.5, 1, 2]


async def test_lists_that_no_watch_can_follow_slow_down(api, watch, clock):
    for version in (10, 20, 30):
        api.on("GET", PATH, api.json(page(version)), api.status(410, "Expired"))
    api.on("GET", PATH, api.json(page(40)), api.stream(end="silent"))
    assert await told_by(watch, 4) == ["synced@10 0", "synced@20 0", "synced@30 0", "synced@40 0"]
    assert clock.slept == [0.5, 1, 2]


async def test_a_silent_stream_is_resumed_and_that_is_no_failure(api, client, failures):
    watch = ListWatch(client, PODS, inactivity=0.05, notice=failures.append)
    api.on("GET", PATH, api.json(page(10)), api.stream(event("ADDED", pod("p", 11)), end="silent"))
    api.on("GET", PATH, api.stream(event("ADDED", pod("q", 12)), end="silent"))
    assert await told_by(watch, 3) == ["synced@10 0", "+p@11", "+q@12"]
    assert api.asked[2].query["resourceVersion"] == "11"
    assert failures == []


async def test_an_object_that_cannot_be_read_is_reported_and_stops_nothing(api, watch, failures):
    broken = pod("broken", 12, nodeName=7)
    api.on("GET", PATH, api.json(page(10, broken, pod("p", 1))))
    api.on("GET", PATH, api.stream(event("ADDED", broken), event("ADDED", pod("q", 13))))
    api.on("GET", PATH, api.stream(event("DELETED", {**broken}), event("ADDED", pod("r", 14)), end="silent"))
    assert await told_by(watch, 4) == ["+p@1", "synced@10 1", "+q@13", "+r@14"]
    assert all("nodeName" in str(failure) for failure in failures)
    assert len(failures) == 3


async def test_the_end_of_a_pod_that_became_unreadable_is_told(api, watch):
    api.on("GET", PATH, api.json(page(10, pod("p", 1))))
    api.on("GET", PATH, api.stream(event("DELETED", pod("p", 11, nodeName=7)), end="silent"))
    assert await told_by(watch, 3) == ["+p@1", "synced@10 1", "-p unseen"]


async def test_a_line_that_is_not_json_ends_the_watch_but_not_the_list_watch(api, watch):
    api.on("GET", PATH, api.json(page(10)), api.stream(event("ADDED", pod("p", 11)), b"<html>\n"))
    api.on("GET", PATH, api.stream(event("ADDED", pod("q", 12)), end="silent"))
    assert await told_by(watch, 3) == ["synced@10 0", "+p@11", "+q@12"]


async def test_the_first_state_can_come_as_a_stream(api, client):
    watch = ListWatch(client, PODS, streaming=True)
    end = bookmark(10, **{"k8s.io/initial-events-end": "true"})
    api.on(
        "GET",
        PATH,
        api.stream(event("ADDED", pod("p", 3)), bookmark(5), event("ADDED", pod("q", 4)), end, end="silent"),
    )
    api.on("GET", PATH, api.stream(event("MODIFIED", pod("p", 11)), end="silent"))
    assert await told_by(watch, 4) == ["+p@3", "+q@4", "synced@10 2", "~p@11"]
    assert api.asked[0].query["sendInitialEvents"] == "true"
    assert api.asked[0].query["resourceVersionMatch"] == "NotOlderThan"
    assert api.asked[1].query["resourceVersion"] == "10"


async def test_a_server_that_cannot_stream_the_first_state_is_listed(api, client):
    watch = ListWatch(client, PODS, streaming=True)
    api.on("GET", PATH, api.status(422, "Invalid", "sendInitialEvents is forbidden"), api.json(page(10, pod("p", 3))))
    api.on("GET", PATH, api.stream(end="silent"))
    assert await told_by(watch, 2) == ["+p@3", "synced@10 1"]


async def test_a_first_state_that_breaks_off_is_streamed_again_and_told_once(api, client):
    watch = ListWatch(client, PODS, streaming=True)
    end = bookmark(10, **{"k8s.io/initial-events-end": "true"})
    api.on("GET", PATH, api.stream(event("ADDED", pod("p", 3))))
    api.on("GET", PATH, api.stream(event("ADDED", pod("p", 3)), event("ADDED", pod("q", 4)), end, end="silent"))
    assert await told_by(watch, 3) == ["+p@3", "+q@4", "synced@10 2"]


async def test_what_happens_while_the_first_state_is_streamed_is_told_as_it_is(api, client):
    """kube-apiserver marks the end at the resourceVersion of the moment: live events may come before that."""
    watch = ListWatch(client, PODS, streaming=True)
    end = bookmark(12, **{"k8s.io/initial-events-end": "true"})
    live = [event("MODIFIED", pod("q", 11)), event("DELETED", pod("p", 12))]
    api.on("GET", PATH, api.stream(event("ADDED", pod("p", 3)), event("ADDED", pod("q", 4)), *live, end, end="silent"))
    api.on("GET", PATH, api.stream(end="silent"))
    assert await told_by(watch, 5) == ["+p@3", "+q@4", "~q@11", "-p", "synced@12 1"]


async def test_a_state_that_is_streamed_again_tells_only_what_changed(api, client, failures):
    watch = ListWatch(client, PODS, streaming=True, notice=failures.append)
    first, then = (bookmark(version, **{"k8s.io/initial-events-end": "true"}) for version in (10, 50))
    there = [event("ADDED", pod(name, 3)) for name in ("same", "changed", "gone", "unreadable")]
    api.on("GET", PATH, api.stream(*there, first, end="silent"), api.stream(error(410, "Expired")))
    now = [event("ADDED", pod("same", 3)), event("ADDED", pod("changed", 40)), event("ADDED", pod("new", 41))]
    unreadable = event("ADDED", pod("unreadable", 42, nodeName=7))
    api.on("GET", PATH, api.stream(*now, unreadable, then, end="silent"), api.stream(end="silent"))
    told = await told_by(watch, 9)
    assert told[:5] == ["+same@3", "+changed@3", "+gone@3", "+unreadable@3", "synced@10 4"]
    assert told[5:] == ["~changed@40", "+new@41", "-gone unseen", "synced@50 4"]
    assert len(failures) == 2, "the watch that was too old, and the pod that cannot be read"


async def test_one_object_that_cannot_be_read_spoils_nothing_else_on_its_page(api, watch, failures):
    unreadable = pod("unreadable", 4, nodeName=7)
    api.on("GET", PATH, api.json(page(10, pod("p", 3), unreadable, more="t1")), api.json(page(10, pod("q", 5))))
    api.on("GET", PATH, api.stream(end="silent"))
    assert await told_by(watch, 3) == ["+p@3", "+q@5", "synced@10 2"]
    assert [type(failure).__name__ for failure in failures] == ["ValidationError"]
    assert len(api.asked) == 2, "the page is not asked for twice"


async def test_what_is_listed_again_comes_in_small_pages(api, client):
    watch = ListWatch(client, PODS, page_size=250)
    api.on("GET", PATH, api.json(page(10, pod("p", 3))), api.stream(error(410, "Expired")))
    api.on("GET", PATH, api.json(page(50, pod("p", 40))), api.stream(end="silent"))
    assert await told_by(watch, 4) == ["+p@3", "synced@10 1", "~p@40", "synced@50 1"]
    limits = [int(asked.query["limit"]) for asked in api.asked if "limit" in asked.query]
    assert limits[0] == 250
    assert limits[1] < limits[0]
