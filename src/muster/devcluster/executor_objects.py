"""The objects that a driver creates for its executors, as Spark 3.5 to 4.3 writes them.

Sources: ``BasicExecutorFeatureStep``, ``KubernetesClientUtils.buildConfigMap``, and requests recorded from both.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from muster.devcluster.submission_objects import (
    BLOCK_MANAGER_PORT,
    DRIVER_PORT,
    container_resources,
    dns_name,
    label_value,
    properties_file,
)
from muster.devcluster.virtual_application import minor
from muster.spark.names import (
    CONF_DIR,
    DEFAULT_RESOURCE_PROFILE_ID,
    ENV_APPLICATION_ID,
    ENV_CONF_DIR,
    ENV_DRIVER_URL,
    ENV_EXECUTOR_CORES,
    ENV_EXECUTOR_ID,
    ENV_EXECUTOR_MEMORY,
    ENV_EXECUTOR_POD_IP,
    ENV_EXECUTOR_POD_NAME,
    ENV_JAVA_OPT_PREFIX,
    ENV_LOCAL_DIRS,
    ENV_RESOURCE_PROFILE_ID,
    ENV_USER,
    EXECUTOR_CONF_VOLUME,
    EXECUTOR_CONTAINER,
    PROPERTIES_KEY,
    SPARK_APP_NAME_LABEL,
    SPARK_APP_SELECTOR_LABEL,
    SPARK_EXEC_ID_LABEL,
    SPARK_EXEC_RESOURCE_PROFILE_LABEL,
    SPARK_ROLE_EXECUTOR,
    SPARK_ROLE_LABEL,
    SPARK_VERSION_LABEL,
)
from muster.spark.sizes import executor_size

Object = dict[str, Any]

# org.apache.spark.launcher.JavaModuleOptions
_OPENED = (
    "java.base/java.lang",
    "java.base/java.lang.invoke",
    "java.base/java.lang.reflect",
    "java.base/java.io",
    "java.base/java.net",
    "java.base/java.nio",
    "java.base/java.util",
    "java.base/java.util.concurrent",
    "java.base/java.util.concurrent.atomic",
    "java.base/jdk.internal.ref",
    "java.base/sun.nio.ch",
    "java.base/sun.nio.cs",
    "java.base/sun.security.action",
    "java.base/sun.util.calendar",
    "java.security.jgss/sun.security.krb5",
)
_PORTS = ("-Dspark.driver.port=7078", "-Dspark.driver.blockManager.port=7079")

_LABEL = "spark.kubernetes.executor.label."
_ANNOTATION = "spark.kubernetes.executor.annotation."
_SELECTORS = ("spark.kubernetes.node.selector.", "spark.kubernetes.executor.node.selector.")


class ExecutorTemplate(msgspec.Struct, frozen=True):
    """What all executors of a driver have in common."""

    application_id: str
    application_name: str
    namespace: str
    version: str
    prefix: str
    """``<name>-<16 hex digits>``, another one than the driver's."""
    config_map: str
    driver_ip: str
    driver_url: str
    owner: Object
    properties: Mapping[str, str]
    local_dir: str
    user: str = "spark"

    @property
    def conf_labels(self) -> dict[str, str]:
        return {SPARK_APP_SELECTOR_LABEL: self.application_id, SPARK_ROLE_LABEL: SPARK_ROLE_EXECUTOR}


def random_token() -> str:
    """The 16 hex digits with which Spark makes names unique (``KubernetesUtils.uniqueID``)."""
    return secrets.token_hex(8)


def executor_template(
    properties: Mapping[str, str],
    version: str,
    owner: Object,
    driver_ip: str,
    local_dir: str,
    token: Callable[[], str] = random_token,
) -> ExecutorTemplate:
    """Of a driver with these ``spark.properties``; each ``token`` makes a name unique."""
    name = properties["spark.app.name"]
    # SPARK-53944: since 4.1 executors dial the driver's address
    host = driver_ip if minor(version) >= (4, 1) else properties["spark.driver.host"]
    return ExecutorTemplate(
        application_id=properties["spark.app.id"],
        application_name=name,
        namespace=properties["spark.kubernetes.namespace"],
        version=version,
        prefix=properties.get("spark.kubernetes.executor.podNamePrefix") or f"{dns_name(name)}-{token()}",
        config_map=f"spark-exec-{token()}-conf-map",
        driver_ip=driver_ip,
        driver_url=f"spark://CoarseGrainedScheduler@{host}:{DRIVER_PORT}",
        owner=owner,
        properties=properties,
        local_dir=local_dir,
    )


def executor_config_map(template: ExecutorTemplate, written: str) -> Object:
    """``written`` is the date in the comment of the file."""
    text = properties_file(template.config_map, {"spark.kubernetes.namespace": template.namespace}, written)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": template.config_map,
            "namespace": template.namespace,
            "labels": template.conf_labels,
            "ownerReferences": [template.owner],
        },
        "data": {PROPERTIES_KEY: text, "spark.kubernetes.namespace": template.namespace},
        "immutable": True,
    }


def executor_pod(template: ExecutorTemplate, executor: int) -> Object:
    """The pod of one executor of the default resource profile."""
    properties = template.properties
    version = minor(template.version)
    name = f"{template.prefix}-exec-{executor}"
    size = executor_size(properties, template.version)
    assert size.memory is not None  # sizes from properties always say what the memory is made of
    container: Object = {
        "name": EXECUTOR_CONTAINER,
        "image": properties["spark.kubernetes.container.image"],
        "imagePullPolicy": "IfNotPresent",
        "args": [SPARK_ROLE_EXECUTOR],
        "env": [
            {"name": ENV_USER, "value": template.user},
            {"name": ENV_DRIVER_URL, "value": template.driver_url},
            {"name": ENV_EXECUTOR_CORES, "value": properties.get("spark.executor.cores", "1")},
            {"name": ENV_EXECUTOR_MEMORY, "value": f"{size.memory.heap_mib}m"},
            {"name": ENV_APPLICATION_ID, "value": template.application_id},
            {"name": ENV_CONF_DIR, "value": CONF_DIR},
            {"name": ENV_EXECUTOR_ID, "value": str(executor)},
            {"name": ENV_RESOURCE_PROFILE_ID, "value": str(DEFAULT_RESOURCE_PROFILE_ID)},
            {"name": "SPARK_DRIVER_POD_IP", "value": template.driver_ip},
            *(
                {"name": f"{ENV_JAVA_OPT_PREFIX}{number}", "value": option}
                for number, option in enumerate(java_options(version))
            ),
            _field(ENV_EXECUTOR_POD_IP, "status.podIP"),
            _field(ENV_EXECUTOR_POD_NAME, "metadata.name"),
            {"name": ENV_LOCAL_DIRS, "value": template.local_dir},
        ],
        "ports": [{"containerPort": BLOCK_MANAGER_PORT, "name": "blockmanager", "protocol": "TCP"}],
        "resources": container_resources(size),
        "volumeMounts": [
            {"mountPath": CONF_DIR, "name": EXECUTOR_CONF_VOLUME},
            {"mountPath": template.local_dir, "name": "spark-local-dir-1"},
        ],
    }
    if version >= (4, 3):
        container["securityContext"] = {"allowPrivilegeEscalation": False}
    if version >= (4, 2):
        container["resizePolicy"] = [
            {"resourceName": resource, "restartPolicy": "NotRequired"} for resource in ("cpu", "memory")
        ]
    spec: Object = {
        "containers": [container],
        "hostname": name[-63:].lstrip("-."),
        "restartPolicy": "Never",
        "volumes": [
            {"configMap": {"name": template.config_map}, "name": EXECUTOR_CONF_VOLUME},
            {"emptyDir": {}, "name": "spark-local-dir-1"},
        ],
    }
    if account := properties.get("spark.kubernetes.authenticate.driver.serviceAccountName"):
        # BasicExecutorFeatureStep: executors run as the driver does unless told otherwise
        spec |= {"serviceAccount": account, "serviceAccountName": account}
    if version >= (4, 1):
        spec["terminationGracePeriodSeconds"] = 30
    if scheduler := properties.get("spark.kubernetes.scheduler.name"):
        spec["schedulerName"] = scheduler
    if selector := _prefixed(properties, *_SELECTORS):
        spec["nodeSelector"] = selector
    labels = _prefixed(properties, _LABEL) | {
        SPARK_VERSION_LABEL: template.version,
        SPARK_EXEC_ID_LABEL: str(executor),
        SPARK_APP_SELECTOR_LABEL: template.application_id,
        SPARK_APP_NAME_LABEL: label_value(template.application_name),
        SPARK_ROLE_LABEL: SPARK_ROLE_EXECUTOR,
        SPARK_EXEC_RESOURCE_PROFILE_LABEL: str(DEFAULT_RESOURCE_PROFILE_ID),
    }
    metadata: Object = {"name": name, "labels": labels, "ownerReferences": [template.owner]}
    if annotations := _prefixed(properties, _ANNOTATION):
        metadata["annotations"] = annotations
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def java_options(version: tuple[int, int]) -> list[str]:
    """The JVM flags that drivers of 3.5 and 4.3 give their executors; versions between are taken for 4.3."""
    opened = [f"--add-opens={package}=ALL-UNNAMED" for package in _OPENED]
    always = ["-Djava.net.preferIPv6Addresses=false", "-XX:+IgnoreUnrecognizedVMOptions"]
    if version < (4, 0):
        return [*always, *opened, "-Djdk.reflect.useDirectMethodHandle=false", *reversed(_PORTS)]
    return [
        *always,
        "--add-modules=jdk.incubator.vector",
        *opened,
        "-Dio.netty.tryReflectionSetAccessible=true",
        "-Dio.netty.allocator.type=pooled",
        "-Dio.netty.handler.ssl.defaultEndpointVerificationAlgorithm=NONE",
        "--sun-misc-unsafe-memory-access=allow",
        "--enable-native-access=ALL-UNNAMED",
        *_PORTS,
    ]


def _field(name: str, path: str) -> Object:
    return {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}


def _prefixed(properties: Mapping[str, str], *prefixes: str) -> dict[str, str]:
    """The properties under these prefixes, without them."""
    return {
        key.removeprefix(prefix): value
        for prefix in prefixes
        for key, value in properties.items()
        if key.startswith(prefix)
    }
