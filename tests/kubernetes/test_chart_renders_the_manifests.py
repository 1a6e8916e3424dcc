"""`helm template` gives what `muster manifests` prints: one truth, two ways to install it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from muster.control.config import parse
from muster.kube.manifests import InstallOptions, manifests
from tests.kube.test_manifests_and_definitions import schema_for
from tests.kubernetes.helm import EVERYTHING_ON, OURS, Failed, Helm, by_name, is_hook

pytestmark = pytest.mark.kubernetes

FOREIGN = ("monitoring.coreos.com/v1", "cert-manager.io/v1")
"""Of other projects' custom resources."""


@pytest.fixture
def helm(tmp_path: Path) -> Helm:
    return Helm(tmp_path)


def comparable(manifest: dict[str, Any]) -> dict[str, Any]:
    """Without what Helm's conventions add; muster.yaml as what it says."""
    one = json.loads(json.dumps(manifest))
    for metadata in (one["metadata"], one.get("spec", {}).get("template", {}).get("metadata", {})):
        for label in OURS:
            metadata.get("labels", {}).pop(label, None)
        annotations = metadata.get("annotations", {})
        annotations.pop("helm.sh/resource-policy", None)
        annotations.pop("muster.dev/config-sha256", None)  # of a text, which each writes in its own order
        for name in ("labels", "annotations"):
            if not metadata.get(name):
                metadata.pop(name, None)
    if one["kind"] == "ConfigMap":
        one["data"]["muster.yaml"] = yaml.safe_load(one["data"]["muster.yaml"])
    return one


@pytest.mark.parametrize(
    ("values", "options"),
    [
        pytest.param({}, InstallOptions(), id="defaults"),
        pytest.param(
            {
                "replicas": 3,
                "image": {"repository": "registry.example.com/m", "tag": "1.2"},
                "resources": {"requests": {"cpu": "2", "memory": "4Gi"}, "limits": {"memory": "4Gi"}},
            },
            InstallOptions(replicas=3, image="registry.example.com/m:1.2", cpu="2", memory="4Gi"),
            id="size",
        ),
        pytest.param(
            {
                "config": {"scheduling": {"packer": "distribute-evenly"}, "webhook": {"timeoutSeconds": 3}},
                "networkPolicy": {"enabled": True},
                "priorityClasses": {"create": True},
            },
            InstallOptions(
                config={"scheduling": {"packer": "distribute-evenly"}, "webhook": {"timeoutSeconds": 3}},
                network_policy=True,
                priority_classes=True,
            ),
            id="options",
        ),
        pytest.param({}, InstallOptions(namespace="spark-control"), id="namespace"),
    ],
)
def test_the_chart_and_the_command_install_the_same(
    helm: Helm, values: dict[str, Any], options: InstallOptions
) -> None:
    rendered = [one for one in helm.template(values, namespace=options.namespace) if not is_hook(one)]
    by_helm = {key: comparable(one) for key, one in by_name(rendered).items()}
    by_command = {key: comparable(one) for key, one in by_name(manifests(options)).items()}
    del by_command["Namespace", options.namespace]  # helm install --create-namespace
    by_helm.pop(("NetworkPolicy", "muster-withdraw"), None)  # for the hook, which the command does not have
    assert by_helm == by_command


@pytest.mark.parametrize("values", [{}, EVERYTHING_ON], ids=["defaults", "everything"])
def test_lint_has_nothing_to_say_and_the_service_accepts_the_configuration(helm: Helm, values: dict[str, Any]) -> None:
    assert "0 chart(s) failed" in helm.lint(values)
    objects = by_name(helm.template(values))
    config = parse(yaml.safe_load(objects["ConfigMap", "muster"]["data"]["muster.yaml"]), "muster.yaml")
    assert (config.webhook.host, config.webhook.port, config.webhook.service) == ("0.0.0.0", 8443, "muster")


@pytest.mark.parametrize("values", [{}, EVERYTHING_ON], ids=["defaults", "everything"])
def test_kubernetes_1_30_accepts_each_object(helm: Helm, values: dict[str, Any]) -> None:
    for manifest in helm.template(values):
        if manifest["apiVersion"] not in FOREIGN:
            jsonschema.Draft202012Validator(schema_for(manifest)).validate(manifest)


def test_a_change_of_configuration_rolls_the_replicas(helm: Helm) -> None:
    def stamp(values: dict[str, Any]) -> str:
        template = by_name(helm.template(values))["Deployment", "muster"]["spec"]["template"]
        return str(template["metadata"]["annotations"]["muster.dev/config-sha256"])

    assert stamp({}) != stamp({"config": {"scheduling": {"packer": "distribute-evenly"}}})
    assert stamp({}) == stamp({"replicas": 5})


def test_with_cert_manager_nothing_of_ours_makes_certificates(helm: Helm) -> None:
    objects = by_name(helm.template({"certificates": {"source": "cert-manager"}}))
    rules = objects["Role", "muster"]["rules"]
    assert not any("secrets" in rule["resources"] for rule in rules)
    [seen] = [one for one in objects["ClusterRole", "muster"]["rules"] if one.get("resourceNames") == ["muster"]]
    assert seen["verbs"] == ["get"]
    webhook = objects["MutatingWebhookConfiguration", "muster"]
    assert webhook["metadata"]["annotations"] == {"cert-manager.io/inject-ca-from": "muster-system/muster-webhook"}
    secret = objects["Certificate", "muster-webhook"]["spec"]["secretName"]
    volumes = objects["Deployment", "muster"]["spec"]["template"]["spec"]["volumes"]
    assert {"name": "tls", "secret": {"secretName": secret}} in volumes
    config = parse(yaml.safe_load(objects["ConfigMap", "muster"]["data"]["muster.yaml"]), "muster.yaml")
    [mount] = [
        one["mountPath"]
        for one in objects["Deployment", "muster"]["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
        if one["name"] == "tls"
    ]
    assert config.webhook.certificates.cert_file == f"{mount}/tls.crt"
    assert config.webhook.registration == "none"


def test_an_issuer_of_ones_own_is_used_and_none_is_made(helm: Helm) -> None:
    issuer = {"name": "platform", "kind": "ClusterIssuer"}
    values = {"certificates": {"source": "cert-manager", "certManager": {"issuerRef": issuer}}}
    objects = by_name(helm.template(values))
    assert objects["Certificate", "muster-webhook"]["spec"]["issuerRef"] == issuer
    assert ("Issuer", "muster-webhook") not in objects


def test_the_hook_before_an_uninstall_is_no_endpoint_of_the_service(helm: Helm) -> None:
    objects = by_name(helm.template({}))
    selector = objects["Service", "muster"]["spec"]["selector"]
    labels = objects["Job", "muster-withdraw"]["spec"]["template"]["metadata"]["labels"]
    assert not selector.items() <= labels.items()
    assert ("Job", "muster-withdraw") not in by_name(helm.template({"withdraw": {"enabled": False}}))


def test_custom_resources_are_kept_upgraded_and_may_be_left_out(helm: Helm) -> None:
    kept = by_name(helm.template({}))["CustomResourceDefinition", "gangs.muster.dev"]
    assert kept["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    loose = by_name(helm.template({"crds": {"keep": False}}))["CustomResourceDefinition", "gangs.muster.dev"]
    assert "annotations" not in loose["metadata"]
    kinds = {kind for kind, _ in by_name(helm.template({"crds": {"install": False}}))}
    assert "CustomResourceDefinition" not in kinds


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"replicas": 0}, "/replicas"),
        ({"config": {"scheduling": {"paker": "x"}}}, "'paker'"),
        ({"certificates": {"source": "vault"}}, "'self', 'cert-manager'"),
        ({"replica": 2}, "'replica'"),
    ],
)
def test_a_mistake_in_the_values_is_told_by_helm_itself(helm: Helm, values: dict[str, Any], said: str) -> None:
    with pytest.raises(Failed) as failure:
        helm.template(values)
    assert said in str(failure.value)
