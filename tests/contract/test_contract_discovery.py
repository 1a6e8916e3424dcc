"""Discovery, tables, partial metadata, health, authentication, tokens."""

from __future__ import annotations

import pytest

from .kubernetes_api import Api

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"


async def test_the_version_names_major_and_minor(api: Api) -> None:
    version = (await api.get("/version")).body
    assert version["major"] == "1"
    assert version["gitVersion"].startswith("v1.")


@pytest.mark.parametrize("path", ["/healthz", "/livez", "/readyz"])
async def test_health(api: Api, path: str) -> None:
    answer = await api.get(path)
    assert (answer.code, answer.body) == (200, "ok")


async def test_plain_discovery_lists_core_resources(api: Api) -> None:
    answer = (await api.get("/api/v1")).body
    assert answer["kind"] == "APIResourceList"
    assert answer["groupVersion"] == "v1"
    by_name = {resource["name"]: resource for resource in answer["resources"]}
    pods = by_name["pods"]
    assert (pods["kind"], pods["namespaced"], pods["singularName"], pods["shortNames"]) == ("Pod", True, "pod", ["po"])
    assert {"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"} <= set(pods["verbs"])
    assert by_name["nodes"]["namespaced"] is False
    assert by_name["pods/binding"]["kind"] == "Binding"
    assert by_name["pods/eviction"]["group"] == "policy"
    assert by_name["serviceaccounts/token"]["kind"] == "TokenRequest"


async def test_plain_discovery_lists_groups(api: Api) -> None:
    groups = {group["name"]: group for group in (await api.get("/apis")).body["groups"]}
    for name in (
        "apps",
        "coordination.k8s.io",
        "networking.k8s.io",
        "apiextensions.k8s.io",
        "admissionregistration.k8s.io",
        "rbac.authorization.k8s.io",
        "policy",
        "scheduling.k8s.io",
        "discovery.k8s.io",
        "events.k8s.io",
    ):
        assert f"{name}/v1" in [version["groupVersion"] for version in groups[name]["versions"]]
    assert (await api.get("/apis/apps")).body["preferredVersion"]["groupVersion"] == "apps/v1"


@pytest.mark.parametrize("path", ["/api", "/apis"])
async def test_aggregated_discovery(api: Api, path: str) -> None:
    answer = (await api.get(path, accept=AGGREGATED)).body
    assert answer["kind"] == "APIGroupDiscoveryList"
    assert answer["apiVersion"] == "apidiscovery.k8s.io/v2"
    kinds = {
        resource["responseKind"]["kind"]: resource
        for group in answer["items"]
        for version in group["versions"]
        for resource in version["resources"]
    }
    expected = kinds["Pod"] if path == "/api" else kinds["Lease"]
    assert expected["scope"] == "Namespaced"


async def test_the_table_of_pods(api: Api) -> None:
    await api.pod("p")
    await api.pod("gated", {"schedulingGates": [{"name": "x.io/g"}]})
    table = (await api.get(api.path("pods"), accept=TABLE)).body
    assert table["kind"] == "Table"
    assert table["apiVersion"] == "meta.k8s.io/v1"
    names = [column["name"] for column in table["columnDefinitions"]]
    assert names[:5] == ["Name", "Ready", "Status", "Restarts", "Age"]
    cells = {row["cells"][0]: row["cells"] for row in table["rows"]}
    assert cells["p"][1:3] == ["0/1", "Pending"]
    assert cells["gated"][1:3] == ["0/1", "SchedulingGated"]


async def test_the_table_of_one_object_and_of_a_watch(api: Api) -> None:
    await api.config("a", x="1")
    table = (await api.get(api.path("configmaps", "a"), accept=TABLE)).body
    assert [row["cells"][:2] for row in table["rows"]] == [["a", 1]]


async def test_a_table_may_carry_whole_objects_or_none(api: Api) -> None:
    await api.config("a", x="1")
    path = api.path("configmaps", "a")
    whole = (await api.get(path, accept=TABLE, includeObject="Object")).body["rows"][0]
    assert whole["object"]["data"] == {"x": "1"}
    none = (await api.get(path, accept=TABLE, includeObject="None")).body["rows"][0]
    assert not none.get("object")


async def test_metadata_alone(api: Api) -> None:
    await api.config("a", labels={"test": "x"}, x="1")
    accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
    answer = (await api.get(api.path("configmaps"), accept=accept, labelSelector="test=x")).body
    assert answer["kind"] == "PartialObjectMetadataList"
    (item,) = answer["items"]
    assert item["metadata"]["name"] == "a"
    assert "data" not in item


@pytest.mark.parametrize("token", ["", "not-a-token"])
async def test_a_caller_without_a_good_token_is_turned_away(api: Api, token: str) -> None:
    answer = await api.get(api.path("configmaps"), token=token)
    assert answer.code in (401, 403)
    assert answer.body["kind"] == "Status"


async def test_a_service_accounts_token_tells_who_it_is(api: Api) -> None:
    request = {"spec": {"expirationSeconds": 3600}}
    issued = await api.post(api.path("serviceaccounts", "default/token"), request)
    assert issued.code == 201, issued.body
    token = issued.body["status"]["token"]
    assert issued.body["status"]["expirationTimestamp"]
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
    status = (await api.post("/apis/authentication.k8s.io/v1/tokenreviews", review)).body["status"]
    assert status["authenticated"] is True
    assert status["user"]["username"] == f"system:serviceaccount:{api.namespace}:default"
    assert f"system:serviceaccounts:{api.namespace}" in status["user"]["groups"]
    whoami = await api.post(
        "/apis/authentication.k8s.io/v1/selfsubjectreviews",
        {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"},
        token=token,
    )
    assert whoami.body["status"]["userInfo"]["username"] == f"system:serviceaccount:{api.namespace}:default"


async def test_a_token_for_less_than_ten_minutes_is_refused(api: Api) -> None:
    answer = await api.post(api.path("serviceaccounts", "default/token"), {"spec": {"expirationSeconds": 60}})
    assert (answer.code, answer.reason) == (422, "Invalid")


async def test_a_token_review_of_nonsense_is_not_authenticated(api: Api) -> None:
    review = {"spec": {"token": "nonsense"}}
    status = (await api.post("/apis/authentication.k8s.io/v1/tokenreviews", review)).body["status"]
    assert not status.get("authenticated")


async def test_an_administrator_may_do_what_it_asks_about(api: Api) -> None:
    attributes = {"resourceAttributes": {"verb": "create", "resource": "pods", "namespace": api.namespace}}
    answer = await api.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", {"spec": attributes})
    assert answer.code == 201
    assert answer.body["status"]["allowed"] is True


async def test_events_show_in_both_of_their_versions(api: Api) -> None:
    event = {
        "metadata": {"name": "e"},
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": api.namespace},
        "reason": "Because",
        "message": "it happened",
        "type": "Normal",
        "source": {"component": "me"},
    }
    await api.create("events", event)
    newer = (await api.get(api.path("events", "e", group="events.k8s.io/v1"))).body
    assert (newer["note"], newer["regarding"]["name"], newer["reason"]) == ("it happened", "p", "Because")
    assert newer["deprecatedSource"] == {"component": "me"}
    found = await api.get(api.path("events"), fieldSelector="involvedObject.name=p,type=Normal")
    assert found.names == ["e"]


async def test_logs_of_a_pod_that_is_not_there_answer_404(api: Api) -> None:
    assert (await api.get(api.path("pods", "p/log"))).code == 404
