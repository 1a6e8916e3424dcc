"""``muster manifests --extender``: what Kubernetes accepts, a configuration that loads, and images that just start."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from muster.cli import main as muster
from muster.control.extender.configuration import parse
from muster.control.extender.manifests import ExtenderOptions, extender_manifests, install_document
from tests.kube.test_manifests_and_definitions import schema_for

ROOT = Path(__file__).parents[2]
OBJECTS = extender_manifests()


def one(kind: str, objects: list[dict[str, Any]] = OBJECTS) -> dict[str, Any]:
    [found] = [each for each in objects if each["kind"] == kind]
    return found


@pytest.mark.parametrize("manifest", OBJECTS, ids=lambda m: f"{m['kind']}-{m['metadata']['name']}")
def test_every_object_is_valid(manifest: dict[str, Any]) -> None:
    jsonschema.validate(manifest, schema_for(manifest))


def test_the_configuration_is_read_without_complaint_and_the_teams_own_keys_stay() -> None:
    own = {
        "binpack": "single-az-tightly-pack",
        "server": {"port": 1, "address": "10.0.0.1", "cert-file": "old.crt"},
        "kube-config": "/root/.kube/config",
        "webhook-service-config": {"namespace": "x", "service-name": "old", "service-port": 1},
    }
    document = install_document(ExtenderOptions(namespace="jobs", install=own))
    loaded = parse(document, "install.yml")

    assert loaded.warnings == ()
    assert (loaded.install.binpack, loaded.install.server.address) == ("single-az-tightly-pack", "10.0.0.1")
    assert (loaded.install.server.port, loaded.install.kube_config) == (8483, "")
    assert loaded.install.webhook_service_config.namespace == "jobs"


def test_files_ports_and_names_fit_together() -> None:
    pod = one("Deployment")["spec"]["template"]["spec"]
    files = one("ConfigMap")["data"]
    install, scheduler = yaml.safe_load(files["install.yml"]), yaml.safe_load(files["kube-scheduler.yaml"])
    containers = {each["name"]: each for each in pod["containers"]}
    extender = containers["spark-scheduler-extender"]
    mounts = {mount["mountPath"] for mount in extender["volumeMounts"]}

    ports = {port["name"]: port["containerPort"] for port in extender["ports"]}
    assert ports == {"extender": install["server"]["port"], "management": install["server"]["management-port"]}
    for path in (install["server"]["cert-file"], install["server"]["key-file"], *install["server"]["client-ca-files"]):
        assert str(Path(path).parent) in mounts
    [asked] = scheduler["extenders"]
    assert asked["urlPrefix"] == f"https://localhost:{ports['extender']}{install['server']['context-path']}"
    assert asked["tlsConfig"]["caFile"] in install["server"]["client-ca-files"]
    assert extender["command"][-1] == "/etc/spark-scheduler/conf/install.yml"
    assert containers["kube-scheduler"]["command"][-1] == "--config=/etc/spark-scheduler/conf/kube-scheduler.yaml"
    webhook, service = install["webhook-service-config"], one("Service")
    assert (webhook["service-name"], webhook["namespace"]) == (service["metadata"]["name"], "spark")
    assert {port["port"]: port["targetPort"] for port in service["spec"]["ports"]}[
        webhook["service-port"]
    ] == "extender"


def test_nothing_is_administrator_of_the_cluster() -> None:
    bound = {each["roleRef"]["name"] for each in OBJECTS if each["kind"].endswith("Binding")}
    assert bound == {
        "spark-scheduler-extender",
        "system:kube-scheduler",
        "system:volume-scheduler",
        "extension-apiserver-authentication-reader",
        "spark-scheduler",
    }
    rules = [rule for each in OBJECTS if each["kind"] in ("Role", "ClusterRole") for rule in each["rules"]]
    assert not any("*" in [*rule["verbs"], *rule["resources"], *rule["apiGroups"]] for rule in rules)


def test_the_command_line_puts_in_what_it_is_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "install.yml").write_text("binpack: distribute-evenly\n")
    given = ["--namespace", "jobs", "--image", "mine:1", "--kube-scheduler-image", "ks:2", "--replicas", "3"]
    assert muster.main(["manifests", "--extender", "--config", str(tmp_path / "install.yml"), *given]) == 0

    objects = list(yaml.safe_load_all(capsys.readouterr().out))
    deployment = one("Deployment", objects)
    assert deployment["metadata"]["namespace"] == "jobs"
    assert deployment["spec"]["replicas"] == 3
    assert {each["image"] for each in deployment["spec"]["template"]["spec"]["containers"]} == {"mine:1", "ks:2"}
    assert yaml.safe_load(one("ConfigMap", objects)["data"]["install.yml"])["binpack"] == "distribute-evenly"


def test_a_mistake_in_the_configuration_is_told_before_anything_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "install.yml").write_text("binpack: loosely-pack\n")
    assert muster.main(["manifests", "--extender", "--config", str(tmp_path / "install.yml")]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert "binpack = 'loosely-pack'" in told.err


@pytest.mark.parametrize("program", ["spark-scheduler", "spark-scheduler-conversion-webhook"])
def test_the_images_start_as_the_archived_ones_did(program: str) -> None:
    """Their working directory, entry point and arguments (docker/Dockerfile of the archived repository)."""
    stages = (ROOT / "Dockerfile").read_text().split("\nFROM ")
    [stage] = [each for each in stages if each.partition("\n")[0] == f"runtime AS {program}"]
    said = dict(re.findall(r"^(WORKDIR|ENTRYPOINT|CMD) (.*)$", stage, re.MULTILINE))
    assert said == {
        "WORKDIR": f"/opt/palantir/services/{program}",
        "ENTRYPOINT": f'["{program}"]',
        "CMD": '["server"]',
    }
