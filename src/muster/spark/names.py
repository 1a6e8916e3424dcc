"""Names that Spark, Muster and the archived ``k8s-spark-scheduler`` write on Kubernetes objects.

Spark's own are those of ``org.apache.spark.deploy.k8s.Constants`` (3.5 to 4.3).
"""

from __future__ import annotations

from typing import Final

# --- Spark: labels of driver and executor pods ---------------------------------------------------------------------
SPARK_ROLE_LABEL: Final = "spark-role"
SPARK_ROLE_DRIVER: Final = "driver"
SPARK_ROLE_EXECUTOR: Final = "executor"
SPARK_APP_SELECTOR_LABEL: Final = "spark-app-selector"
"""The application id, ``spark-<32 hex digits>``."""
SPARK_APP_NAME_LABEL: Final = "spark-app-name"
SPARK_VERSION_LABEL: Final = "spark-version"
SPARK_EXEC_ID_LABEL: Final = "spark-exec-id"
"""A number; ``EXECID`` under the statefulset and deployment allocators until the executor has registered."""
SPARK_EXEC_RESOURCE_PROFILE_LABEL: Final = "spark-exec-resourceprofile-id"
SPARK_EXEC_INACTIVE_LABEL: Final = "spark-exec-inactive"

DEFAULT_RESOURCE_PROFILE_ID: Final = 0


def executor_id_of(pod_name: str) -> str:
    """Spark's id of the executor in a pod of the direct allocator; "" for a pod that is named otherwise.

    Source: ``BasicExecutorFeatureStep``, ``s"$executorPodNamePrefix-exec-${executorId}"``, 3.5 to 4.3.
    """
    number = pod_name.rpartition("-exec-")[2]
    return number if number.isascii() and number.isdigit() and number != pod_name else ""


# --- Spark: containers, volumes, the driver's ConfigMap ------------------------------------------------------------
DRIVER_CONTAINER: Final = "spark-kubernetes-driver"
EXECUTOR_CONTAINER: Final = "spark-kubernetes-executor"
DRIVER_CONF_VOLUME: Final = "spark-conf-volume-driver"
"""Volume of the driver pod that names the driver's ConfigMap."""
EXECUTOR_CONF_VOLUME: Final = "spark-conf-volume-exec"
CONF_DIR: Final = "/opt/spark/conf"
PROPERTIES_KEY: Final = "spark.properties"
"""Key of the driver's ConfigMap whose text ``muster.spark.properties`` reads."""

# --- Spark: environment of the containers --------------------------------------------------------------------------
ENV_APPLICATION_ID: Final = "SPARK_APPLICATION_ID"
ENV_CONF_DIR: Final = "SPARK_CONF_DIR"
ENV_DRIVER_BIND_ADDRESS: Final = "SPARK_DRIVER_BIND_ADDRESS"
ENV_DRIVER_URL: Final = "SPARK_DRIVER_URL"
ENV_EXECUTOR_CORES: Final = "SPARK_EXECUTOR_CORES"
ENV_EXECUTOR_ID: Final = "SPARK_EXECUTOR_ID"
ENV_EXECUTOR_MEMORY: Final = "SPARK_EXECUTOR_MEMORY"
ENV_EXECUTOR_POD_IP: Final = "SPARK_EXECUTOR_POD_IP"
ENV_EXECUTOR_POD_NAME: Final = "SPARK_EXECUTOR_POD_NAME"
ENV_LOCAL_DIRS: Final = "SPARK_LOCAL_DIRS"
ENV_RESOURCE_PROFILE_ID: Final = "SPARK_RESOURCE_PROFILE_ID"
ENV_SUBMIT_OPTIONS: Final = "SPARK_SUBMIT_OPTS"
"""JVM options of whatever ``spark-submit`` starts (``SparkSubmitCommandBuilder.buildSparkSubmitCommand``)."""
ENV_USER: Final = "SPARK_USER"
ENV_JAVA_OPT_PREFIX: Final = "SPARK_JAVA_OPT_"

# --- Muster: gate, annotations, labels -----------------------------------------------------------------------------
GROUP: Final = "muster.dev"
GANG_GATE: Final = "muster.dev/gang"
"""Scheduling gate of drivers and of held executors."""
POOL_LABEL: Final = "muster.dev/pool"
"""Default node label that names a node's pool."""

APPLICATION_ANNOTATION: Final = "muster.dev/application"
"""On pods: value of ``spark-app-selector``."""
SLOT_ANNOTATION: Final = "muster.dev/slot"
"""On executors: the node whose slot the pod took."""
EXTRA_ANNOTATION: Final = "muster.dev/extra"
"""On executors: ``"true"`` when the slot is above the minimum."""
MODE_ANNOTATION: Final = "muster.dev/mode"
"""On executors: ``bind``, ``pin`` or ``hold``."""

QUEUE_ANNOTATION: Final = "muster.dev/queue"
"""On drivers, also as a label."""
USER_ANNOTATION: Final = "muster.dev/user"
"""On drivers: who created it, written at admission over whatever the pod says."""
GROUPS_ANNOTATION: Final = "muster.dev/groups"
"""On drivers: that user's groups, separated by commas; ``,`` and ``%`` in a name are written ``%2C`` and ``%25``."""
EXPECTED_RUN_TIME_ANNOTATION: Final = "muster.dev/expected-run-time"
"""On drivers: how long the application will run, ``90m`` or seconds."""
EXECUTOR_COUNT_ANNOTATION: Final = "muster.dev/executor-count"
"""On a driver: static gang size. On executors of client mode: the gang's size."""
MIN_EXECUTORS_ANNOTATION: Final = "muster.dev/min-executors"
MAX_EXECUTORS_ANNOTATION: Final = "muster.dev/max-executors"
MAX_PENDING_EXECUTORS_ANNOTATION: Final = "muster.dev/max-pending-executors"
"""On a driver: how many executors it may have pending at a time; 0 = no limit of ours."""
DRIVER_CPU_ANNOTATION: Final = "muster.dev/driver-cpu"
DRIVER_MEMORY_ANNOTATION: Final = "muster.dev/driver-memory"
EXECUTOR_CPU_ANNOTATION: Final = "muster.dev/executor-cpu"
EXECUTOR_MEMORY_ANNOTATION: Final = "muster.dev/executor-memory"

# --- The archived k8s-spark-scheduler: annotations of drivers ------------------------------------------------------
ARCHIVED_SCHEDULER_NAME: Final = "spark-scheduler"
ARCHIVED_APP_ID_LABEL: Final = "spark-app-id"
ARCHIVED_DRIVER_CPU: Final = "spark-driver-cpu"
ARCHIVED_DRIVER_MEMORY: Final = "spark-driver-mem"
ARCHIVED_DRIVER_GPU: Final = "spark-driver-nvidia.com/gpu"
ARCHIVED_EXECUTOR_CPU: Final = "spark-executor-cpu"
ARCHIVED_EXECUTOR_MEMORY: Final = "spark-executor-mem"
ARCHIVED_EXECUTOR_GPU: Final = "spark-executor-nvidia.com/gpu"
ARCHIVED_EXECUTOR_COUNT: Final = "spark-executor-count"
ARCHIVED_DYNAMIC_ALLOCATION: Final = "spark-dynamic-allocation-enabled"
ARCHIVED_MIN_EXECUTORS: Final = "spark-dynamic-allocation-min-executor-count"
ARCHIVED_MAX_EXECUTORS: Final = "spark-dynamic-allocation-max-executor-count"
ARCHIVED_GPU_RESOURCE: Final = "nvidia.com/gpu"
