"""An application's gang from its driver pod and the ConfigMap that spark-submit writes beside it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from muster.cluster.constraints import Requirement, Term, Toleration
from muster.control.discovery import ConfigurationMissing, application_of
from muster.kube import objects as k
from muster.queueing.rules import Rule
from muster.scheduling.model import Application
from muster.spark.errors import SparkConfigurationError
from tests.control.spark_pods import APPLICATION, driver_pod

MI = 2**20


def found(properties: str | None, driver: dict[str, Any] | None = None, rules: tuple[Rule, ...] = ()) -> Application:
    pod: k.Pod = msgspec.json.decode(msgspec.json.encode(driver or driver_pod()), type=k.Pod)
    return application_of(pod, properties, "muster.dev/pool", frozenset({"default-scheduler"}), rules)


def test_a_static_application() -> None:
    application = found(
        "#Java properties built from Kubernetes config map with name: spark-drv-4a1b0f8c9d2e3f40-conf-map\n"
        "spark.executor.instances=3\nspark.executor.memory=8g\nspark.executor.cores=4\n"
        "spark.hadoop.fs.s3a.secret.key=AKIA-not-to-be-kept\n"
    )
    assert application.key == f"team-a/{APPLICATION}"
    assert application.name == "spark-pi"
    assert (application.minimum, application.maximum) == (3, 3)
    assert application.driver is not None
    assert application.driver.requests.get("memory") == 1408 * MI
    executor = application.executor.requests
    assert (executor.get("cpu"), executor.get("memory")) == (4000, 9011 * MI), "8 GiB + 10 %, Spark's own sum"
    assert "AKIA" not in repr(application)


def test_a_dynamic_application_without_ceiling() -> None:
    application = found("spark.dynamicAllocation.enabled=true\nspark.dynamicAllocation.minExecutors=1\n")
    assert (application.minimum, application.maximum) == (1, None)


def test_an_empty_configuration_is_sparks_default_of_two_executors() -> None:
    assert found("").minimum == 2


def test_executors_follow_their_own_node_selector_and_the_drivers_template() -> None:
    driver = driver_pod()
    affinity = [{"matchExpressions": [{"key": "arch", "operator": "In", "values": ["arm64"]}]}]
    driver["spec"] |= {
        "nodeSelector": {"muster.dev/pool": "drivers"},
        "tolerations": [{"key": "spark", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {
            "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": affinity}}
        },
    }
    application = found(
        "spark.kubernetes.node.selector.disk=nvme\n"
        "spark.kubernetes.driver.node.selector.muster.dev/pool=drivers\n"
        "spark.kubernetes.executor.node.selector.muster.dev/pool=etl\n",
        driver,
    )
    constraints = application.executor.constraints
    assert constraints.node_selector == (("disk", "nvme"), ("muster.dev/pool", "etl"))
    assert constraints.terms == (Term((Requirement("arch", "In", ("arm64",)),)),)
    assert constraints.tolerations == (Toleration("spark", "Exists", "", "NoSchedule"),)
    assert application.pool == "drivers"


def test_annotations_override_the_configuration() -> None:
    driver = driver_pod()
    driver["metadata"]["annotations"] = {"muster.dev/executor-count": "5", "muster.dev/queue": "etl"}
    application = found("spark.executor.instances=3\n", driver)
    assert (application.minimum, application.maximum, application.queue) == (5, 5, "etl")


def test_who_it_is_for_how_urgent_it_is_and_how_long_it_runs_come_from_the_driver() -> None:
    driver = driver_pod()
    driver["spec"]["priority"] = 700
    driver["metadata"]["annotations"] = {
        "muster.dev/user": "alice@example.com",
        "muster.dev/groups": "data,ml",
        "muster.dev/expected-run-time": "1h30m",
    }
    application = found("spark.executor.instances=3\n", driver)
    assert (application.user, application.groups) == ("alice@example.com", ("data", "ml"))
    assert (application.priority, application.run_seconds) == (700, 5400)


def test_a_run_time_that_makes_no_sense_costs_nothing_but_the_estimate() -> None:
    driver = driver_pod()
    driver["metadata"]["annotations"] = {"muster.dev/expected-run-time": "soon"}
    application = found("spark.executor.instances=3\n", driver)
    assert (application.minimum, application.run_seconds) == (3, None)


RULES = (Rule("people-{user}", user="al*"), Rule("{namespace}", namespace="team-*", service_account="spark"))


@pytest.mark.parametrize(
    ("labels", "annotations", "queue"),
    [
        ({}, {}, "team-a"),
        ({}, {"muster.dev/user": "alice"}, "people-alice"),
        ({"muster.dev/queue": "labelled"}, {"muster.dev/user": "alice"}, "labelled"),
        ({"muster.dev/queue": "labelled"}, {"muster.dev/queue": "annotated"}, "annotated"),
        ({"queue": "root.etl.nightly"}, {}, "nightly"),
        ({}, {"yunikorn.apache.org/queue": "root.etl.nightly"}, "nightly"),
        ({}, {"muster.dev/queue": "q" * 10_000}, "q" * 253),
    ],
)
def test_the_queue_is_what_the_driver_says_or_else_what_a_rule_says(
    labels: dict[str, str], annotations: dict[str, str], queue: str
) -> None:
    driver = driver_pod()
    driver["spec"]["serviceAccountName"] = "spark"
    driver["metadata"]["labels"] |= labels
    driver["metadata"]["annotations"] = annotations
    assert found("spark.executor.instances=3\n", driver, RULES).queue == queue
    assert found("spark.executor.instances=3\n").queue == "default"


def test_annotations_are_enough_without_a_config_map() -> None:
    driver = driver_pod()
    driver["metadata"]["annotations"] = {
        "spark-driver-cpu": "1",
        "spark-driver-mem": "1408Mi",
        "spark-executor-cpu": "2",
        "spark-executor-mem": "6758Mi",
        "spark-executor-count": "4",
    }
    application = found(None, driver)
    assert application.minimum == 4
    assert application.executor.requests.get("memory") == 6758 * MI


def test_a_driver_that_says_nothing_has_no_sizes() -> None:
    with pytest.raises(ConfigurationMissing):
        found(None)


@pytest.mark.parametrize(
    ("properties", "annotations", "named"),
    [
        ("spark.executor.instances=-1", {}, "spark.executor.instances"),
        ("spark.executor.instances=2.5", {}, "spark.executor.instances"),
        ("spark.executor.instances=99999999999999", {}, "spark.executor.instances"),
        ("spark.executor.memory=4q7", {}, "spark.executor.memory"),
        ("spark.kubernetes.executor.request.cores=lots", {}, "spark.kubernetes.executor.request.cores"),
        ("spark.executor.memory=\\u00zz", {}, "line 1"),
        ("", {"muster.dev/executor-count": "many"}, "muster.dev/executor-count"),
        ("spark.executor.instances=3", {"spark-executor-count": "many"}, "spark-executor-count"),
    ],
)
def test_bad_sizes_name_the_property_and_never_its_value(
    properties: str, annotations: dict[str, str], named: str
) -> None:
    driver = driver_pod()
    if "spark-executor-count" in annotations:
        annotations = {
            "spark-driver-cpu": "1",
            "spark-driver-mem": "1408Mi",
            "spark-executor-cpu": "1",
            "spark-executor-mem": "1408Mi",
        } | annotations
    driver["metadata"]["annotations"] = annotations
    with pytest.raises(SparkConfigurationError) as failure:
        found(properties, driver)
    assert named in failure.value.message or "ExecutorCount" in failure.value.message
    assert failure.value.reason.isalnum()
    for secret in ("4q7", "lots", "99999999999999", "zz"):
        assert secret not in failure.value.message


def test_two_sources_that_disagree_are_both_named() -> None:
    driver = driver_pod()
    driver["metadata"]["annotations"] = {
        "spark-driver-cpu": "1",
        "spark-driver-mem": "1408Mi",
        "spark-executor-cpu": "1",
        "spark-executor-mem": "1408Mi",
        "spark-executor-count": "7",
    }
    with pytest.raises(SparkConfigurationError) as failure:
        found("spark.executor.instances=3\n", driver)
    assert failure.value.reason == "SourcesDisagree"
