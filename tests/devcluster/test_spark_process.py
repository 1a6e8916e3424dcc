"""Containers become processes: paths, environment, commands as the official Spark images run them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from muster.devcluster.spark_process import (
    Machine,
    PodFolder,
    decommissions_first,
    expand,
    hosts_file,
    plan,
    rewriter,
)
from muster.devcluster.volumes import Sources

DATA = Path(__file__).parent / "data"
FOLDER = PodFolder(Path("/pods/one"))
MACHINE = Machine(
    spark_home=Path("/dist/pyspark"),
    java="/usr/bin/java",
    api_server="https://127.0.0.1:6443",
    environment={"PATH": "/bin", "PYTHONPATH": "/ours"},
    java_options=("-XX:+UseSerialGC",),
)
ACCOUNT_MOUNT = {"mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "name": "kube-api-access-x"}


def driver_pod(version: str = "4.3.0") -> dict[str, Any]:
    """As spark-submit creates it, then with its service account's volume and its address."""
    pod: dict[str, Any] = json.loads((DATA / f"spark-submit-{version}.json").read_text())[0]["body"]
    pod["metadata"] |= {"namespace": "spark", "uid": "u"}
    pod["spec"]["containers"][0]["volumeMounts"].append(ACCOUNT_MOUNT)
    pod["spec"]["volumes"].append({"name": "kube-api-access-x", "projected": {"sources": []}})
    pod["status"] = {"podIP": "127.77.1.2"}
    return pod


def executor_pod() -> dict[str, Any]:
    environment = {
        "SPARK_DRIVER_URL": "spark://CoarseGrainedScheduler@127.77.1.2:7078",
        "SPARK_EXECUTOR_CORES": "2",
        "SPARK_EXECUTOR_MEMORY": "512m",
        "SPARK_APPLICATION_ID": "spark-1",
        "SPARK_CONF_DIR": "/opt/spark/conf",
        "SPARK_EXECUTOR_ID": "7",
        "SPARK_RESOURCE_PROFILE_ID": "0",
        "SPARK_JAVA_OPT_0": "-Dspark.driver.port=7078",
        "SPARK_JAVA_OPT_1": "-Dspark.local=/var/data/spark-x/tmp",
        "SPARK_LOCAL_DIRS": "/var/data/spark-x",
    }
    fields = {"SPARK_EXECUTOR_POD_IP": "status.podIP", "SPARK_EXECUTOR_POD_NAME": "metadata.name"}
    return {
        "metadata": {"name": "pi-exec-7", "namespace": "spark", "uid": "u", "labels": {"spark-version": "4.3.0"}},
        "spec": {
            "containers": [
                {
                    "name": "spark-kubernetes-executor",
                    "args": ["executor"],
                    "env": [{"name": name, "value": value} for name, value in environment.items()]
                    + [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()],
                    "volumeMounts": [
                        {"mountPath": "/var/data/spark-x", "name": "spark-local-dir-1"},
                        {"mountPath": "/opt/spark/conf", "name": "spark-conf-volume-exec"},
                    ],
                }
            ],
            "volumes": [{"name": "spark-local-dir-1", "emptyDir": {}}, {"name": "spark-conf-volume-exec"}],
        },
        "status": {"podIP": "127.77.1.3"},
    }


def test_a_driver_is_started_as_the_images_entrypoint_does() -> None:
    pod = driver_pod()
    made = plan(pod, pod["spec"]["containers"][0], FOLDER, MACHINE, Sources())
    assert made.command == (
        "/dist/pyspark/bin/spark-submit",
        "--conf",
        "spark.driver.bindAddress=127.77.1.2",
        "--conf",
        "spark.executorEnv.SPARK_DRIVER_POD_IP=127.77.1.2",
        "--deploy-mode",
        "client",
        "--properties-file",
        "/pods/one/volumes/spark-conf-volume-driver/spark.properties",
        "--class",
        "org.apache.spark.deploy.PythonRunner",
        "local:///dist/pyspark/examples/src/main/python/pi.py",
        "10",
    )
    assert made.folder == Path("/pods/one/work-dir")


def test_a_driver_finds_its_folders_address_and_credentials_in_the_environment() -> None:
    pod = driver_pod()
    environment = plan(pod, pod["spec"]["containers"][0], FOLDER, MACHINE, Sources()).environment
    assert environment["SPARK_HOME"] == "/dist/pyspark"
    assert environment["SPARK_CONF_DIR"] == "/pods/one/volumes/spark-conf-volume-driver"
    assert environment["SPARK_LOCAL_DIRS"] == "/pods/one/volumes/spark-local-dir-1"
    assert environment["SPARK_DRIVER_BIND_ADDRESS"] == environment["SPARK_LOCAL_IP"] == "127.77.1.2"
    assert environment["PYTHONPATH"] == "", "the environment of the kubelet itself must not leak in"
    account = "/pods/one/volumes/kube-api-access-x"
    assert environment["JAVA_TOOL_OPTIONS"].split() == [
        "-XX:+UseSerialGC",
        "-Dspark.kubernetes.driver.master=https://127.0.0.1:6443",
        f"-Dspark.kubernetes.authenticate.driver.mounted.oauthTokenFile={account}/token",
        f"-Dspark.kubernetes.authenticate.driver.mounted.caCertFile={account}/ca.crt",
    ]


def test_drivers_before_4_1_resolve_their_services_name_from_a_file() -> None:
    pod = driver_pod("3.5.9")
    environment = plan(pod, pod["spec"]["containers"][0], FOLDER, MACHINE, Sources()).environment
    assert "-Djdk.net.hosts.file=/pods/one/etc-hosts" in environment["JAVA_TOOL_OPTIONS"].split()


def test_an_executor_is_started_as_the_images_entrypoint_does() -> None:
    pod = executor_pod()
    made = plan(pod, pod["spec"]["containers"][0], FOLDER, MACHINE, Sources())
    assert " ".join(made.command) == (
        "/usr/bin/java -Dspark.driver.port=7078 -Dspark.local=/pods/one/volumes/spark-local-dir-1/tmp "
        "-Xms512m -Xmx512m "
        "-cp /pods/one/volumes/spark-conf-volume-exec:/dist/pyspark/jars/*:/pods/one/work-dir "
        "org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend "
        "--driver-url spark://CoarseGrainedScheduler@127.77.1.2:7078 --executor-id 7 --cores 2 --app-id spark-1 "
        "--hostname 127.77.1.3 --resourceProfileId 0 --podName pi-exec-7"
    )
    assert made.environment["JAVA_TOOL_OPTIONS"] == "-XX:+UseSerialGC"


def test_an_executor_that_dials_a_service_name_gets_the_hosts_file() -> None:
    pod = executor_pod()
    pod["spec"]["containers"][0]["env"][0]["value"] = "spark://CoarseGrainedScheduler@pi-driver-svc.spark.svc:7078"
    made = plan(pod, pod["spec"]["containers"][0], FOLDER, MACHINE, Sources())
    assert "-Djdk.net.hosts.file=/pods/one/etc-hosts" in made.environment["JAVA_TOOL_OPTIONS"]


def test_any_other_command_runs_as_it_is() -> None:
    container = {"name": "c", "command": ["sh", "-c"], "args": ["echo $(WORD) $$(WORD) $(UNKNOWN)"]}
    container["env"] = [{"name": "WORD", "value": "hello"}]  # type: ignore[list-item]
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [container]}, "status": {"podIP": "127.77.1.4"}}
    made = plan(pod, container, FOLDER, MACHINE, Sources())
    assert made.command == ("sh", "-c", "echo hello $(WORD) $(UNKNOWN)")


@pytest.mark.parametrize(
    ("text", "expected"),
    # third_party/forked/golang/expansion: the table of its own test
    [
        ("$(VAR_A)", "A"),
        ("$(VAR_A)-1", "A-1"),
        ("$(VAR_A)$(VAR_B)", "AB"),
        ("$(VAR_DNE)", "$(VAR_DNE)"),
        ("$$(VAR_A)", "$(VAR_A)"),
        ("$$$$(VAR_B)", "$$(VAR_B)"),
        ("$$$(VAR_A)", "$A"),
        ("f000-$$VAR_A", "f000-$VAR_A"),
        ("foo\\$(VAR_C)bar", "foo\\Cbar"),
    ],
)
def test_variables_are_expanded_as_kubernetes_does(text: str, expected: str) -> None:
    assert expand(text, {"VAR_A": "A", "VAR_B": "B", "VAR_C": "C"}) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/opt/spark/conf", "/v/conf"),
        ("/opt/spark/conf/log4j2.properties", "/v/conf/log4j2.properties"),
        ("local:///opt/spark/jars/a.jar,file:/opt/spark/jars/b.jar", "local:///home/jars/a.jar,file:/home/jars/b.jar"),
        ("-Dx=/opt/spark/conf:/opt/spark", "-Dx=/v/conf:/home"),
        ("/opt/sparkling", "/opt/sparkling"),
        ("/opt/spark/configuration", "/home/configuration"),
        ("/mnt/opt/spark/conf", "/mnt/opt/spark/conf"),
    ],
)
def test_whole_paths_are_rewritten_and_the_longest_wins(text: str, expected: str) -> None:
    assert rewriter({"/opt/spark": "/home", "/opt/spark/conf": "/v/conf"})(text) == expected


def test_the_hosts_file_names_localhost_the_pod_and_the_services() -> None:
    lines = hosts_file({"pi-driver-svc.spark.svc": "127.77.1.2"}, "pi-exec-1", "127.77.1.3").splitlines()
    assert [re.split(r"\s+", line) for line in lines] == [
        ["127.0.0.1", "localhost"],
        ["127.77.1.3", "pi-exec-1"],
        ["127.77.1.2", "pi-driver-svc.spark.svc"],
    ]


def test_sparks_decommission_hook_is_known_by_its_script() -> None:
    assert decommissions_first({"lifecycle": {"preStop": {"exec": {"command": ["/opt/decom.sh"]}}}})
    assert not decommissions_first({"lifecycle": {"preStop": {"exec": {"command": ["sleep", "5"]}}}})
    assert not decommissions_first({})
