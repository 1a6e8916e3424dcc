"""Creating, reading and replacing objects."""

from __future__ import annotations

import re

import pytest

from .kubernetes_api import Api, pod


async def test_a_created_object_gets_an_identity(api: Api) -> None:
    created = await api.config("a", x="1")
    metadata = created.body["metadata"]
    assert created.body["kind"] == "ConfigMap"
    assert created.body["apiVersion"] == "v1"
    assert metadata["namespace"] == api.namespace
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", metadata["uid"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", metadata["creationTimestamp"])
    assert metadata["resourceVersion"].isdigit()
    assert (await api.get(api.path("configmaps", "a"))).body == created.body


async def test_what_a_client_says_of_identity_is_ignored_on_create(api: Api) -> None:
    body = {"metadata": {"name": "a", "uid": "mine", "creationTimestamp": "2001-01-01T00:00:00Z", "generation": 7}}
    metadata = (await api.create("configmaps", body)).body["metadata"]
    assert metadata["uid"] != "mine"
    assert not metadata["creationTimestamp"].startswith("2001")


async def test_a_create_with_a_resource_version_is_refused(api: Api) -> None:
    answer = await api.post(api.path("configmaps"), {"metadata": {"name": "a", "resourceVersion": "5"}})
    assert answer.code == 500


async def test_generate_name_makes_distinct_names(api: Api) -> None:
    first = await api.create("configmaps", {"metadata": {"generateName": "job-"}})
    second = await api.create("configmaps", {"metadata": {"generateName": "job-"}})
    assert re.fullmatch(r"job-[a-z0-9]{5}", first.name)
    assert first.name != second.name
    assert first.body["metadata"]["generateName"] == "job-"


async def test_a_name_that_is_taken_answers_409_already_exists(api: Api) -> None:
    await api.config("a")
    answer = await api.post(api.path("configmaps"), {"metadata": {"name": "a"}})
    assert (answer.code, answer.reason) == (409, "AlreadyExists")
    assert answer.body["kind"] == "Status"
    assert answer.body["status"] == "Failure"
    assert answer.body["message"] == 'configmaps "a" already exists'
    assert answer.body["details"] == {"name": "a", "kind": "configmaps"}


async def test_an_object_that_is_not_there_answers_404_with_details(api: Api) -> None:
    answer = await api.get(api.path("leases", "x", group="coordination.k8s.io/v1"))
    assert (answer.code, answer.reason) == (404, "NotFound")
    assert answer.body["message"] == 'leases.coordination.k8s.io "x" not found'
    assert answer.body["details"] == {"name": "x", "group": "coordination.k8s.io", "kind": "leases"}


async def test_a_namespace_that_is_not_there_answers_404(api: Api) -> None:
    answer = await api.post(api.path("configmaps", namespace="no-such-namespace"), {"metadata": {"name": "a"}})
    assert (answer.code, answer.reason) == (404, "NotFound")
    assert answer.body["message"] == 'namespaces "no-such-namespace" not found'


async def test_a_path_that_is_not_served_answers_404(api: Api) -> None:
    assert (await api.get("/apis/no.such.group/v1/things")).code == 404
    assert (await api.get("/api/v1/nosuchthings")).code == 404


@pytest.mark.parametrize("name", ["Upper", "under_score", "-dash", "dot.", "a" * 254])
async def test_a_malformed_name_answers_422(api: Api, name: str) -> None:
    answer = await api.post(api.path("configmaps"), {"metadata": {"name": name}})
    assert (answer.code, answer.reason) == (422, "Invalid")
    assert answer.body["details"]["causes"][0]["field"] == "metadata.name"


async def test_an_object_without_any_name_is_refused(api: Api) -> None:
    answer = await api.post(api.path("configmaps"), {"metadata": {}})
    assert (answer.code, answer.reason) == (422, "Invalid")
    assert answer.body["details"]["causes"][0]["reason"] == "FieldValueRequired"


@pytest.mark.parametrize(
    "labels", [{"a b": "c"}, {"a": "no spaces"}, {"a": "x" * 64}, {"/a": "b"}], ids=["key", "value", "long", "prefix"]
)
async def test_malformed_labels_answer_422(api: Api, labels: dict[str, str]) -> None:
    answer = await api.post(api.path("configmaps"), {"metadata": {"name": "a", "labels": labels}})
    assert (answer.code, answer.reason) == (422, "Invalid")
    assert answer.body["details"]["causes"][0]["field"] == "metadata.labels"


async def test_an_owner_reference_without_a_uid_answers_422(api: Api) -> None:
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "p"}
    answer = await api.post(api.path("configmaps"), {"metadata": {"name": "a", "ownerReferences": [owner]}})
    assert (answer.code, answer.reason) == (422, "Invalid")


async def test_a_body_of_another_kind_answers_400(api: Api) -> None:
    answer = await api.post(api.path("configmaps"), pod("a"))
    assert (answer.code, answer.reason) == (400, "BadRequest")


async def test_a_body_that_is_no_json_answers_400(api: Api) -> None:
    answer = await api.call("POST", api.path("configmaps"), b'{"metadata":')
    assert (answer.code, answer.reason) == (400, "BadRequest")


async def test_a_body_of_an_unknown_media_type_answers_415(api: Api) -> None:
    answer = await api.call("POST", api.path("configmaps"), b"a", content="text/csv")
    assert (answer.code, answer.reason) == (415, "UnsupportedMediaType")


async def test_a_namespace_other_than_that_of_the_url_answers_400(api: Api) -> None:
    answer = await api.post(api.path("configmaps"), {"metadata": {"name": "a", "namespace": "default"}})
    assert (answer.code, answer.reason) == (400, "BadRequest")


async def test_yaml_bodies_are_accepted(api: Api) -> None:
    answer = await api.call(
        "POST", api.path("configmaps"), b"metadata: {name: a}\ndata: {x: '1'}", content="application/yaml"
    )
    assert answer.code == 201
    assert answer.body["data"] == {"x": "1"}


async def test_replacing_an_object_gives_it_a_new_version(api: Api) -> None:
    created = await api.config("a", x="1")
    replaced = await api.put(api.path("configmaps", "a"), {**created.body, "data": {"y": "2"}})
    assert replaced.code == 200
    assert replaced.body["data"] == {"y": "2"}
    assert int(replaced.version) > int(created.version)
    assert replaced.body["metadata"]["uid"] == created.body["metadata"]["uid"]


async def test_replacing_with_a_stale_version_answers_409_conflict(api: Api) -> None:
    created = await api.config("a", x="1")
    await api.put(api.path("configmaps", "a"), {**created.body, "data": {"x": "2"}})
    answer = await api.put(api.path("configmaps", "a"), {**created.body, "data": {"x": "3"}})
    assert (answer.code, answer.reason) == (409, "Conflict")
    assert "the object has been modified" in answer.body["message"]
    assert (await api.get(api.path("configmaps", "a"))).body["data"] == {"x": "2"}


async def test_replacing_without_a_version_is_unconditional_for_config_maps(api: Api) -> None:
    await api.config("a", x="1")
    answer = await api.put(api.path("configmaps", "a"), {"metadata": {"name": "a"}, "data": {"x": "2"}})
    assert answer.code == 200
    assert answer.body["data"] == {"x": "2"}


async def test_a_write_that_changes_nothing_keeps_the_version(api: Api) -> None:
    created = await api.config("a", x="1")
    replaced = await api.put(api.path("configmaps", "a"), created.body)
    assert replaced.version == created.version


async def test_replacing_an_object_that_is_not_there_answers_404(api: Api) -> None:
    answer = await api.put(api.path("configmaps", "a"), {"metadata": {"name": "a"}})
    assert (answer.code, answer.reason) == (404, "NotFound")


async def test_replacing_under_another_name_answers_400(api: Api) -> None:
    await api.config("a")
    answer = await api.put(api.path("configmaps", "a"), {"metadata": {"name": "b"}})
    assert (answer.code, answer.reason) == (400, "BadRequest")


async def test_replacing_with_another_uid_answers_409(api: Api) -> None:
    created = await api.config("a")
    metadata = {**created.body["metadata"], "uid": "00000000-0000-0000-0000-000000000000"}
    answer = await api.put(api.path("configmaps", "a"), {**created.body, "metadata": metadata})
    assert (answer.code, answer.reason) == (409, "Conflict")


async def test_an_immutable_config_map_keeps_its_data(api: Api) -> None:
    await api.create("configmaps", {"metadata": {"name": "a"}, "data": {"x": "1"}, "immutable": True})
    answer = await api.patch(api.path("configmaps", "a"), {"data": {"x": "2"}})
    assert (answer.code, answer.reason) == (422, "Invalid")


async def test_a_dry_run_answers_like_the_real_thing_and_keeps_nothing(api: Api) -> None:
    answer = await api.post(api.path("configmaps"), {"metadata": {"name": "a"}}, dryRun="All")
    assert answer.code == 201
    assert answer.body["metadata"]["uid"]
    assert (await api.get(api.path("configmaps", "a"))).code == 404

    created = await api.config("b", x="1")
    changed = await api.patch(api.path("configmaps", "b"), {"data": {"x": "2"}}, dryRun="All")
    assert changed.body["data"] == {"x": "2"}
    assert (await api.delete(api.path("configmaps", "b"), dryRun="All")).code == 200
    assert (await api.get(api.path("configmaps", "b"))).body == created.body


async def test_an_unknown_dry_run_value_answers_422_or_400(api: Api) -> None:
    answer = await api.post(api.path("configmaps"), {"metadata": {"name": "a"}}, dryRun="Some")
    assert answer.code in (400, 422)
    assert (await api.get(api.path("configmaps", "a"))).code == 404


async def test_unknown_fields_of_built_in_kinds_are_dropped(api: Api) -> None:
    created = await api.create("configmaps", {"metadata": {"name": "a"}, "data": {"x": "1"}, "colour": "red"})
    assert "colour" not in created.body


async def test_unknown_fields_are_an_error_when_the_client_asks_for_strict_validation(api: Api) -> None:
    body = {"metadata": {"name": "a"}, "colour": "red"}
    answer = await api.post(api.path("configmaps"), body, fieldValidation="Strict")
    assert (answer.code, answer.reason) == (400, "BadRequest")
    assert 'unknown field "colour"' in answer.body["message"]


async def test_a_value_of_the_wrong_type_answers_400(api: Api) -> None:
    answer = await api.post(api.path("configmaps"), {"metadata": {"name": "a"}, "data": {"x": 1}})
    assert (answer.code, answer.reason) == (400, "BadRequest")


async def test_a_secrets_string_data_becomes_base64_data(api: Api) -> None:
    created = await api.create("secrets", {"metadata": {"name": "a"}, "stringData": {"k": "v"}})
    assert created.body["data"] == {"k": "dg=="}
    assert created.body["type"] == "Opaque"


async def test_a_service_gets_a_cluster_address_unless_it_is_headless(api: Api) -> None:
    ports = [{"port": 80}]
    plain = await api.create("services", {"metadata": {"name": "a"}, "spec": {"ports": ports}})
    assert re.fullmatch(r"[0-9.]+", plain.body["spec"]["clusterIP"])
    assert plain.body["spec"]["ports"] == [{"port": 80, "protocol": "TCP", "targetPort": 80}]
    headless = await api.create("services", {"metadata": {"name": "b"}, "spec": {"ports": ports, "clusterIP": "None"}})
    assert headless.body["spec"]["clusterIP"] == "None"


async def test_a_put_may_create_a_lease(api: Api) -> None:
    path = api.path("leases", "a", group="coordination.k8s.io/v1")
    created = await api.put(path, {"metadata": {"name": "a"}, "spec": {"holderIdentity": "me"}})
    assert created.code in (200, 201)
    assert created.body["spec"]["holderIdentity"] == "me"


async def test_a_lease_is_taken_by_one_of_two(api: Api) -> None:
    path = api.path("leases", group="coordination.k8s.io/v1")
    created = await api.post(path, {"metadata": {"name": "a"}, "spec": {"holderIdentity": "x"}})
    first = await api.put(f"{path}/a", {**created.body, "spec": {"holderIdentity": "y"}})
    second = await api.put(f"{path}/a", {**created.body, "spec": {"holderIdentity": "z"}})
    assert (first.code, second.code) == (200, 409)
