"""LIST: selectors, pages, resource versions."""

from __future__ import annotations

import pytest

from .kubernetes_api import Api

LABELLED = {"a": {"app": "x", "tier": "web"}, "b": {"app": "y"}, "c": {"tier": "db", "n": "7"}, "d": {}}


async def _with_labelled(api: Api) -> str:
    for name, labels in LABELLED.items():
        await api.config(name, labels={**labels, "test": "lists"})
    return api.path("configmaps")


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("app=x", ["a"]),
        ("app==x", ["a"]),
        ("app!=x", ["b", "c", "d"]),
        ("app", ["a", "b"]),
        ("!app", ["c", "d"]),
        ("app in (x, y)", ["a", "b"]),
        ("app in (x),tier=web", ["a"]),
        ("app notin (x)", ["b", "c", "d"]),
        ("app notin (x),tier", ["c"]),
        ("n>6", ["c"]),
        ("n<7", []),
        ("tier in (web,db),!n", ["a"]),
        (" app = x ", ["a"]),
        ("app=", []),
    ],
)
async def test_label_selectors(api: Api, selector: str, names: list[str]) -> None:
    path = await _with_labelled(api)
    answer = await api.get(path, labelSelector=f"test=lists,{selector}")
    assert answer.names == names


@pytest.mark.parametrize("selector", ["app in x", "app in (x", "=x", "a b", "app=x,", "app=a b", "n>x", "app==x)"])
async def test_label_selectors_that_cannot_be_parsed_answer_400(api: Api, selector: str) -> None:
    answer = await api.get(api.path("configmaps"), labelSelector=selector)
    assert (answer.code, answer.reason) == (400, "BadRequest")


async def test_a_list_is_sorted_by_name_and_says_its_version(api: Api) -> None:
    for name in ("b", "a", "c"):
        await api.config(name, labels={"test": "x"})
    answer = await api.get(api.path("configmaps"), labelSelector="test=x")
    assert answer.names == ["a", "b", "c"]
    assert answer.body["kind"] == "ConfigMapList"
    assert answer.body["apiVersion"] == "v1"
    assert answer.version.isdigit()
    assert answer.version != "0"


async def test_items_of_a_built_in_list_do_not_repeat_their_kind(api: Api) -> None:
    await api.config("a", labels={"test": "x"}, k="v")
    (item,) = (await api.get(api.path("configmaps"), labelSelector="test=x")).body["items"]
    assert "kind" not in item
    assert "apiVersion" not in item
    assert item["data"] == {"k": "v"}


async def test_an_empty_list_has_an_empty_array(api: Api) -> None:
    answer = await api.get(api.path("secrets"), labelSelector="no=such")
    assert answer.body["items"] == []


async def test_field_selectors_of_any_kind(api: Api) -> None:
    await api.config("a")
    await api.config("b")
    path = api.path("configmaps")
    assert (await api.get(path, fieldSelector="metadata.name=a")).names == ["a"]
    assert "a" not in (await api.get(path, fieldSelector="metadata.name!=a")).names
    everywhere = await api.get(
        "/api/v1/configmaps", fieldSelector=f"metadata.namespace={api.namespace},metadata.name=b"
    )
    assert everywhere.names == ["b"]


async def test_field_selectors_of_pods(api: Api, node: str) -> None:
    await api.pod("bound", {"nodeName": node})
    await api.pod("free")
    path = api.path("pods")
    assert (await api.get(path, fieldSelector=f"spec.nodeName={node}")).names == ["bound"]
    assert (await api.get(path, fieldSelector="spec.nodeName=")).names == ["free"]
    assert (await api.get(path, fieldSelector="status.phase=Pending,metadata.name=free")).names == ["free"]
    assert (await api.get(path, fieldSelector="status.phase=Running")).names == []
    assert (await api.get(path, fieldSelector="spec.restartPolicy=Always,spec.hostNetwork=false")).names == [
        "bound",
        "free",
    ]
    assert (await api.get(path, fieldSelector="spec.schedulerName=other")).names == []


async def test_a_field_that_cannot_be_selected_by_answers_400(api: Api) -> None:
    answer = await api.get(api.path("configmaps"), fieldSelector="data.x=1")
    assert (answer.code, answer.reason) == (400, "BadRequest")
    assert "data.x" in answer.body["message"]


async def test_pages_together_are_the_whole_list_as_it_was_at_the_first_one(api: Api) -> None:
    for index in range(7):
        await api.config(f"c{index}", labels={"test": "x"})
    path = api.path("configmaps")
    first = await api.get(path, limit=3, labelSelector="test=x")
    assert first.names == ["c0", "c1", "c2"]
    await api.delete(f"{path}/c4")
    await api.config("c45", labels={"test": "x"})
    second = await api.get(path, limit=3, labelSelector="test=x", **{"continue": first.body["metadata"]["continue"]})
    assert second.names == ["c3", "c4", "c5"]
    assert second.version == first.version
    third = await api.get(path, limit=3, labelSelector="test=x", **{"continue": second.body["metadata"]["continue"]})
    assert third.names == ["c6"]
    assert not third.body["metadata"].get("continue")


async def test_a_page_says_how_many_items_remain_when_nothing_is_filtered(api: Api) -> None:
    for index in range(4):
        await api.create("secrets", {"metadata": {"name": f"s{index}"}})
    answer = await api.get(api.path("secrets"), limit=3)
    assert answer.body["metadata"]["remainingItemCount"] == 1
    filtered = await api.get(api.path("secrets"), limit=3, fieldSelector="type=Opaque")
    assert "remainingItemCount" not in filtered.body["metadata"]


async def test_a_continue_token_that_nobody_gave_out_answers_400(api: Api) -> None:
    answer = await api.get(api.path("configmaps"), limit=1, **{"continue": "nonsense"})
    assert (answer.code, answer.reason) == (400, "BadRequest")


async def test_an_exact_version_gives_the_list_as_it_was_then(api: Api) -> None:
    await api.config("a", labels={"test": "x"})
    before = await api.get(api.path("configmaps"), labelSelector="test=x")
    await api.config("b", labels={"test": "x"})
    exact = await api.get(
        api.path("configmaps"), labelSelector="test=x", resourceVersion=before.version, resourceVersionMatch="Exact"
    )
    assert exact.names == ["a"]
    assert exact.version == before.version


async def test_not_older_than_gives_at_least_that_version(api: Api) -> None:
    created = await api.config("a", labels={"test": "x"})
    answer = await api.get(
        api.path("configmaps"),
        labelSelector="test=x",
        resourceVersion=created.version,
        resourceVersionMatch="NotOlderThan",
    )
    assert answer.names == ["a"]
    assert int(answer.version) >= int(created.version)


async def test_a_version_of_the_future_answers_504(api: Api) -> None:
    newest = (await api.get(api.path("configmaps"))).version
    answer = await api.get(api.path("configmaps"), resourceVersion=int(newest) + 1_000_000)
    assert (answer.code, answer.reason) == (504, "Timeout")
    assert answer.body["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"


@pytest.mark.parametrize(
    "params",
    [
        {"resourceVersionMatch": "Exact"},
        {"resourceVersionMatch": "Exact", "resourceVersion": "0"},
        {"resourceVersionMatch": "Nonsense", "resourceVersion": "1"},
    ],
)
async def test_a_version_match_that_makes_no_sense_answers_422(api: Api, params: dict[str, str]) -> None:
    answer = await api.get(api.path("configmaps"), **params)
    assert (answer.code, answer.reason) == (422, "Invalid")


async def test_lists_of_all_namespaces_include_this_one(api: Api) -> None:
    await api.config("a", labels={"only": api.namespace})
    answer = await api.get("/api/v1/configmaps", labelSelector=f"only={api.namespace}")
    assert answer.names == ["a"]
