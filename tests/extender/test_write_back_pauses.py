"""Large objects are written at their own pace; what is written and read back stays the very same content."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from muster.control.extender.reservations import (
    RESOURCE_RESERVATIONS,
    ResourceReservation,
    new_reservation,
    pause_after,
)
from muster.control.extender.write_back import WriteBack
from muster.kube.list_watch import Added, Modified
from tests.extender.spark_objects import driver_pod
from tests.extender.stored_objects import THINGS, Server, Thing, thing
from tests.virtual_time import run_virtual

PAUSE = 5.0
Moments = list[tuple[int, str]]


def requests(story: Callable[[WriteBack[Thing]], Awaitable[None]]) -> Moments:
    """When which request reached the API server, in whole seconds from the start."""
    server = Server()
    moments: Moments = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        server.before = lambda verb, key: moments.append((round(loop.time() - begun), verb))
        store: WriteBack[Thing] = WriteBack(server, THINGS, pause=lambda value: PAUSE)  # type: ignore[arg-type]
        server.watch = store.observed
        await story(store)
        await store.close()

    run_virtual(main())
    return moments


def test_updates_wait_after_a_write_and_are_sent_as_one() -> None:
    async def story(store: WriteBack[Thing]) -> None:
        store.create(thing("a", "0"))
        for number in range(1, 70):
            await asyncio.sleep(0.1)
            store.update(thing("a", str(number)))
        await asyncio.sleep(2 * PAUSE)
        assert store.pending() == {}

    assert requests(story) == [(0, "create"), (5, "update"), (10, "update")]


def test_a_delete_waits_for_nothing_and_neither_does_its_successor() -> None:
    async def story(store: WriteBack[Thing]) -> None:
        store.create(thing("a"))
        await asyncio.sleep(1)
        store.update(thing("a", "more"))
        store.delete("ns", "a")
        store.create(thing("a", "next"))
        await asyncio.sleep(1)

    assert requests(story) == [(0, "create"), (1, "delete"), (1, "create")]


def test_the_last_writes_of_a_process_do_not_wait() -> None:
    async def story(store: WriteBack[Thing]) -> None:
        store.create(thing("a"))
        await asyncio.sleep(1)
        store.update(thing("a", "more"))
        assert await store.drain(1.0)

    assert requests(story) == [(0, "create"), (1, "update")]


def test_only_large_reservations_wait() -> None:
    sizes = {"cpu": "1", "memory": "1Gi"}
    small, large = (new_reservation(driver_pod(), "app", "n0", ["n1"] * count, sizes, sizes) for count in (50, 4999))
    assert (pause_after(small), pause_after(large)) == (0.0, 5.0)


def test_content_that_the_api_server_confirms_stays_the_very_same() -> None:
    told: list[object] = []

    async def main() -> None:
        store = WriteBack(Server(), RESOURCE_RESERVATIONS, changed=lambda key, value: told.append(key))  # type: ignore[arg-type]
        made = new_reservation(driver_pod(), "app", "n0", ["n1"], {"cpu": "1"}, {"cpu": "1"})
        metadata = msgspec.structs.replace(made.metadata, uid="u", resource_version="1")
        store.observed(Added(msgspec.structs.replace(made, metadata=metadata)))
        assert len(told) == 1, "it is news"

        confirmed = msgspec.convert(msgspec.to_builtins(made), ResourceReservation)
        metadata = msgspec.structs.replace(metadata, resource_version="2")
        store.observed(Modified(msgspec.structs.replace(confirmed, metadata=metadata)))

        known = store.get(made.metadata.namespace, "app")
        assert known is not None and known.metadata.resource_version == "2"
        assert known.spec is made.spec and known.status is made.status
        await store.close()

    asyncio.run(main())
    assert len(told) == 1, "nothing has changed"
