"""The write-back store against what the archived scheduler's queue and cache did, and where that lost or revived."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from muster.control.extender.object_states import queue_index
from muster.control.extender.write_back import (
    LATE_SECONDS,
    Happened,
    ObjectExistsError,
    ObjectMissingError,
    Verb,
    WriteBack,
)
from muster.kube.list_watch import Added, Deleted, Modified, Synced
from muster.kube.objects import ObjectMeta
from tests.extender.spark_objects import cases
from tests.extender.stored_objects import THINGS, Server, Thing, lost_answer, refusal, thing
from tests.virtual_time import run_virtual

QUEUE = cases("write-queue")
STORE = cases("object-store")
Story = Callable[[WriteBack[Thing], Server], Awaitable[None]]


def told(story: Story, *, watched: bool = True, **settings: Any) -> tuple[WriteBack[Thing], Server]:
    """Run a story in virtual time until nothing is left to write, with the watch running along."""
    server = Server()

    async def main() -> WriteBack[Thing]:
        store: WriteBack[Thing] = WriteBack(server, THINGS, jitter=lambda: 0.0, **settings)  # type: ignore[arg-type]
        if watched:
            server.watch = lambda event: asyncio.get_running_loop().call_later(0.05, store.observed, event) and None
        await story(store, server)
        assert await store.drain(1000)
        await asyncio.sleep(1)
        assert await store.drain(1000)
        return store

    return run_virtual(main()), server


def memory(store: WriteBack[Thing]) -> dict[str, str]:
    return {each.metadata.name: each.spec for each in store}


def stored(server: Server) -> dict[str, str]:
    return {each.metadata.name: each.spec for each in server.stored.values()}


def apply(store: WriteBack[Thing], key: str, verb: str, spec: str = "") -> None:
    namespace, name = key.split("/")
    if verb == "delete":
        store.delete(namespace, name)
    elif verb == "update":
        store.update(thing(name, spec, namespace=namespace))
    else:
        store.create(thing(name, spec, namespace=namespace))


def adds(case: dict[str, Any]) -> Story:
    """The case's operations at one moment; what it updates first is there already."""

    async def story(store: WriteBack[Thing], server: Server) -> None:
        first = dict(reversed(case["adds"]))
        for key in [key for key, verb in first.items() if verb != "create"]:
            namespace, name = key.split("/")
            store.observed(Added(server.put(thing(name, "old", namespace=namespace))))
        for number, (key, verb) in enumerate(case["adds"]):
            apply(store, key, verb, f"change {number}")

    return story


# The queue


def test_changes_of_one_object_merge_into_its_first_kind_of_write() -> None:
    case = QUEUE["queue/merge"]
    store, server = told(adds(case))
    assert sorted(server.requests) == sorted(map(tuple, case["expected_drain"]))
    assert stored(server) == memory(store) == {"1": "change 1", "2": "change 3"}


def test_changes_of_many_objects_are_each_written_once() -> None:
    case = QUEUE["queue/merge-sharded"]
    store, server = told(adds(case))
    assert sorted(server.requests) == sorted(map(tuple, case["expected_drain_by_shard_index"]))
    assert stored(server) == memory(store) == {"1": "change 0", "2": "change 1", "3": "change 3"}


def test_metrics_name_the_queue_that_an_object_had() -> None:
    case = QUEUE["queue/merge-sharded"]
    assert {key: queue_index(*key.split("/"), case["shards"]) for key in case["shard_of"]} == case["shard_of"]


def test_a_create_under_way_is_followed_by_its_delete() -> None:
    case = QUEUE["queue/delete-never-merged"]

    async def story(store: WriteBack[Thing], server: Server) -> None:
        *changes, last = case["adds"]
        for key, verb in changes:
            apply(store, key, verb)
        await asyncio.sleep(0.005)  # the create has left, its answer has not come
        apply(store, *last)
        assert store.get("ns", "1") is None

    store, server = told(story)
    assert server.requests == [tuple(each) for each in case["expected_drain"]]
    assert stored(server) == memory(store) == {}


def test_what_is_deleted_before_its_create_has_left_is_not_created() -> None:
    store, server = told(adds(QUEUE["queue/delete-never-merged"]))
    assert server.requests == []
    assert stored(server) == memory(store) == {}


def test_no_queue_can_be_full() -> None:
    case = QUEUE["queue/try-add-full"]
    more = 20 * case["capacity_per_shard"]

    async def story(store: WriteBack[Thing], server: Server) -> None:
        for number in range(more):
            store.create(thing(str(number)))
        assert sum(store.pending().values()) == more
        assert server.requests == []

    store, server = told(story)
    assert Counter(verb for _, verb in server.requests) == {"create": more}
    assert len(store) == len(server.stored) == more


def test_a_failed_create_is_not_lost_behind_a_later_update() -> None:
    assert QUEUE["queue/retry-lost-behind-update"]["expected"] == "object never created"  # there

    async def story(store: WriteBack[Thing], server: Server) -> None:
        failures = iter([refusal(500)] * 3)

        def fails(verb: str, key: Any) -> None:
            for failure in failures:
                raise failure

        server.before = fails
        store.create(thing("1", "first"))
        await asyncio.sleep(0.005)
        store.update(thing("1", "second"))

    store, server = told(story)
    assert stored(server) == memory(store) == {"1": "second"}
    assert server.requests == [("ns/1", "create")]


def test_a_create_after_a_delete_that_waits_is_a_new_object() -> None:
    case = QUEUE["queue/create-after-queued-delete"]
    assert case["expected_drain"] == [["ns/1", "delete"]]  # there, the create was swallowed
    uids = []

    async def story(store: WriteBack[Thing], server: Server) -> None:
        await adds(case)(store, server)
        uids.append(server.stored["ns", "1"].metadata.uid)

    store, server = told(story)
    assert server.requests == [("ns/1", "delete"), ("ns/1", "create")]
    assert stored(server) == memory(store) == {"1": "change 1"}
    assert server.stored["ns", "1"].metadata.uid not in uids


# The cache


def replayed(case: dict[str, Any]) -> dict[str, str]:
    """The case's steps on a store whose API server does not answer: names and resourceVersions that memory then has."""

    async def main() -> dict[str, str]:
        server = Server()
        server.before = lambda verb, key: asyncio.sleep(1000)
        store: WriteBack[Thing] = WriteBack(server, THINGS)  # type: ignore[arg-type]
        for step in case["steps"]:
            match step:
                case ["put", name, version]:
                    value = thing(name, "ours", version)
                    (store.create if store.get("ns", name) is None else store.update)(value)
                case ["putIfAbsent", name, version]:
                    if store.get("ns", name) is None:
                        store.create(thing(name, "ours", version))
                    else:
                        with pytest.raises(ObjectExistsError, match="object already exists"):
                            store.create(thing(name, "ours", version))
                case ["override", name, version]:
                    store.observed(Modified(thing(name, "theirs", version, uid=f"uid-of-{name}")))
                case ["delete", name]:
                    store.delete("ns", name)
        seen = {each.metadata.name: each.metadata.resource_version for each in store}
        await store.close()
        return seen

    return run_virtual(main())


@pytest.mark.parametrize("name", sorted(STORE.keys() - {"store/zombie"}))
def test_resource_versions_only_grow(name: str) -> None:
    assert replayed(STORE[name]) == STORE[name]["expected"]


def test_a_late_event_does_not_revive_what_was_deleted_here() -> None:
    assert STORE["store/zombie"]["expected"] == {"a": "6"}  # there

    async def story(store: WriteBack[Thing], server: Server) -> None:
        old = server.put(thing("a"))
        store.observed(Added(old))
        store.delete("ns", "a")
        store.observed(Modified(thing("a", "late", "102", old.metadata.uid)))
        assert memory(store) == {}
        await store.drain(10)
        store.observed(Modified(thing("a", "later still", "103", old.metadata.uid)))
        assert memory(store) == {}
        store.observed(Deleted("ns", "a", old.metadata.uid))
        store.observed(Added(thing("a", "a new one", "110", "uid-9")))

    store, _ = told(story, watched=False)
    assert memory(store) == {"a": "a new one"}


def test_a_late_answer_does_not_revive_what_others_deleted() -> None:
    async def story(store: WriteBack[Thing], server: Server) -> None:
        store.observed(Added(server.put(thing("a", "old"))))
        store.update(thing("a", "new"))
        server.after = lambda verb, key: asyncio.sleep(5)
        await asyncio.sleep(1)
        uid = server.stored["ns", "a"].metadata.uid
        server.remove("a")
        store.observed(Deleted("ns", "a", uid))
        assert memory(store) == {}

    store, server = told(story, watched=False)
    assert memory(store) == stored(server) == {}


def test_a_create_whose_object_others_deleted_before_the_answer_is_over() -> None:
    async def story(store: WriteBack[Thing], server: Server) -> None:
        server.after = lambda verb, key: asyncio.sleep(5)
        store.create(thing("a"))
        await asyncio.sleep(1)
        server.remove("a")

    store, server = told(story)
    assert memory(store) == stored(server) == {}


# Others' changes


def test_changes_by_others_are_followed_while_nothing_is_pending() -> None:
    news: list[tuple[Any, str | None]] = []

    async def story(store: WriteBack[Thing], server: Server) -> None:
        server.put(thing("a", "first"))
        await asyncio.sleep(1)
        server.put(thing("a", "edited"))
        await asyncio.sleep(1)
        assert memory(store) == {"a": "edited"}
        server.remove("a")

    store, server = told(story, changed=lambda key, value: news.append((key[1], value.spec if value else None)))
    assert memory(store) == {}
    assert server.requests == []
    assert news == [("a", "first"), ("a", "edited"), ("a", None)]


def test_a_pending_change_wins_over_an_edit_by_others() -> None:
    async def story(store: WriteBack[Thing], server: Server) -> None:
        store.observed(Added(server.put(thing("a", "old"))))
        store.update(thing("a", "ours"))
        server.put(thing("a", "theirs"))

    store, server = told(story)
    assert memory(store) == stored(server) == {"a": "ours"}
    assert server.requests == [("ns/a", "update"), ("ns/a", "update")]


def test_labels_of_others_survive_our_writes() -> None:
    async def story(store: WriteBack[Thing], server: Server) -> None:
        labelled = Thing(ObjectMeta(name="a", namespace="ns", labels={"team": "x"}), "old")
        store.observed(Added(server.put(labelled)))
        store.update(thing("a", "new"))

    _, server = told(story)
    assert server.stored["ns", "a"].metadata.labels == {"team": "x"}


def test_a_delete_by_others_ends_what_was_pending_for_it() -> None:
    async def story(store: WriteBack[Thing], server: Server) -> None:
        store.observed(Added(server.put(thing("a"))))
        server.remove("a")
        store.update(thing("a", "too late"))

    store, server = told(story, watched=False)
    assert memory(store) == stored(server) == {}
    assert server.requests == [("ns/a", "update")]


def test_a_delete_that_the_watch_missed_is_honoured() -> None:
    async def story(store: WriteBack[Thing], server: Server) -> None:
        there = server.put(thing("a"))
        store.observed(Added(there))
        server.remove("a")
        store.observed(Deleted("ns", "a", there.metadata.uid))  # after a gap: the object itself is not told

    store, server = told(story, watched=False)
    assert memory(store) == stored(server) == {}
    assert server.requests == []


def test_a_successor_that_came_while_our_create_was_answered_is_followed() -> None:
    async def story(store: WriteBack[Thing], server: Server) -> None:
        server.after = lambda verb, key: asyncio.sleep(5)
        store.create(thing("a", "ours"))
        await asyncio.sleep(1)
        server.remove("a")
        server.put(thing("a", "successor"))

    store, server = told(story)
    assert memory(store) == stored(server) == {"a": "successor"}


def test_a_successor_made_by_others_is_followed_instead() -> None:
    async def story(store: WriteBack[Thing], server: Server) -> None:
        store.observed(Added(server.put(thing("a", "old"))))
        server.remove("a")
        server.put(thing("a", "successor"))
        store.update(thing("a", "too late"))

    store, server = told(story, watched=False)
    assert memory(store) == stored(server) == {"a": "successor"}


def test_what_is_written_already_is_not_written_again() -> None:
    async def story(store: WriteBack[Thing], server: Server) -> None:
        store.observed(Added(server.put(thing("a", "same"))))
        store.update(thing("a", "same"))

    _, server = told(story)
    assert server.requests == []


def test_an_object_of_that_name_that_nobody_told_of_is_taken_over() -> None:
    async def story(store: WriteBack[Thing], server: Server) -> None:
        server.put(thing("a", "old"))
        store.create(thing("a", "ours"))

    store, server = told(story, watched=False)
    assert memory(store) == stored(server) == {"a": "ours"}
    assert server.requests == [("ns/a", "create"), ("ns/a", "update")]


# Mishaps


def failing(times: int, failure: Exception, verb: str) -> Callable[[str, Any], None]:
    left = [times]

    def fails(asked: str, key: Any) -> None:
        if asked == verb and left[0]:
            left[0] -= 1
            raise failure

    return fails


@pytest.mark.parametrize("failure", [refusal(500), refusal(429), refusal(403, "Forbidden"), lost_answer("create")])
def test_a_create_is_tried_until_it_holds(failure: Exception) -> None:
    happened: Counter[tuple[Verb, Happened]] = Counter()

    async def story(store: WriteBack[Thing], server: Server) -> None:
        server.before = failing(12, failure, "create")
        store.create(thing("a"))

    def count(verb: Verb, what: Happened) -> None:
        happened[verb, what] += 1

    store, server = told(story, happened=count, max_retries=3)
    assert memory(store) == stored(server) == {"a": ""}
    assert happened == {
        (Verb.CREATE, Happened.SENT): 13,
        (Verb.CREATE, Happened.RETRIED): 12,
        (Verb.CREATE, Happened.SLOWED): 1,
    }


def test_writes_slow_down_and_never_stop() -> None:
    times: list[float] = []

    async def story(store: WriteBack[Thing], server: Server) -> None:
        def fails(verb: str, key: Any) -> None:
            times.append(asyncio.get_running_loop().time())
            if len(times) < 10:
                raise refusal(500)

        server.before = fails
        store.create(thing("a"))

    told(story, max_retries=6)
    waits = [round(after - before, 1) for before, after in itertools.pairwise(times)]
    assert waits == [0.3, 0.5, 1.0, 2.0, 4.0, 8.0, 30.0, 30.0, 30.0]


def test_a_delete_is_tried_until_it_holds() -> None:
    async def story(store: WriteBack[Thing], server: Server) -> None:
        store.observed(Added(server.put(thing("a"))))
        server.before = failing(9, refusal(500), "delete")
        store.delete("ns", "a")

    store, server = told(story)
    assert memory(store) == stored(server) == {}


def test_conflicts_wait_between_attempts() -> None:
    async def story(store: WriteBack[Thing], server: Server) -> None:
        store.observed(Added(server.put(thing("a", "old"))))
        begun = asyncio.get_running_loop().time()

        def edits(verb: str, key: Any) -> None:
            if verb == "update" and asyncio.get_running_loop().time() < begun + 20:
                server.put(thing("a", f"edit at {asyncio.get_running_loop().time()}"))

        server.before = edits
        store.update(thing("a", "ours"))

    store, server = told(story, watched=False)
    assert memory(store) == stored(server) == {"a": "ours"}
    assert 5 < len(server.requests) < 12


def test_a_lost_answer_to_a_create_does_not_create_twice() -> None:
    async def story(store: WriteBack[Thing], server: Server) -> None:
        server.after = failing(1, lost_answer("create"), "create")
        store.create(thing("a", "ours"))

    store, server = told(story, watched=False)
    assert memory(store) == stored(server) == {"a": "ours"}
    assert server.requests == [("ns/a", "create"), ("ns/a", "create")]


def test_a_create_that_comes_true_after_its_delete_is_deleted() -> None:
    async def story(store: WriteBack[Thing], server: Server) -> None:
        server.before = failing(1, lost_answer("create"), "create")
        store.create(thing("a", "ours"))
        await asyncio.sleep(0.1)
        store.delete("ns", "a")
        await asyncio.sleep(10)
        server.put(thing("a", "ours"))  # the API server was slow

    store, server = told(story)
    assert memory(store) == stored(server) == {}


def test_a_late_create_that_a_second_attempt_runs_into_is_deleted() -> None:
    async def story(store: WriteBack[Thing], server: Server) -> None:
        server.before = failing(1, lost_answer("create"), "create")
        store.create(thing("a", "first"))
        await asyncio.sleep(0.1)
        store.update(thing("a", "second"))
        server.before = lambda verb, key: asyncio.sleep(3)
        await asyncio.sleep(1)  # the second attempt is on its way
        server.put(thing("a", "first"))
        store.delete("ns", "a")

    store, server = told(story)
    assert memory(store) == stored(server) == {}


def test_an_object_of_others_is_not_mistaken_for_a_late_create() -> None:
    async def story(store: WriteBack[Thing], server: Server) -> None:
        server.before = failing(1, lost_answer("create"), "create")
        store.create(thing("a", "ours"))
        await asyncio.sleep(0.1)
        store.delete("ns", "a")
        await asyncio.sleep(LATE_SECONDS + 2)
        server.put(thing("a", "ours"))
        server.put(thing("b", "theirs"))

    store, server = told(story)
    assert memory(store) == stored(server) == {"a": "ours", "b": "theirs"}


def test_deleted_and_created_again_while_the_first_create_is_under_way() -> None:
    async def story(store: WriteBack[Thing], server: Server) -> None:
        server.after = lambda verb, key: asyncio.sleep(5)
        store.create(thing("a", "first"))
        await asyncio.sleep(1)
        store.delete("ns", "a")
        store.create(thing("a", "second"))

    store, server = told(story)
    assert memory(store) == stored(server) == {"a": "second"}
    assert [verb for _, verb in server.requests] == ["create", "delete", "create"]


@pytest.mark.parametrize(
    "failure",
    [
        refusal(403, "Forbidden", 'things "a" is forbidden: unable to create: namespace ns is being terminated'),
        refusal(404, "NotFound", 'namespaces "ns" not found'),
    ],
)
def test_a_create_in_a_namespace_that_is_going_is_dropped(failure: Exception) -> None:
    news: list[Any] = []
    happened: list[Any] = []

    async def story(store: WriteBack[Thing], server: Server) -> None:
        server.before = failing(99, failure, "create")
        store.create(thing("a"))

    store, server = told(story, changed=lambda *each: news.append(each), happened=lambda *each: happened.append(each))
    assert memory(store) == stored(server) == {}
    assert news == [(("ns", "a"), None)]
    assert happened == [(Verb.CREATE, Happened.SENT), (Verb.CREATE, Happened.DROPPED)]


def test_operations_on_what_is_not_there() -> None:
    async def story(store: WriteBack[Thing], server: Server) -> None:
        with pytest.raises(ObjectMissingError, match="object does not exist"):
            store.update(thing("a"))
        assert store.delete("ns", "a") is False
        store.observed(Deleted("ns", "a", "uid"))

    assert memory(told(story)[0]) == {}


@pytest.mark.parametrize(
    "message", ["the server could not find the requested resource", "404 page not found"], ids=["status", "plain"]
)
def test_a_definition_that_is_not_served_for_a_while_takes_nothing_away(message: str) -> None:
    async def story(store: WriteBack[Thing], server: Server) -> None:
        for name in ("changed", "deleted"):
            store.observed(Added(server.put(thing(name, "old"))))
        until = asyncio.get_running_loop().time() + 20

        def not_served(verb: str, key: Any) -> None:
            if asyncio.get_running_loop().time() < until:
                raise refusal(404, "NotFound", message)

        server.before = not_served
        store.update(thing("changed", "new"))
        store.delete("ns", "deleted")
        store.create(thing("created", "new"))

    store, server = told(story)
    assert memory(store) == stored(server) == {"changed": "new", "created": "new"}


def test_an_error_nobody_foresaw_strands_no_object() -> None:
    async def story(store: WriteBack[Thing], server: Server) -> None:
        server.before = failing(3, RuntimeError("a mistake"), "create")
        store.create(thing("a", "ours"))

    store, server = told(story)
    assert memory(store) == stored(server) == {"a": "ours"}


def test_a_create_waits_for_the_end_of_an_object_that_is_being_deleted() -> None:
    async def story(store: WriteBack[Thing], server: Server) -> None:
        server.put(Thing(ObjectMeta(name="a", namespace="ns", deletion_timestamp="2023-04-20T12:00:00Z"), "going"))
        store.create(thing("a", "ours"))
        await asyncio.sleep(5)
        assert stored(server) == {"a": "going"}
        assert memory(store) == {"a": "ours"}
        server.remove("a")

    store, server = told(story, watched=False)
    assert memory(store) == stored(server) == {"a": "ours"}


def test_nothing_is_remembered_of_objects_long_gone() -> None:
    async def story(store: WriteBack[Thing], server: Server) -> None:
        for number in range(50):
            store.create(thing(str(number)))
        await asyncio.sleep(5)
        server.watch = lambda event: None  # a gap in the watch, and two lists after it
        for number in range(50):
            store.delete("ns", str(number))
        await asyncio.sleep(5)
        store.observed(Synced("500", 0))
        store.observed(Synced("501", 0))

    store, server = told(story)
    assert stored(server) == {}
    assert store._entries == {}
