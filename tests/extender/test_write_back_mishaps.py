"""Whatever goes wrong on the way, memory and API server agree in the end, and on what was last wanted."""

from __future__ import annotations

import asyncio
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from muster.control.extender.write_back import WriteBack
from muster.kube.list_watch import Deleted, WatchedEvent
from tests.extender.stored_objects import THINGS, Key, Server, Thing, lost_answer, refusal, thing
from tests.virtual_time import run_virtual

NAMES = ("a", "b")


class BadNetwork:
    """Delays, refuses, loses requests or their answers, and lets a create come true long after it was given up."""

    def __init__(self, server: Server, dice: random.Random) -> None:
        self.dice = dice
        self.server = server
        self.late: set[asyncio.Task[None]] = set()
        self.over = False
        self._delivered_until = 0.0
        server.before, server.after = self.before, self.after

    async def before(self, verb: str, key: Key) -> None:
        if self.over:
            return
        await asyncio.sleep(self.dice.choice((0, 0, 0.1, 3)))
        match self.dice.randrange(8):
            case 0:
                raise refusal(self.dice.choice((429, 500, 503)))
            case 1:
                raise lost_answer(verb)
            case 2 if verb == "create":
                self.late.add(asyncio.create_task(self._comes_true(key, self.server.creating[key])))
                raise lost_answer(verb)

    async def after(self, verb: str, key: Key) -> None:
        if self.over:
            return
        await asyncio.sleep(self.dice.choice((0, 0, 0.1, 3)))
        if self.dice.randrange(6) == 0:
            raise lost_answer(verb)

    async def _comes_true(self, key: Key, value: Thing) -> None:
        await asyncio.sleep(self.dice.choice((0.05, 1, 20)))
        if key not in self.server.stored:
            self.server.put(value)

    def watch(self, store: WriteBack[Thing]) -> None:
        """Events arrive late, and in their order."""
        loop = asyncio.get_running_loop()

        def deliver(event: WatchedEvent[Thing]) -> None:
            delay = self.dice.choice((0, 0.01, 0.5, 4))
            self._delivered_until = max(self._delivered_until + 1e-6, loop.time() + delay)
            loop.call_at(self._delivered_until, store.observed, event)

        self.server.watch = deliver


def agreed(seed: int, *, others: bool) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """A random life of two objects: what was last wanted here, what memory says, what the API server has."""
    dice = random.Random(seed)
    wanted: dict[str, str] = {}

    async def main() -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
        server = Server()
        network = BadNetwork(server, dice)
        store: WriteBack[Thing] = WriteBack(server, THINGS, jitter=dice.random, max_retries=3)  # type: ignore[arg-type]
        network.watch(store)
        for step in range(dice.randrange(1, 14)):
            name = dice.choice(NAMES)
            exists = store.get("ns", name) is not None
            spec = f"{step}"
            if others and dice.randrange(3) == 0:
                if ("ns", name) in server.stored and dice.randrange(2):
                    server.remove(name)
                else:
                    server.put(thing(name, f"theirs {step}"))
            elif exists and dice.randrange(2):
                store.delete("ns", name)
                wanted.pop(name, None)
            else:
                (store.update if exists else store.create)(thing(name, spec))
                wanted[name] = spec
            await asyncio.sleep(dice.choice((0, 0, 0.05, 1, 5)))
        network.over = True
        await asyncio.gather(*network.late)
        await asyncio.sleep(60)  # events on their way, answers of late creates
        assert await store.drain(3600)
        await asyncio.sleep(120)
        assert await store.drain(3600)
        memory = {each.metadata.name: each.spec for each in store}
        known = {key: (entry.object.gone, entry.object.unanswered, entry.task) for key, entry in store._entries.items()}
        assert all(leftover == ({}, [], None) for leftover in known.values()), known
        return wanted, memory, {key[1]: value.spec for key, value in server.stored.items()}

    return run_virtual(main(), seed)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=300)
def test_what_was_last_wanted_is_what_everybody_has(seed: int) -> None:
    wanted, memory, stored = agreed(seed, others=False)
    assert memory == wanted
    assert stored == wanted


@given(seed=st.integers(0, 2**32))
@settings(max_examples=300)
def test_memory_and_api_server_agree_whoever_else_writes(seed: int) -> None:
    _, memory, stored = agreed(seed, others=True)
    assert memory == stored


def test_the_watch_of_these_tests_tells_deletes() -> None:
    told: list[object] = []
    server = Server()
    server.watch = told.append
    server.put(thing("a"))
    server.remove("a")
    assert isinstance(told[-1], Deleted)
