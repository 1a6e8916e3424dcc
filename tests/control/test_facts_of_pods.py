"""What scheduling learns of Kubernetes pods and nodes; sums as kube-scheduler makes them (KEP-753, KEP-2837)."""

from __future__ import annotations

import copy
from typing import Any

import msgspec
import pytest

from muster.cluster.constraints import PodConstraints, Requirement, Term, Toleration, pool_of
from muster.control.facts import config_map_of, constraints_of, node_from, pin_reasons, pod_from, requests_of
from muster.kube import objects as k
from muster.scheduling.model import Role
from tests.control.spark_pods import APPLICATION, driver_pod, executor_pod

MI = 2**20


def decoded(pod: dict[str, Any]) -> k.Pod:
    return msgspec.json.decode(msgspec.json.encode(pod), type=k.Pod)


def container(cpu: str, memory: str, **more: Any) -> dict[str, Any]:
    return {"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}, **more}


def pod_of(*containers: dict[str, Any], **spec: Any) -> k.Pod:
    return decoded({"metadata": {"name": "p", "namespace": "n"}, "spec": {"containers": list(containers), **spec}})


def test_a_driver_of_spark_submit() -> None:
    pod = pod_from(decoded(driver_pod()))
    assert pod.role is Role.DRIVER
    assert pod.application == f"team-a/{APPLICATION}"
    assert (pod.requests.get("cpu"), pod.requests.get("memory")) == (1000, 1408 * MI)
    assert config_map_of(decoded(driver_pod())) == "spark-drv-4a1b0f8c9d2e3f40-conf-map"


def test_an_executor_of_a_resource_profile_that_took_an_extra_slot() -> None:
    pod = executor_pod()
    pod["metadata"]["labels"]["spark-exec-resourceprofile-id"] = "3"
    pod["metadata"]["annotations"] = {"muster.dev/slot": "n7", "muster.dev/extra": "true"}
    seen = pod_from(decoded(pod))
    assert (seen.role, seen.profile, seen.assigned, seen.extra) == (Role.EXECUTOR, 3, "n7", True)
    assert seen.pin_reasons == ()


def test_a_pod_of_another_scheduler_only_holds_room() -> None:
    pod = executor_pod()
    pod["spec"]["schedulerName"] = "volcano"
    seen = pod_from(decoded(pod))
    assert (seen.role, seen.application) == (Role.OTHER, "")
    assert seen.requests.get("cpu") == 1000


def test_requests_are_summed_over_containers_and_pod_overhead() -> None:
    pod = pod_of(container("1", "1Gi"), container("250m", "64Mi"), overhead={"cpu": "100m", "memory": "16Mi"})
    assert requests_of(pod).get("cpu") == 1350
    assert requests_of(pod).get("memory") == (1024 + 64 + 16) * MI


def test_init_containers_count_by_their_largest_moment() -> None:
    pod = pod_of(container("1", "1Gi"), initContainers=[container("2", "256Mi"), container("500m", "2Gi")])
    assert (requests_of(pod).get("cpu"), requests_of(pod).get("memory")) == (2000, 2048 * MI)


def test_sidecars_run_beside_both_what_initialises_and_what_runs() -> None:
    # KEP-753: max(sum of containers + sum of sidecars, each init container + the sidecars started before it)
    sidecar = container("200m", "100Mi", restartPolicy="Always")
    pod = pod_of(container("1", "1Gi"), initContainers=[sidecar, container("3", "10Mi"), sidecar])
    assert (requests_of(pod).get("cpu"), requests_of(pod).get("memory")) == (3200, 1224 * MI)


def test_pod_level_requests_replace_the_sum_of_what_they_name() -> None:
    pod = pod_of(container("1", "1Gi"), resources={"requests": {"cpu": "4"}})
    assert (requests_of(pod).get("cpu"), requests_of(pod).get("memory")) == (4000, 1024 * MI)


def test_a_shrinking_executor_counts_at_its_old_size_until_the_kubelet_has_resized_it() -> None:
    pod = executor_pod()
    pod["status"] = {
        "containerStatuses": [
            {"name": "spark-kubernetes-executor", "allocatedResources": {"cpu": "2", "memory": "1Gi"}}
        ]
    }
    seen = pod_from(decoded(pod))
    assert (seen.requests.get("cpu"), seen.requests.get("memory")) == (2000, 1408 * MI)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (
            {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "exec-1-pvc-0"}}]},
            "persistent volume claim",
        ),
        ({"volumes": [{"name": "v", "ephemeral": {"volumeClaimTemplate": {}}}]}, "ephemeral"),
        ({"resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "gpu"}]}, "DRA"),
        ({"affinity": {"podAffinity": {}}}, "pod affinity"),
        ({"affinity": {"podAntiAffinity": {}}}, "anti-affinity"),
        ({"topologySpreadConstraints": [{"maxSkew": 1}]}, "topology spread"),
        ({"schedulingGates": [{"name": "example.com/quota"}]}, "gate"),
    ],
)
def test_what_only_kube_scheduler_can_do_forbids_binding(spec: dict[str, Any], said: str) -> None:
    [reason] = pin_reasons(pod_of(container("1", "1Gi"), **spec).spec)
    assert said in reason


def test_host_ports_forbid_binding() -> None:
    pod = pod_of(container("1", "1Gi", ports=[{"containerPort": 80, "hostPort": 80}]))
    assert pin_reasons(pod.spec) == ("it asks for host ports",)


def test_the_network_of_the_node_forbids_binding() -> None:
    assert pin_reasons(pod_of(container("1", "1Gi"), hostNetwork=True).spec) == ("it asks for host ports",)


def test_a_claim_that_spark_makes_on_demand_forbids_binding() -> None:
    # MountVolumesFeatureStep: the claim is created after the pod, so that nobody can look at it at admission
    pod = executor_pod()
    claim = f"{pod['metadata']['name']}-pvc-0"
    pod["spec"]["volumes"].append({"name": "data", "persistentVolumeClaim": {"claimName": claim}})
    assert pod_from(decoded(pod)).pin_reasons == ("it mounts a persistent volume claim",)


def test_a_plain_executor_may_be_born_bound() -> None:
    assert pin_reasons(decoded(executor_pod()).spec) == ()


def test_constraints_are_the_required_ones_only() -> None:
    pod = copy.deepcopy(executor_pod())
    pod["spec"] |= {
        "nodeSelector": {"disk": "nvme"},
        "tolerations": [{"key": "spark", "operator": "Exists"}, {"key": "team", "value": "a", "effect": "NoSchedule"}],
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [{"matchExpressions": [{"key": "pool", "operator": "In", "values": ["etl"]}]}]
                },
                "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": {}}],
            }
        },
    }
    constraints = constraints_of(decoded(pod).spec)
    assert constraints == PodConstraints(
        node_selector=(("disk", "nvme"),),
        terms=(Term((Requirement("pool", "In", ("etl",)),)),),
        tolerations=(Toleration("spark", "Exists"), Toleration("team", "Equal", "a", "NoSchedule")),
    )
    assert pool_of(constraints, "pool") == "etl"
    assert pool_of(constraints, "disk") == "nvme"
    assert pool_of(constraints, "tier") == ""


def test_a_node_is_ready_when_its_condition_says_so() -> None:
    def node(status: str) -> k.Node:
        document = {
            "metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "a"}},
            "spec": {"unschedulable": True, "taints": [{"key": "dedicated", "value": "etl", "effect": "NoSchedule"}]},
            "status": {
                "allocatable": {"cpu": "7910m", "memory": "31883816Ki", "pods": "58"},
                "conditions": [{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": status}],
            },
        }
        return msgspec.json.decode(msgspec.json.encode(document), type=k.Node)

    ready = node_from(node("True"))
    assert ready.ready
    assert ready.unschedulable
    assert [ready.allocatable.get(name) for name in ("cpu", "memory", "pods")] == [7910, 31883816 * 1024, 58]
    assert not node_from(node("Unknown")).ready


@pytest.mark.parametrize(
    ("text", "count"),
    [("12", 12), ("", None), ("0", None), ("-3", None), ("2.5", None), ("many", None), ("9" * 9999, None)],
)
def test_a_gang_of_client_mode_is_a_sane_whole_number_or_none(text: str, count: int | None) -> None:
    pod = executor_pod()
    pod["metadata"]["annotations"] = {"muster.dev/executor-count": text}
    assert pod_from(decoded(pod)).gang_count == count


@pytest.mark.parametrize("where", ["annotations", "labels"])
def test_an_executor_may_name_its_queue(where: str) -> None:
    pod = executor_pod()
    pod["metadata"].setdefault(where, {})["muster.dev/queue"] = "notebooks"
    assert pod_from(decoded(pod)).queue == "notebooks"
    assert pod_from(decoded(executor_pod())).queue == ""
