"""A virtual driver creates the executor pods that Apache Spark's own driver was seen to create.

The recorded objects were created by real drivers of both versions on the process kubelet; what the API server adds to
a pod was taken off again.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from muster.devcluster.executor_objects import ExecutorTemplate, executor_config_map, executor_pod, executor_template
from muster.spark.java_properties import parse

DATA = Path(__file__).parent / "data"
VERSIONS = ("3.5.9", "4.3.0")


def recorded(version: str) -> dict[str, Any]:
    objects: dict[str, Any] = json.loads((DATA / f"spark-driver-{version}.json").read_text())
    return objects


def environment(pod: dict[str, Any]) -> dict[str, Any]:
    return {entry["name"]: entry for entry in pod["spec"]["containers"][0]["env"]}


def template(version: str) -> ExecutorTemplate:
    """The template of the recorded driver, with the names that it made up."""
    pod = recorded(version)["pod"]
    properties = parse(recorded(version)["driver_config_map"]["data"]["spark.properties"])
    # pi.py names itself, which no submitter can know
    properties["spark.app.name"] = pod["metadata"]["labels"]["spark-app-name"]
    properties["spark.kubernetes.executor.podNamePrefix"] = pod["metadata"]["name"].removesuffix("-exec-1")
    variables = environment(pod)
    made = executor_template(
        properties,
        version,
        pod["metadata"]["ownerReferences"][0],
        variables["SPARK_DRIVER_POD_IP"]["value"],
        variables["SPARK_LOCAL_DIRS"]["value"],
    )
    changes = {"config_map": recorded(version)["config_map"]["metadata"]["name"], "user": "root"}
    return ExecutorTemplate(**{name: getattr(made, name) for name in made.__struct_fields__} | changes)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_executor_pod_is_the_one_that_spark_creates(version: str) -> None:
    ours, theirs = executor_pod(template(version), 1), recorded(version)["pod"]
    # The order of the variables is that of a hash map in Spark
    assert environment(ours) == environment(theirs)
    for pod in (ours, theirs):
        del pod["spec"]["containers"][0]["env"]
    assert ours == {"apiVersion": "v1", "kind": "Pod"} | theirs


@pytest.mark.parametrize("version", VERSIONS)
def test_the_config_map_of_the_executors_is_the_one_that_spark_creates(version: str) -> None:
    theirs = recorded(version)["config_map"]
    written = theirs["data"]["spark.properties"].splitlines()[1].removeprefix("#")
    assert executor_config_map(template(version), written) == {"apiVersion": "v1", "kind": "ConfigMap"} | theirs
