"""Optional parts of an installation: who may talk to Muster over the network, and priorities for Spark's pods."""

from __future__ import annotations

from typing import Any

Manifest = dict[str, Any]

API_SERVER_PORTS = (443, 6443)
"""Where API servers listen: managed ones and kubeadm's. A policy sees the port behind the Service."""
DRIVER_UI_PORT = 4040
"""``spark.ui.port``, whose REST API tells of executors."""
DNS_PORT = 53
MONITORING_NAMESPACE = "monitoring"

DRIVER_PRIORITY = ("spark-driver", 1000)
EXECUTOR_PRIORITY = ("spark-executor", 500)


def network_policy(metadata: Manifest, pods: dict[str, str], webhook_port: str, management_port: str) -> Manifest:
    """For the ``pods`` with these labels.

    The webhook is open to everybody, since API servers have no label to select them by and TLS protects it; health,
    metrics and explanations are for the monitoring namespace and for the node itself, which is always allowed
    (probes and ``kubectl port-forward`` come from there), and for other replicas, which copy the history. Out: to API
    servers, to drivers, which are asked what their executors keep before one is called back, to other replicas and to
    DNS, which tells where they are.
    """
    drivers = {"namespaceSelector": {}, "podSelector": {"matchLabels": {"spark-role": "driver"}}}
    replicas = {"podSelector": {"matchLabels": pods}}
    peer = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": MONITORING_NAMESPACE}}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata,
        "spec": {
            "podSelector": {"matchLabels": pods},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [
                {"ports": [{"port": webhook_port, "protocol": "TCP"}]},
                {"ports": [{"port": management_port, "protocol": "TCP"}], "from": [peer]},
                {"ports": [{"port": management_port, "protocol": "TCP"}], "from": [replicas]},
            ],
            "egress": [
                {"ports": [{"port": port, "protocol": "TCP"} for port in API_SERVER_PORTS]},
                {"ports": [{"port": DRIVER_UI_PORT, "protocol": "TCP"}], "to": [drivers]},
                {"ports": [{"port": management_port, "protocol": "TCP"}], "to": [replicas]},
                {"ports": [{"port": DNS_PORT, "protocol": protocol} for protocol in ("UDP", "TCP")]},
            ],
        },
    }


def priority_classes(labels: dict[str, str]) -> list[Manifest]:
    """Drivers before executors, for ``priorityClassName`` in pod templates.

    Under node pressure the kubelet evicts the lower one first, and kube-scheduler looks at the higher one first. They
    preempt nobody: a driver must not start by the death of another application's executor.
    """
    return [
        _priority_class(*DRIVER_PRIORITY, labels, "Drivers of Spark applications: the last of them to be evicted."),
        _priority_class(*EXECUTOR_PRIORITY, labels, "Executors of Spark applications."),
    ]


def _priority_class(name: str, value: int, labels: dict[str, str], description: str) -> Manifest:
    return {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": name, "labels": labels},
        "value": value,
        "globalDefault": False,
        "preemptionPolicy": "Never",
        "description": description,
    }
