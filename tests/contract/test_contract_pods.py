"""Pods: defaults, what may change, scheduling gates, binding, eviction."""

from __future__ import annotations

from typing import Any

import pytest

from .kubernetes_api import MERGE_PATCH, STRATEGIC_PATCH, Api, pod

GATES = {"schedulingGates": [{"name": "example.com/gang"}]}


async def test_a_new_pod_gets_the_defaults_of_its_spec(api: Api) -> None:
    created = await api.pod("p")
    spec = created.body["spec"]
    assert spec["restartPolicy"] == "Always"
    assert spec["dnsPolicy"] == "ClusterFirst"
    assert spec["terminationGracePeriodSeconds"] == 30
    assert spec["schedulerName"] == "default-scheduler"
    assert spec["serviceAccountName"] == "default"
    assert spec["serviceAccount"] == "default"
    assert spec["enableServiceLinks"] is True
    assert spec["priority"] == 0
    assert spec["preemptionPolicy"] == "PreemptLowerPriority"
    assert spec["securityContext"] == {}
    (container,) = spec["containers"]
    assert container["imagePullPolicy"] == "IfNotPresent"
    assert container["terminationMessagePath"] == "/dev/termination-log"
    assert container["terminationMessagePolicy"] == "File"
    assert container["resources"] == {}


async def test_a_new_pod_tolerates_a_failing_node_for_five_minutes(api: Api) -> None:
    created = await api.pod("p")
    assert created.body["spec"]["tolerations"] == [
        {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
        for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
    ]


async def test_a_toleration_of_its_own_is_kept_instead(api: Api) -> None:
    own = {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}
    created = await api.pod("p", {"tolerations": [own]})
    keys = [(t["key"], t.get("tolerationSeconds")) for t in created.body["spec"]["tolerations"]]
    assert keys == [("node.kubernetes.io/not-ready", 5), ("node.kubernetes.io/unreachable", 300)]


async def test_a_new_pod_is_pending_whatever_its_creator_says(api: Api) -> None:
    answer = await api.create("pods", pod("p") | {"status": {"phase": "Running", "podIP": "10.0.0.1"}})
    assert answer.body["status"]["phase"] == "Pending"
    assert "podIP" not in answer.body["status"]


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({}, "BestEffort"),
        ({"requests": {"cpu": "1"}}, "Burstable"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}}, "Guaranteed"),
        ({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "1Gi"}}, "Burstable"),
        ({"requests": {"cpu": "1000m", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1024Mi"}}, "Guaranteed"),
        ({"requests": {"example.com/gpu": "1"}, "limits": {"example.com/gpu": "1"}}, "BestEffort"),
    ],
)
async def test_the_quality_of_service_class(api: Api, resources: dict[str, Any], expected: str) -> None:
    container = {"name": "main", "image": "registry.example/app:1", "resources": resources}
    created = await api.pod("p", {"containers": [container]})
    assert created.body["status"]["qosClass"] == expected


async def test_requests_default_to_limits_and_quantities_become_canonical(api: Api) -> None:
    resources = {"limits": {"cpu": "0.5", "memory": "1024Mi"}, "requests": {"memory": "536870912"}}
    container = {"name": "main", "image": "registry.example/app:1", "resources": resources}
    created = await api.pod("p", {"containers": [container]})
    assert created.body["spec"]["containers"][0]["resources"] == {
        "limits": {"cpu": "500m", "memory": "1Gi"},
        "requests": {"cpu": "500m", "memory": "536870912"},
    }


@pytest.mark.parametrize(
    ("image", "policy"),
    [("app", "Always"), ("app:latest", "Always"), ("host:5000/app", "Always"), ("app:1", "IfNotPresent")],
)
async def test_the_pull_policy_follows_the_image_tag(api: Api, image: str, policy: str) -> None:
    created = await api.pod("p", {"containers": [{"name": "main", "image": image}]})
    assert created.body["spec"]["containers"][0]["imagePullPolicy"] == policy


async def test_a_pod_gets_its_service_account_token_as_a_projected_volume(api: Api) -> None:
    created = await api.pod("p", {"automountServiceAccountToken": True})
    (volume,) = created.body["spec"]["volumes"]
    assert volume["name"].startswith("kube-api-access-")
    sources = [next(iter(source)) for source in volume["projected"]["sources"]]
    assert sources == ["serviceAccountToken", "configMap", "downwardAPI"]
    (mount,) = created.body["spec"]["containers"][0]["volumeMounts"]
    assert mount["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount"
    assert mount["name"] == volume["name"]


async def test_a_pod_of_a_service_account_that_is_not_there_answers_403(api: Api) -> None:
    answer = await api.post(api.path("pods"), pod("p", {"serviceAccountName": "nobody"}))
    assert (answer.code, answer.reason) == (403, "Forbidden")
    assert 'serviceaccount "nobody" not found' in answer.body["message"]


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"containers": []}, "spec.containers"),
        ({"containers": [{"name": "Bad_Name", "image": "x:1"}]}, "spec.containers[0].name"),
        ({"containers": [{"name": "a", "image": "x:1"}, {"name": "a", "image": "x:1"}]}, "spec.containers[1].name"),
        ({"containers": [{"name": "a"}]}, "spec.containers[0].image"),
        ({"restartPolicy": "Sometimes"}, "spec.restartPolicy"),
        ({"nodeName": "Bad_Node"}, "spec.nodeName"),
        ({"nodeName": "n", **GATES}, "spec.nodeName"),
        (
            {"containers": [{"name": "a", "image": "x:1", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]},
            "spec.containers[0].volumeMounts[0].name",
        ),
        (
            {
                "containers": [
                    {
                        "name": "a",
                        "image": "x:1",
                        "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}},
                    }
                ]
            },
            "spec.containers[0].resources.requests",
        ),
        (
            {"containers": [{"name": "a", "image": "x:1", "resources": {"requests": {"cpu": "-1"}}}]},
            "spec.containers[0].resources.requests[cpu]",
        ),
    ],
)
async def test_a_pod_that_makes_no_sense_answers_422_and_names_the_field(
    api: Api, spec: dict[str, Any], field: str
) -> None:
    answer = await api.post(api.path("pods"), pod("p", spec))
    assert (answer.code, answer.reason) == (422, "Invalid"), answer.body
    assert field in [cause["field"] for cause in answer.body["details"]["causes"]]


async def test_a_quantity_that_cannot_be_parsed_answers_400(api: Api) -> None:
    container = {"name": "a", "image": "x:1", "resources": {"requests": {"cpu": "much"}}}
    answer = await api.post(api.path("pods"), pod("p", {"containers": [container]}))
    assert (answer.code, answer.reason) == (400, "BadRequest")


@pytest.mark.parametrize(
    "change",
    [
        {"containers": [{"name": "main", "command": ["sh"]}]},
        {"nodeName": "elsewhere"},
        {"nodeSelector": {"a": "b"}},
        {"restartPolicy": "Never"},
        {"terminationGracePeriodSeconds": 5},
    ],
)
async def test_most_of_a_pods_spec_is_immutable(api: Api, change: dict[str, Any]) -> None:
    created = await api.pod("p")
    answer = await api.patch(api.path("pods", "p"), {"spec": change}, STRATEGIC_PATCH)
    assert (answer.code, answer.reason) == (422, "Invalid"), answer.body
    assert (await api.get(api.path("pods", "p"))).body["spec"] == created.body["spec"]


async def test_image_and_added_tolerations_may_change(api: Api) -> None:
    created = await api.pod("p")
    extra = {"key": "k", "operator": "Exists"}
    change = {
        "containers": [{"name": "main", "image": "registry.example/app:2"}],
        "tolerations": [*created.body["spec"]["tolerations"], extra],
    }
    answer = await api.patch(api.path("pods", "p"), {"spec": change}, STRATEGIC_PATCH)
    assert answer.code == 200, answer.body
    assert answer.body["spec"]["containers"][0]["image"] == "registry.example/app:2"
    assert extra in answer.body["spec"]["tolerations"]


async def test_a_toleration_may_not_be_taken_away(api: Api) -> None:
    await api.pod("p", {"tolerations": [{"key": "k", "operator": "Exists"}]})
    answer = await api.patch(api.path("pods", "p"), {"spec": {"tolerations": []}}, MERGE_PATCH)
    assert (answer.code, answer.reason) == (422, "Invalid")


async def test_labels_and_annotations_may_change_at_any_time(api: Api) -> None:
    await api.pod("p", labels={"a": "1"})
    change = {"metadata": {"labels": {"a": "2"}, "annotations": {"x": "y"}}}
    answer = await api.patch(api.path("pods", "p"), change)
    assert answer.body["metadata"]["labels"] == {"a": "2"}
    assert answer.body["metadata"]["annotations"] == {"x": "y"}


async def test_a_gated_pod_says_why_it_waits(api: Api) -> None:
    created = await api.pod("p", GATES)
    (condition,) = created.body["status"]["conditions"]
    assert (condition["type"], condition["status"], condition["reason"]) == ("PodScheduled", "False", "SchedulingGated")


async def test_gates_can_be_removed_but_not_added(api: Api) -> None:
    await api.pod("p", {"schedulingGates": [{"name": "example.com/a"}, {"name": "example.com/b"}]})
    path = api.path("pods", "p")
    one = await api.patch(path, {"spec": {"schedulingGates": [{"name": "example.com/b"}]}})
    assert one.code == 200, one.body
    more = await api.patch(path, {"spec": {"schedulingGates": [{"name": "example.com/b"}, {"name": "example.com/c"}]}})
    assert (more.code, more.reason) == (422, "Invalid")
    none = await api.patch(path, {"spec": {"schedulingGates": None}})
    assert none.code == 200, none.body
    assert "schedulingGates" not in none.body["spec"]
    again = await api.patch(path, {"spec": {"schedulingGates": [{"name": "example.com/a"}]}})
    assert (again.code, again.reason) == (422, "Invalid")


async def test_a_gated_pod_may_be_narrowed_to_a_node_and_released_in_one_patch(api: Api) -> None:
    await api.pod("p", GATES)
    patch = {"spec": {"schedulingGates": None, "affinity": _to_node("n1"), "nodeSelector": {"zone": "a"}}}
    answer = await api.patch(api.path("pods", "p"), patch)
    assert answer.code == 200, answer.body
    assert answer.body["spec"]["affinity"] == _to_node("n1")
    assert answer.body["spec"]["nodeSelector"] == {"zone": "a"}


async def test_a_gated_pods_node_selector_may_not_lose_an_entry(api: Api) -> None:
    await api.pod("p", {"nodeSelector": {"zone": "a"}, **GATES})
    path = api.path("pods", "p")
    assert (await api.patch(path, {"spec": {"nodeSelector": {"zone": "a", "disk": "ssd"}}})).code == 200
    assert (await api.patch(path, {"spec": {"nodeSelector": {"zone": "b"}}})).code == 422
    assert (await api.patch(path, {"spec": {"nodeSelector": {"disk": None}}})).code == 422


async def test_a_gated_pods_node_affinity_may_only_narrow(api: Api) -> None:
    wide = _affinity([{"key": "zone", "operator": "In", "values": ["a", "b"]}])
    await api.pod("p", {"affinity": wide, **GATES})
    path = api.path("pods", "p")
    narrowed = _affinity(
        [{"key": "zone", "operator": "In", "values": ["a", "b"]}, {"key": "disk", "operator": "Exists"}]
    )
    assert (await api.patch(path, {"spec": {"affinity": narrowed}})).code == 200
    other = _affinity([{"key": "zone", "operator": "In", "values": ["c"]}])
    assert (await api.patch(path, {"spec": {"affinity": other}})).code == 422


async def test_a_bound_pod_cannot_be_narrowed_any_more(api: Api) -> None:
    await api.pod("p")
    answer = await api.patch(api.path("pods", "p"), {"spec": {"affinity": _to_node("n1")}})
    assert (answer.code, answer.reason) == (422, "Invalid")


async def test_a_pod_may_be_born_bound(api: Api, node: str) -> None:
    created = await api.pod("p", {"nodeName": node})
    assert created.body["spec"]["nodeName"] == node
    assert created.body["status"]["phase"] == "Pending"


async def test_binding_sets_the_node_and_the_condition(api: Api, node: str) -> None:
    await api.pod("p")
    answer = await api.post(api.path("pods", "p/binding"), _binding("p", node))
    assert answer.code == 201
    assert answer.body["kind"] == "Status"
    assert answer.body["status"] == "Success"
    bound = (await api.get(api.path("pods", "p"))).body
    assert bound["spec"]["nodeName"] == node
    assert [(c["type"], c["status"]) for c in bound["status"]["conditions"]] == [("PodScheduled", "True")]


async def test_a_pod_is_bound_only_once(api: Api, node: str) -> None:
    await api.pod("p", {"nodeName": node})
    answer = await api.post(api.path("pods", "p/binding"), _binding("p", "other"))
    assert (answer.code, answer.reason) == (409, "Conflict")
    assert (await api.get(api.path("pods", "p"))).body["spec"]["nodeName"] == node


async def test_a_gated_pod_cannot_be_bound(api: Api, node: str) -> None:
    await api.pod("p", GATES)
    answer = await api.post(api.path("pods", "p/binding"), _binding("p", node))
    assert (answer.code, answer.reason) == (409, "Conflict")


async def test_binding_with_another_pods_uid_answers_409(api: Api, node: str) -> None:
    await api.pod("p")
    binding = _binding("p", node)
    binding["metadata"]["uid"] = "00000000-0000-0000-0000-000000000000"
    assert (await api.post(api.path("pods", "p/binding"), binding)).code == 409


async def test_binding_a_pod_that_is_not_there_answers_404(api: Api) -> None:
    assert (await api.post(api.path("pods", "p/binding"), _binding("p", "n"))).code == 404


async def test_the_status_endpoint_changes_status_and_metadata_but_not_the_spec(api: Api) -> None:
    await api.pod("p")
    patch = {
        "metadata": {"annotations": {"x": "y"}},
        "spec": {"nodeName": "elsewhere"},
        "status": {"phase": "Running", "podIP": "10.1.2.3"},
    }
    answer = await api.patch(api.path("pods", "p/status"), patch)
    assert answer.code == 200, answer.body
    assert answer.body["status"]["phase"] == "Running"
    assert answer.body["status"]["podIP"] == "10.1.2.3"
    assert "nodeName" not in answer.body["spec"]
    assert (await api.get(api.path("pods", "p"), fieldSelector=None)).body["status"]["phase"] == "Running"


async def test_the_main_endpoint_does_not_change_the_status(api: Api) -> None:
    await api.pod("p")
    answer = await api.patch(
        api.path("pods", "p"), {"status": {"phase": "Running"}, "metadata": {"labels": {"a": "b"}}}
    )
    assert answer.code == 200
    assert answer.body["status"]["phase"] == "Pending"


async def test_the_generation_counts_changes_of_the_spec(api: Api) -> None:
    created = await api.pod("p", GATES)
    assert created.body["metadata"]["generation"] == 1
    labelled = await api.patch(api.path("pods", "p"), {"metadata": {"labels": {"a": "b"}}})
    assert labelled.body["metadata"]["generation"] == 1
    released = await api.patch(api.path("pods", "p"), {"spec": {"schedulingGates": None}})
    assert released.body["metadata"]["generation"] == 2


async def test_eviction_deletes_a_pod(api: Api) -> None:
    await api.pod("p")
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p", "namespace": api.namespace}}
    assert (await api.post(api.path("pods", "p/eviction"), eviction)).code == 201
    assert (await api.get(api.path("pods", "p"))).code == 404


async def test_a_priority_class_gives_its_priority(api: Api) -> None:
    created = await api.pod("p", {"priorityClassName": "system-cluster-critical"})
    assert created.body["spec"]["priority"] == 2_000_000_000


async def test_a_priority_class_that_is_not_there_answers_403(api: Api) -> None:
    answer = await api.post(api.path("pods"), pod("p", {"priorityClassName": "no-such-class"}))
    assert (answer.code, answer.reason) == (403, "Forbidden")


async def test_volumes_and_field_references_get_their_defaults(api: Api) -> None:
    variable = {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
    container = {"name": "main", "image": "x:1", "env": [variable], "ports": [{"containerPort": 80}]}
    volumes = [{"name": "tmp"}, {"name": "conf", "configMap": {"name": "c"}}]
    created = await api.pod("p", {"containers": [container], "volumes": volumes})
    spec = created.body["spec"]
    assert spec["volumes"][0] == {"name": "tmp", "emptyDir": {}}
    assert spec["volumes"][1]["configMap"] == {"name": "c", "defaultMode": 420}
    assert spec["containers"][0]["env"][0]["valueFrom"]["fieldRef"]["apiVersion"] == "v1"
    assert spec["containers"][0]["ports"] == [{"containerPort": 80, "protocol": "TCP"}]


async def test_a_new_node_is_tainted_until_it_is_ready(api: Api, node: str) -> None:
    taints = (await api.get(f"/api/v1/nodes/{node}")).body["spec"]["taints"]
    assert {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"} in taints


def _binding(name: str, node: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": {"kind": "Node", "name": node}}


def _affinity(expressions: list[dict[str, Any]]) -> dict[str, Any]:
    terms = {"nodeSelectorTerms": [{"matchExpressions": expressions}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}


def _to_node(name: str) -> dict[str, Any]:
    fields = [{"key": "metadata.name", "operator": "In", "values": [name]}]
    terms = {"nodeSelectorTerms": [{"matchFields": fields}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
