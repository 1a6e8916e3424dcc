"""What pods of process kubelets share of a machine: loopback addresses, and the names that cluster DNS would know."""

from __future__ import annotations

import secrets


class LoopbackNetwork:
    """A random /24 of 127.0.0.0/8, all of which answers on Linux without set-up.

    Kubelets of one cluster share one, so that a driver on one node is found by executors on another. Real Kubernetes
    takes such addresses in a pod's status but not in EndpointSlices: its headless services stay without endpoints.
    """

    def __init__(self) -> None:
        self._prefix = f"127.{secrets.randbelow(200) + 20}.{secrets.randbelow(256)}"
        self._last = 1
        self._names: dict[str, str] = {}

    def next_address(self) -> str:
        """Addresses come again after 253 pods."""
        self._last = self._last % 253 + 1
        return f"{self._prefix}.{self._last + 1}"

    def publish(self, service: str, namespace: str, address: str) -> None:
        """From now on the service's names lead to ``address``."""
        name = f"{service}.{namespace}.svc"
        self._names[name] = self._names[f"{name}.cluster.local"] = address

    def names(self) -> dict[str, str]:
        """Name → address."""
        return dict(self._names)
