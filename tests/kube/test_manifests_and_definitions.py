"""What ``muster manifests`` prints is what Kubernetes accepts, and no more than Muster needs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from muster.control.config import parse
from muster.kube.definitions import gang_definition, queue_definition
from muster.kube.manifests import InstallOptions, manifests, render, webhook_configuration

KUBERNETES = json.loads((Path(__file__).parent / "data" / "kubernetes-1.30-schemas.json").read_text())
EVERYTHING = yaml.safe_load_all(render())
OBJECTS = list(EVERYTHING)


def strict(schema: Any) -> Any:
    """With unknown fields refused, as ``kubectl apply --validate=strict`` does."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema and "type" in schema:
        closed["additionalProperties"] = False
    return closed


STRICT = {"$defs": strict(KUBERNETES["$defs"])}


def schema_for(manifest: dict) -> dict:
    *group, version = manifest["apiVersion"].split("/")
    wanted = {"group": group[0] if group else "", "version": version, "kind": manifest["kind"]}
    [name] = [n for n, s in STRICT["$defs"].items() if wanted in s.get("x-kubernetes-group-version-kind", [])]
    return {**STRICT, "$ref": f"#/$defs/{name}"}


def one(kind: str, name: str = "muster") -> dict:
    [found] = [each for each in OBJECTS if each["kind"] == kind and each["metadata"]["name"] == name]
    return found


@pytest.mark.parametrize("manifest", OBJECTS, ids=lambda m: f"{m['kind']}-{m['metadata']['name']}")
def test_kubernetes_accepts_each_manifest(manifest):
    jsonschema.Draft202012Validator(schema_for(manifest)).validate(manifest)


def test_the_check_would_notice_a_field_that_does_not_exist():
    manifest = one("Deployment")
    wrong = {**manifest, "spec": {**manifest["spec"], "replica": 2}}
    with pytest.raises(jsonschema.ValidationError, match="replica"):
        jsonschema.Draft202012Validator(schema_for(wrong)).validate(wrong)


def test_the_yaml_says_what_the_code_says():
    assert json.loads(json.dumps(manifests())) == OBJECTS


def test_the_configuration_is_one_that_the_service_accepts():
    config = parse(yaml.safe_load(one("ConfigMap")["data"]["muster.yaml"]), "muster.yaml")
    ports = {port["name"]: port["containerPort"] for port in container()["ports"]}
    assert ports == {"webhook": config.webhook.port, "management": config.management.port}
    assert config.webhook.service == one("Service")["metadata"]["name"]
    assert config.lease.name in one("Role")["rules"][1]["resourceNames"]


def test_another_namespace_reaches_everything():
    objects = manifests(InstallOptions(namespace="spark-control"))
    assert "muster-system" not in yaml.safe_dump_all(objects)
    assert {each["metadata"].get("namespace") for each in objects} == {None, "spark-control"}


def container() -> dict:
    [only] = one("Deployment")["spec"]["template"]["spec"]["containers"]
    return only


def test_replicas_are_two_unprivileged_and_watched():
    deployment = one("Deployment")["spec"]
    assert deployment["replicas"] == 2
    assert deployment["template"]["spec"]["securityContext"]["runAsNonRoot"] is True
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"readinessProbe", "livenessProbe", "resources"} <= container().keys()


def test_a_new_configuration_rolls_the_replicas():
    def template(config: dict) -> dict:
        [deployment] = [each for each in manifests(InstallOptions(config=config)) if each["kind"] == "Deployment"]
        return deployment["spec"]["template"]

    assert template({}) != template({"scheduling": {"packer": "distribute-evenly"}})


def test_the_cluster_role_has_no_wildcards_no_secrets_and_reads_config_maps_by_name_only():
    rules = one("ClusterRole")["rules"]
    granted = {
        (group, resource, verb)
        for r in rules
        for group in r["apiGroups"]
        for resource in r["resources"]
        for verb in r["verbs"]
    }
    assert not any("*" in permission for permission in granted)
    assert not any(resource == "secrets" for _, resource, _ in granted)
    assert {verb for _, resource, verb in granted if resource == "configmaps"} == {"get"}
    assert {verb for _, resource, verb in granted if resource == "pods"} == {"list", "watch", "patch", "delete"}


def test_only_the_two_named_objects_of_its_own_namespace_can_be_read_or_changed():
    for rule in one("Role")["rules"]:
        assert rule["verbs"] == ["create"] or rule["resourceNames"] in (["muster"], ["muster-webhook-tls"])


def test_the_webhook_sees_new_spark_pods_only_and_its_absence_stops_nobody():
    [hook] = webhook_configuration(b"PEM", namespace="muster-system")["webhooks"]
    assert hook["rules"][0]["operations"] == ["CREATE"]
    assert hook["rules"][0]["resources"] == ["pods"]
    assert hook["objectSelector"]["matchExpressions"] == [
        {"key": "spark-role", "operator": "In", "values": ["driver", "executor"]}
    ]
    assert hook["namespaceSelector"]["matchExpressions"][0]["values"] == ["kube-system", "muster-system"]
    assert (hook["failurePolicy"], hook["timeoutSeconds"], hook["sideEffects"]) == ("Ignore", 5, "None")
    assert hook["clientConfig"] == {
        "service": {"name": "muster", "namespace": "muster-system", "path": "/mutate", "port": 443},
        "caBundle": "UEVN",
    }


def test_outside_a_cluster_the_webhook_is_reached_by_url():
    [hook] = webhook_configuration(b"", url="https://127.0.0.1:8443/mutate")["webhooks"]
    assert hook["clientConfig"] == {"url": "https://127.0.0.1:8443/mutate"}


# Custom resources

SCHEMAS = {
    definition["spec"]["names"]["kind"]: definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for definition in (gang_definition(), queue_definition())
}

GANG = {
    "apiVersion": "muster.dev/v1alpha1",
    "kind": "Gang",
    "metadata": {"name": "spark-0123456789abcdef0123456789abcdef"},
    "spec": {
        "applicationId": "spark-0123456789abcdef0123456789abcdef",
        "applicationName": "nightly-report",
        "queue": "default",
        "driver": {"podName": "nightly-report-driver", "shape": {"requests": {"cpu": "1", "memory": "1408Mi"}}},
        "executor": {
            "shape": {
                "requests": {"cpu": "3500m", "memory": "9011Mi", "nvidia.com/gpu": 1},
                "nodeSelector": {"pool": "spark"},
                "terms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a", "b"]}]}],
                "tolerations": [{"key": "spark", "operator": "Exists", "effect": "NoSchedule"}],
            }
        },
        "minExecutors": 2,
        "maxExecutors": 10,
        "profiles": [{"id": 1, "shape": {"requests": {"cpu": "1"}}}],
        "revision": 3,
        "driverNode": "node-1",
        "slots": [{"node": "node-1", "count": 1}, {"node": "node-2", "count": 1, "profile": 0}],
    },
    "status": {
        "phase": "Reserved",
        "reason": "Reserved",
        "found": "2026-11-25T04:00:00.123456Z",
        "conditions": [
            {
                "type": "Reserved",
                "status": "True",
                "reason": "Fits",
                "message": "",
                "lastTransitionTime": "2026-11-25T04:00:01Z",
            }
        ],
    },
}
QUEUE = {
    "apiVersion": "muster.dev/v1alpha1",
    "kind": "Queue",
    "metadata": {"name": "analytics"},
    "spec": {
        "parent": "root",
        "nodePools": ["spark"],
        "policy": "fair",
        "guaranteed": {"cpu": "100", "memory": "400Gi"},
        "max": {"cpu": 200},
        "weight": 3,
        "limits": [{"users": ["*"], "max": {"cpu": "20"}, "maxApplications": 5}],
        "maxApplications": 50,
        "driverShare": 20,
        "preemption": "applications",
        "minRuntimeSeconds": 60,
        "submitters": {"users": ["alice"], "groups": ["data"], "serviceAccounts": ["team-a/spark"]},
    },
}


def api_schema(schema: Any) -> Any:
    """As JSON Schema, which has no ``nullable``."""
    if isinstance(schema, list):
        return [api_schema(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: api_schema(value) for key, value in schema.items()}
    if schema.get("nullable") is True:
        made["type"] = [schema["type"], "null"]
    return made


def validate(manifest: dict) -> None:
    jsonschema.Draft4Validator(api_schema(SCHEMAS[manifest["kind"]])).validate(manifest)


def changed(manifest: dict, path: str, value: Any) -> dict:
    copy = json.loads(json.dumps(manifest))
    *parents, last = path.split(".")
    place = copy
    for parent in parents:
        place = place[int(parent)] if parent.isdigit() else place[parent]
    place[last] = value
    return copy


@pytest.mark.parametrize("manifest", [GANG, QUEUE], ids=lambda m: m["kind"])
def test_a_sound_object_is_accepted(manifest):
    validate(manifest)


def test_no_ceiling_may_be_written_as_null():
    validate(changed(GANG, "spec.maxExecutors", None))


@pytest.mark.parametrize("quantity", ["1", "0.5", "100m", "9011Mi", "1e3", "12E", 7, "+1.5Gi", ".5"])
def test_a_quantity_as_kubernetes_writes_it_is_accepted(quantity):
    validate(changed(QUEUE, "spec.max.cpu", quantity))


@pytest.mark.parametrize(
    ("manifest", "path", "value"),
    [
        (GANG, "spec.applicationId", ""),
        (GANG, "spec.applicationId", "x" * 64),
        (GANG, "spec.minExecutors", -1),
        (GANG, "spec.minExecutors", 2.5),
        (GANG, "spec.slots", [{"node": "n", "count": 0}]),
        (GANG, "spec.slots", [{"count": 1}]),
        (GANG, "spec.executor.shape.requests", {"cpu": "three"}),
        (GANG, "spec.executor.shape.requests", {"cpu": "1 Gi"}),
        (GANG, "spec.executor.shape.tolerations", [{"effect": "Sometimes"}]),
        (GANG, "status.phase", "Strange"),
        (QUEUE, "spec.policy", "Lottery"),
        (QUEUE, "spec.weight", 0),
        (QUEUE, "spec.driverShare", 101),
        (QUEUE, "spec.driverShare", 0),
        (QUEUE, "spec.maxApplications", 0),
        (QUEUE, "spec.policy", "Fair"),
        (QUEUE, "spec.preemption", "always"),
        (QUEUE, "spec.minRuntimeSeconds", -1),
        (QUEUE, "spec.submitters", {"users": "alice"}),
    ],
)
def test_what_makes_no_sense_is_refused(manifest, path, value):
    with pytest.raises(jsonschema.ValidationError):
        validate(changed(manifest, path, value))


def nodes(schema: dict, path: str = "") -> list[tuple[str, dict]]:
    found = [(path, schema)]
    for name, child in schema.get("properties", {}).items():
        found += nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            found += nodes(schema[key], f"{path}.{key}")
    return found


@pytest.mark.parametrize("kind", SCHEMAS)
def test_the_schema_is_structural(kind):
    """Kubernetes, "Extend the Kubernetes API with CustomResourceDefinitions", "Specifying a structural schema"."""
    for path, node in nodes(SCHEMAS[kind]):
        assert "type" in node or node.get("x-kubernetes-int-or-string") is True, path
        assert not ("properties" in node and "additionalProperties" in node), path
        assert not {"$ref", "definitions", "dependencies", "id", "patternProperties", "writeOnly"} & node.keys(), path
        assert node.get("uniqueItems", False) is False, path
        if "anyOf" in node:
            assert node["anyOf"] == [{"type": "integer"}, {"type": "string"}], path
        for key in node.get("x-kubernetes-list-map-keys", []):
            item = node["items"]
            assert key in item["required"] or "default" in item["properties"][key], path


@pytest.mark.parametrize("kind", SCHEMAS)
def test_defaults_keep_to_their_own_schema(kind):
    for path, node in nodes(SCHEMAS[kind]):
        if "default" in node:
            jsonschema.Draft4Validator(api_schema(node)).validate(node["default"])
            assert not path.startswith(".metadata")


@pytest.mark.parametrize("definition", [gang_definition(), queue_definition()], ids=["Gang", "Queue"])
def test_printer_columns_point_at_fields_that_exist(definition):
    [version] = definition["spec"]["versions"]
    known = {path for path, _ in nodes(version["schema"]["openAPIV3Schema"])} | {".metadata.creationTimestamp"}
    maps = {path.removesuffix(".additionalProperties") for path in known if path.endswith(".additionalProperties")}
    for column in version["additionalPrinterColumns"]:
        path = re.sub(r"\[\?.*\]", ".items", column["jsonPath"])
        assert path in known or path.rpartition(".")[0] in maps


def test_kubectl_get_gangs_shows_the_columns_that_were_promised():
    [version] = gang_definition()["spec"]["versions"]
    shown = [column["name"].upper() for column in version["additionalPrinterColumns"] if not column.get("priority")]
    assert shown[:8] == ["APP", "QUEUE", "PHASE", "MIN", "RUNNING", "MAX", "WAIT", "REASON"]
