"""The store against a model that keeps every state there ever was."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.devcluster.errors import ApiError
from muster.devcluster.selectors import Selector, parse_labels
from muster.devcluster.storage import Change, Object, Store
from muster.devcluster.watch import Watcher, WatchHub

NAMES = st.sampled_from(["a", "b", "c"])
LABELS = st.sampled_from(["x", "y"])
STEPS = st.lists(st.tuples(st.sampled_from(["put", "remove"]), st.sampled_from(["n1", "n2"]), NAMES, LABELS))


def _thing(namespace: str, name: str, label: str) -> Object:
    return {"kind": "Thing", "metadata": {"namespace": namespace, "name": name, "labels": {"l": label}}}


def _play(store: Store, steps: list[tuple[str, str, str, str]]) -> dict[int, dict[tuple[str, str], str]]:
    """Carries the steps out; the labels by key as they were at every version."""
    now: dict[tuple[str, str], str] = {}
    states = {store.version: dict(now)}
    for verb, namespace, name, label in steps:
        before = store.collection("things").get(namespace, name)
        if verb == "put":
            store.put("things", _thing(namespace, name, label), before)
            now[(namespace, name)] = label
        elif before is not None:
            store.remove("things", before)
            del now[(namespace, name)]
        states[store.version] = dict(now)
    return states


@given(STEPS)
def test_every_earlier_state_can_be_read_back(steps: list[tuple[str, str, str, str]]) -> None:
    store = Store()
    for version, state in _play(store, steps).items():
        records = store.collection("things").at(version)
        assert {record.key: record.obj["metadata"]["labels"]["l"] for record in records} == state
        assert [record.key for record in records] == sorted(state)


@given(STEPS, st.integers(1, 5))
def test_a_bounded_history_reads_back_or_says_that_it_is_gone(
    steps: list[tuple[str, str, str, str]], history: int
) -> None:
    store = Store(history=history)
    states = _play(store, steps)
    newest = store.version
    for version, state in states.items():
        try:
            records = store.collection("things").at(version)
        except ApiError as gone:
            assert (gone.code, gone.reason) == (410, "Expired")
            assert newest - version > history
        else:
            assert {record.key for record in records} == set(state)


@given(STEPS)
def test_a_watcher_with_a_selector_can_rebuild_what_matches(steps: list[tuple[str, str, str, str]]) -> None:
    store, hub = Store(), WatchHub()
    store.collection("things").listen(hub.dispatch)
    held: dict[tuple[str, str], str] = {}
    told: list[str] = []

    def render(change: Change, verb: str) -> bytes:
        key = change.record.key
        assert (verb == "ADDED") is (key not in held)
        if verb == "DELETED":
            del held[key]
        else:
            held[key] = change.record.obj["metadata"]["labels"]["l"]
        told.append(verb)
        return b""

    hub.add(Watcher("n1", Selector(parse_labels("l=x")), render))
    states = _play(store, steps)
    final = states[store.version]
    assert held == {key: label for key, label in final.items() if key[0] == "n1" and label == "x"}


def test_compaction_makes_older_versions_expire() -> None:
    store = Store()
    store.put("things", _thing("n", "a", "x"), None)
    version = store.version
    store.put("things", _thing("n", "b", "x"), None)
    store.compact()
    with pytest.raises(ApiError) as gone:
        store.collection("things").since(version)
    assert gone.value.code == 410
    assert store.collection("things").since(store.version) == []
