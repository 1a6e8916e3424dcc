"""The objects that spark-submit creates in cluster mode, byte for byte as Spark 3.5 to 4.3 writes them.

Sources: ``KubernetesClientApplication``, ``BasicDriverFeatureStep``, ``DriverServiceFeatureStep``,
``NetworkPolicyFeatureStep``, ``KubernetesClientUtils``, and requests recorded from both versions.
"""

from __future__ import annotations

import re
import secrets
import uuid
from collections.abc import Mapping
from typing import Any

import msgspec

from muster.devcluster.virtual_application import (
    EXIT_CODE,
    PARALLELISM,
    RUN_SECONDS,
    TAIL_SECONDS,
    VirtualApplication,
    minor,
)
from muster.spark.names import (
    CONF_DIR,
    DRIVER_CONF_VOLUME,
    DRIVER_CONTAINER,
    ENV_APPLICATION_ID,
    ENV_CONF_DIR,
    ENV_DRIVER_BIND_ADDRESS,
    ENV_LOCAL_DIRS,
    ENV_USER,
    PROPERTIES_KEY,
    SPARK_APP_NAME_LABEL,
    SPARK_APP_SELECTOR_LABEL,
    SPARK_ROLE_DRIVER,
    SPARK_ROLE_EXECUTOR,
    SPARK_ROLE_LABEL,
    SPARK_VERSION_LABEL,
)
from muster.spark.sizes import DEFAULT_OVERHEAD_FACTOR, PodSize, driver_size

Object = dict[str, Any]

DRIVER_PORT, BLOCK_MANAGER_PORT, UI_PORT, CONNECT_PORT = 7078, 7079, 4040, 15002


class Identity(msgspec.Struct, frozen=True):
    """What spark-submit makes up for one submission."""

    application_id: str
    resource_prefix: str
    """Prefix of the driver's pod, service and network policy: ``<name>-<16 hex digits>``."""
    config_map: str
    local_dir: str

    @classmethod
    def of(cls, name: str) -> Identity:
        """A new identity for an application of this name."""
        return cls(
            application_id=f"spark-{uuid.uuid4().hex}",
            resource_prefix=f"{dns_name(name)}-{secrets.token_hex(8)}",
            config_map=f"spark-drv-{secrets.token_hex(8)}-conf-map",
            local_dir=f"/var/data/spark-{uuid.uuid4()}",
        )

    @property
    def driver_pod(self) -> str:
        return f"{self.resource_prefix}-driver"

    @property
    def driver_service(self) -> str:
        return f"{self.resource_prefix}-driver-svc"


def dns_name(name: str) -> str:
    """The application's name as Spark puts it into object names (``KubernetesConf.getResourceNamePrefix``)."""
    cleaned = re.sub(r"-+", "-", re.sub(r"[^a-z0-9-]", "-", name.strip().lower()))
    return re.sub(r"^[0-9]", "x", cleaned.removeprefix("-")).removesuffix("-")


def label_value(name: str) -> str:
    """The application's name as label (``KubernetesConf.getAppNameLabel``): at most 63 characters."""
    cleaned = re.sub(r"-+", "-", re.sub(r"[^a-z0-9\-]", "-", name.strip().lower()))
    return cleaned[:63].strip("-")


def driver_labels(application: VirtualApplication, identity: Identity) -> dict[str, str]:
    return application.driver_labels | {
        SPARK_VERSION_LABEL: application.spark_version,
        SPARK_APP_SELECTOR_LABEL: identity.application_id,
        SPARK_APP_NAME_LABEL: label_value(application.name),
        SPARK_ROLE_LABEL: SPARK_ROLE_DRIVER,
    }


def driver_pod(
    application: VirtualApplication, identity: Identity, properties: Mapping[str, str], user: str = "spark"
) -> Object:
    """The driver pod: the first object of an application, and the only one that knows nothing of its executors.

    Raises ``InvalidSizeError`` for properties that spark-submit would refuse.
    """
    version = minor(application.spark_version)
    container: Object = {
        "name": DRIVER_CONTAINER,
        "image": f"spark:{application.spark_version}",
        "imagePullPolicy": "IfNotPresent",
        "args": [
            SPARK_ROLE_DRIVER,
            "--properties-file",
            f"{CONF_DIR}/{PROPERTIES_KEY}",
            "--class",
            "org.apache.spark.deploy.PythonRunner" if application.python else "org.apache.spark.examples.SparkPi",
            "local:///opt/spark/work-dir/main.py" if application.python else "local:///opt/spark/work-dir/main.jar",
        ],
        "env": [
            {"name": ENV_USER, "value": user},
            {"name": ENV_APPLICATION_ID, "value": identity.application_id},
            {
                "name": ENV_DRIVER_BIND_ADDRESS,
                "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}},
            },
            {"name": ENV_LOCAL_DIRS, "value": identity.local_dir},
            {"name": ENV_CONF_DIR, "value": CONF_DIR},
        ],
        "ports": [
            {"containerPort": port, "name": name, "protocol": "TCP"} for name, port in _driver_ports(version).items()
        ],
        "resources": container_resources(driver_size(properties, application.spark_version)),
        "volumeMounts": [
            {"mountPath": identity.local_dir, "name": "spark-local-dir-1"},
            {"mountPath": CONF_DIR, "name": DRIVER_CONF_VOLUME},
        ],
    }
    if version >= (4, 3):
        container["securityContext"] = {"allowPrivilegeEscalation": False}
    spec: Object = {
        "containers": [container],
        "restartPolicy": "Never",
        "serviceAccount": application.service_account,
        "serviceAccountName": application.service_account,
        "volumes": [
            {"emptyDir": {}, "name": "spark-local-dir-1"},
            {
                "configMap": {
                    "items": [{"key": PROPERTIES_KEY, "mode": 420, "path": PROPERTIES_KEY}],
                    "name": identity.config_map,
                },
                "name": DRIVER_CONF_VOLUME,
            },
        ],
    }
    if application.node_selector:
        spec["nodeSelector"] = dict(application.node_selector)
    if application.scheduler_name:
        spec["schedulerName"] = application.scheduler_name
    metadata: Object = {"name": identity.driver_pod, "labels": driver_labels(application, identity)}
    if annotations := application.driver_annotations | work_annotations(application):
        metadata["annotations"] = annotations
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def container_resources(size: PodSize) -> Object:
    """As Spark writes a pod's size: memory in MiB on both sides, extended resources as limits alone."""
    assert size.memory is not None  # sizes from properties always say what the memory is made of
    memory = f"{size.memory.total_mib}Mi"
    return {
        "limits": size.limits.quantities() | {"memory": memory},
        "requests": {"cpu": size.requests.quantities()["cpu"], "memory": memory},
    }


def work_annotations(application: VirtualApplication) -> dict[str, str]:
    """How the virtual driver knows its work; real Spark would find it in its program."""
    annotations = {RUN_SECONDS: f"{application.run_seconds:g}", PARALLELISM: str(application.widest)}
    if application.tail_seconds:
        annotations[TAIL_SECONDS] = f"{application.tail_seconds:g}"
    if application.exit_code:
        annotations[EXIT_CODE] = str(application.exit_code)
    return annotations


def driver_service(application: VirtualApplication, identity: Identity, owner: Object) -> Object:
    """The headless service of the driver."""
    ports = [{"name": name, "port": port, "targetPort": port} for name, port in _service_ports(application)]
    for port in ports:
        if port["name"] == "spark-connect":
            port["appProtocol"] = "grpc"
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _owned(identity.driver_service, application, owner, labelled=identity, namespaced=False),
        "spec": {
            "clusterIP": "None",
            "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
            "ports": ports,
            "selector": driver_labels(application, identity),
        }
        | ({"publishNotReadyAddresses": False} if minor(application.spark_version) >= (4, 1) else {}),
    }


def network_policy(application: VirtualApplication, identity: Identity, owner: Object) -> Object | None:
    """Since 4.2: executors talk to their own application only."""
    if minor(application.spark_version) < (4, 2):
        return None
    own = {SPARK_APP_SELECTOR_LABEL: identity.application_id}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _owned(f"{identity.resource_prefix}-policy", application, owner, labelled=identity),
        "spec": {
            "ingress": [{"from": [{"podSelector": {"matchLabels": own}}]}],
            "podSelector": {"matchLabels": {SPARK_ROLE_LABEL: SPARK_ROLE_EXECUTOR} | own},
        },
    }


def driver_config_map(
    application: VirtualApplication, identity: Identity, owner: Object, properties: Mapping[str, str], written: str
) -> Object:
    """The ConfigMap with ``spark.properties``; ``written`` is the date in the comment of the file."""
    text = properties_file(identity.config_map, properties, written)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _owned(identity.config_map, application, owner),
        "data": {PROPERTIES_KEY: text, "spark.kubernetes.namespace": application.namespace},
        "immutable": True,
    }


def properties_file(config_map: str, properties: Mapping[str, str], written: str) -> str:
    """The text of ``spark.properties`` in a ConfigMap (``KubernetesClientUtils.buildStringFromPropertiesMap``)."""
    lines = [f"#Java properties built from Kubernetes config map with name: {config_map}", f"#{written}"]
    lines += [f"{escape(key)}={escape_value(value)}" for key, value in properties.items()]
    return "\n".join(lines) + "\n"


def properties_of(application: VirtualApplication, identity: Identity, master: str, submitted: int) -> dict[str, str]:
    """The properties of the driver; ``submitted`` in milliseconds since the epoch."""
    properties = {
        "spark.master": f"k8s://{master}",
        "spark.app.name": application.name,
        "spark.app.id": identity.application_id,
        "spark.app.submitTime": str(submitted),
        "spark.submit.deployMode": "cluster",
        "spark.submit.pyFiles": "",
        "spark.driver.host": f"{identity.driver_service}.{application.namespace}.svc",
        "spark.driver.port": str(DRIVER_PORT),
        "spark.driver.blockManager.port": str(BLOCK_MANAGER_PORT),
        "spark.driver.memory": f"{application.driver_memory_mib}m",
        "spark.driver.cores": str(application.driver_cores),
        "spark.executor.memory": f"{application.executor_memory_mib}m",
        "spark.executor.cores": str(application.executor_cores),
        "spark.executor.instances": str(application.executors),
        "spark.kubernetes.namespace": application.namespace,
        "spark.kubernetes.container.image": f"spark:{application.spark_version}",
        "spark.kubernetes.driver.pod.name": identity.driver_pod,
        "spark.kubernetes.authenticate.driver.serviceAccountName": application.service_account,
        "spark.kubernetes.resource.type": "python" if application.python else "java",
        "spark.kubernetes.submitInDriver": "true",
        "spark.kubernetes.memoryOverheadFactor": f"{overhead_factor(application):g}",
        "spark.kubernetes.submission.waitAppCompletion": "false",
    }
    if application.dynamic:
        properties |= {
            "spark.dynamicAllocation.enabled": "true",
            "spark.dynamicAllocation.minExecutors": str(application.min_executors),
        }
        if application.max_executors is not None:
            properties["spark.dynamicAllocation.maxExecutors"] = str(application.max_executors)
    if application.scheduler_name:
        properties["spark.kubernetes.scheduler.name"] = application.scheduler_name
    for kind, values in (
        ("executor.label", application.executor_labels),
        ("executor.annotation", application.executor_annotations),
        ("driver.label", application.driver_labels),
        ("driver.annotation", application.driver_annotations),
        ("node.selector", application.node_selector),
    ):
        properties |= {f"spark.kubernetes.{kind}.{key}": value for key, value in values.items()}
    return properties | application.properties


def overhead_factor(application: VirtualApplication) -> float:
    """The submitter's ``spark.kubernetes.memoryOverheadFactor``: 0.1, for Python 0.4 (``NON_JVM_MEMORY_OVERHEAD``)."""
    return 0.4 if application.python else DEFAULT_OVERHEAD_FACTOR


def owner_reference(pod: str, uid: str) -> Object:
    """As Spark writes it: everything of an application belongs to its driver pod."""
    return {"apiVersion": "v1", "kind": "Pod", "controller": True, "name": pod, "uid": uid}


def escape(key: str) -> str:
    """A key as ``java.util.Properties.store`` writes it (ASCII)."""
    return re.sub(r"([\\:=#! ])", r"\\\1", key)


def escape_value(value: str) -> str:
    """A value as ``java.util.Properties.store`` writes it (ASCII)."""
    escaped = re.sub(r"([\\:=#!])", r"\\\1", value).replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")
    return "\\" + escaped if escaped.startswith(" ") else escaped


def _driver_ports(version: tuple[int, int]) -> dict[str, int]:
    ports = {"driver-rpc-port": DRIVER_PORT, "blockmanager": BLOCK_MANAGER_PORT, "spark-ui": UI_PORT}
    return ports | ({"spark-connect": CONNECT_PORT} if version >= (4, 1) else {})


def _service_ports(application: VirtualApplication) -> list[tuple[str, int]]:
    return list(_driver_ports(minor(application.spark_version)).items())


def _owned(
    name: str,
    application: VirtualApplication,
    owner: Object,
    labelled: Identity | None = None,
    namespaced: bool = True,
) -> Object:
    metadata: Object = {"name": name, "ownerReferences": [owner]}
    if namespaced:
        metadata["namespace"] = application.namespace
    if labelled is not None:
        metadata["labels"] = {SPARK_APP_SELECTOR_LABEL: labelled.application_id}
    return metadata
