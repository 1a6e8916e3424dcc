"""The virtual submitter creates what Apache Spark's own submission client was seen to create.

The recorded requests are those of ``spark-submit --deploy-mode cluster`` of the PyPI distributions, sent for ``pi.py``.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from muster.devcluster.submission_objects import (
    Identity,
    dns_name,
    driver_config_map,
    driver_pod,
    driver_service,
    network_policy,
    owner_reference,
    properties_of,
)
from muster.devcluster.virtual_application import VirtualApplication
from muster.spark.java_properties import parse

DATA = Path(__file__).parent / "data"
VERSIONS = ("3.5.9", "4.3.0")


def recorded(version: str) -> list[dict[str, Any]]:
    requests: list[dict[str, Any]] = json.loads((DATA / f"spark-submit-{version}.json").read_text())
    return requests


def body(version: str, kind: str) -> dict[str, Any]:
    (found,) = [request["body"] for request in recorded(version) if request["body"]["kind"] == kind]
    return dict(found)


def identity(version: str) -> Identity:
    pod = body(version, "Pod")
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in pod["spec"]["containers"][0]["volumeMounts"]}
    return Identity(
        application_id=pod["metadata"]["labels"]["spark-app-selector"],
        resource_prefix=pod["metadata"]["name"].removesuffix("-driver"),
        config_map=volumes["spark-conf-volume-driver"]["configMap"]["name"],
        local_dir=mounts["spark-local-dir-1"],
    )


def application(version: str) -> VirtualApplication:
    return VirtualApplication(
        "pi", namespace="spark", executors=2, executor_memory_mib=2048, python=True, spark_version=version
    )


def owner(version: str) -> dict[str, Any]:
    reference = body(version, "Service")["metadata"]["ownerReferences"][0]
    return owner_reference(identity(version).driver_pod, reference["uid"])


@pytest.mark.parametrize("version", VERSIONS)
def test_the_driver_pod_is_the_one_that_spark_creates(version: str) -> None:
    properties = properties_of(application(version), identity(version), "https://127.0.0.1", 0)
    ours = driver_pod(application(version), identity(version), properties, user="root")
    theirs = body(version, "Pod")
    # The program differs by intention, and the annotations that tell the virtual driver its work
    ours["metadata"].pop("annotations")
    ours["spec"]["containers"][0]["args"][5:] = theirs["spec"]["containers"][0]["args"][5:]
    assert ours == theirs


@pytest.mark.parametrize("version", VERSIONS)
def test_the_driver_service_is_the_one_that_spark_creates(version: str) -> None:
    assert driver_service(application(version), identity(version), owner(version)) == body(version, "Service")


def test_the_network_policy_is_the_one_that_spark_creates_since_4_2() -> None:
    ours = network_policy(application("4.3.0"), identity("4.3.0"), owner("4.3.0"))
    assert ours == body("4.3.0", "NetworkPolicy")
    assert network_policy(application("3.5.9"), identity("3.5.9"), owner("3.5.9")) is None
    assert not [request for request in recorded("3.5.9") if request["body"]["kind"] == "NetworkPolicy"]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_config_map_has_the_form_and_the_properties_of_sparks(version: str) -> None:
    theirs = body(version, "ConfigMap")
    properties = parse(theirs["data"]["spark.properties"])
    written = theirs["data"]["spark.properties"].splitlines()[1].removeprefix("#")
    ours = driver_config_map(application(version), identity(version), owner(version), properties, written)
    assert ours == theirs


@pytest.mark.parametrize("version", VERSIONS)
def test_the_properties_say_what_sparks_say(version: str) -> None:
    theirs = parse(body(version, "ConfigMap")["data"]["spark.properties"])
    ours = properties_of(
        application(version), identity(version), theirs["spark.master"].removeprefix("k8s://"), 1795580058909
    )
    size = {"spark.executor.memory"}  # 2g there, 2048m here
    expected = {key: value for key, value in theirs.items() if key not in size | {"spark.app.submitTime"}}
    assert {key: ours.get(key) for key in expected} == expected


@pytest.mark.parametrize("version", VERSIONS)
def test_identities_are_made_as_spark_makes_them(version: str) -> None:
    ours, theirs = Identity.of("pi"), identity(version)

    def form(text: str) -> str:
        return re.sub(r"[0-9a-f]", "x", text)

    for field in ("application_id", "resource_prefix", "config_map", "local_dir"):
        assert form(getattr(ours, field)) == form(getattr(theirs, field))


def test_names_are_made_fit_for_dns() -> None:
    # KubernetesConf.getResourceNamePrefix: everything else becomes one dash, a digit in front an x
    assert dns_name("Spark Pi: 100%") == "spark-pi-100"
    assert dns_name("2024 Report") == "x024-report"
