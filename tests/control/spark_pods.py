"""Pods as Spark 4.3.0's submission client and driver create them (labels, environment, volumes, sizes).

Written down from requests of an unmodified ``spark-submit`` and driver: static allocation, 1 core and 1 GiB of heap.
"""

from __future__ import annotations

from typing import Any

APPLICATION = "spark-0123456789abcdef0123456789abcdef"


def driver_pod(application: str = APPLICATION, name: str = "spark-pi-4a1b0f8c9d2e3f40-driver") -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "team-a",
            "labels": {
                "spark-role": "driver",
                "spark-app-selector": application,
                "spark-app-name": "spark-pi",
                "spark-version": "4.3.0",
            },
        },
        "spec": {
            "containers": [
                {
                    "name": "spark-kubernetes-driver",
                    "image": "spark:4.3.0",
                    "imagePullPolicy": "IfNotPresent",
                    "args": [
                        "driver",
                        "--properties-file",
                        "/opt/spark/conf/spark.properties",
                        "--class",
                        "org.apache.spark.examples.SparkPi",
                        "local:///opt/spark/examples/jars/spark-examples.jar",
                    ],
                    "ports": [
                        {"name": "driver-rpc-port", "containerPort": 7078, "protocol": "TCP"},
                        {"name": "blockmanager", "containerPort": 7079, "protocol": "TCP"},
                        {"name": "spark-ui", "containerPort": 4040, "protocol": "TCP"},
                    ],
                    "env": [
                        {"name": "SPARK_USER", "value": "etl"},
                        {"name": "SPARK_APPLICATION_ID", "value": application},
                        {"name": "SPARK_DRIVER_BIND_ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                        {"name": "SPARK_CONF_DIR", "value": "/opt/spark/conf"},
                    ],
                    "resources": {"requests": {"cpu": "1", "memory": "1408Mi"}, "limits": {"memory": "1408Mi"}},
                    "volumeMounts": [
                        {"name": "spark-local-dir-1", "mountPath": "/var/data/spark-7a"},
                        {"name": "spark-conf-volume-driver", "mountPath": "/opt/spark/conf"},
                    ],
                    "securityContext": {"allowPrivilegeEscalation": False},
                }
            ],
            "restartPolicy": "Never",
            "serviceAccountName": "spark",
            "volumes": [
                {"name": "spark-local-dir-1", "emptyDir": {}},
                {
                    "name": "spark-conf-volume-driver",
                    "configMap": {
                        "name": "spark-drv-4a1b0f8c9d2e3f40-conf-map",
                        "items": [{"key": "spark.properties", "mode": 420, "path": "spark.properties"}],
                    },
                },
            ],
        },
    }


def executor_pod(
    number: int = 1, application: str = APPLICATION, prefix: str = "spark-pi-77c0de8c9d2e3f41"
) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{prefix}-exec-{number}",
            "namespace": "team-a",
            "labels": {
                "spark-role": "executor",
                "spark-app-selector": application,
                "spark-app-name": "spark-pi",
                "spark-version": "4.3.0",
                "spark-exec-id": str(number),
                "spark-exec-resourceprofile-id": "0",
            },
            "ownerReferences": [
                {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "name": "spark-pi-4a1b0f8c9d2e3f40-driver",
                    "uid": "1f0c6a52-6f1b-4ad0-9e52-1d2f6f1b4ad0",
                    "controller": True,
                }
            ],
        },
        "spec": {
            "hostname": f"{prefix}-exec-{number}",
            "containers": [
                {
                    "name": "spark-kubernetes-executor",
                    "image": "spark:4.3.0",
                    "imagePullPolicy": "IfNotPresent",
                    "args": ["executor"],
                    "ports": [{"name": "blockmanager", "containerPort": 7079, "protocol": "TCP"}],
                    "env": [
                        {"name": "SPARK_EXECUTOR_CORES", "value": "1"},
                        {"name": "SPARK_EXECUTOR_MEMORY", "value": "1024m"},
                        {"name": "SPARK_APPLICATION_ID", "value": application},
                        {"name": "SPARK_EXECUTOR_ID", "value": str(number)},
                        {"name": "SPARK_RESOURCE_PROFILE_ID", "value": "0"},
                    ],
                    "resources": {"requests": {"cpu": "1", "memory": "1408Mi"}, "limits": {"memory": "1408Mi"}},
                    "volumeMounts": [{"name": "spark-local-dir-1", "mountPath": "/var/data/spark-7a"}],
                }
            ],
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 30,
            "volumes": [{"name": "spark-local-dir-1", "emptyDir": {}}],
        },
    }
