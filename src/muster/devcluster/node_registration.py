"""How a kubelet makes its node known and keeps it alive."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from muster.devcluster.node_pool import node_conditions
from muster.kube.client import Client, PatchType
from muster.kube.errors import ApiError
from muster.kube.kinds import LEASES, NODES
from muster.kube.objects import Present
from muster.kube.timestamps import format_micro_time, format_time

NODE_LEASE_NAMESPACE = "kube-node-lease"
KUBELET_LEASE_SECONDS = 40
"""The kubelet's ``nodeLeaseDurationSeconds`` by default; renewed four times as often."""
LEASE_SECONDS = 240
"""Of virtual nodes: six times as long, to keep an idle cluster idle."""

_LEASES = LEASES.decoding_to(Present)
_NODES = NODES.decoding_to(Present)


async def register_node(client: Client, node: Mapping[str, Any], lease_seconds: int = LEASE_SECONDS) -> None:
    """Create the node, or take over the one of that name; then its status and its lease. Raises ``ApiError``."""
    name = node["metadata"]["name"]
    try:
        await client.create(_NODES, node)
    except ApiError as error:
        if not error.already_exists:
            raise
    # A new node is tainted as not ready until its kubelet says otherwise
    status = {"status": node["status"]}
    await client.patch(_NODES, name, status, patch_type=PatchType.STRATEGIC, subresource="status")
    try:
        lease: dict[str, Any] = {"apiVersion": LEASES.api_version, "kind": LEASES.kind}
        lease |= {
            "metadata": {"name": name, "namespace": NODE_LEASE_NAMESPACE},
            "spec": _lease_spec(client, name, lease_seconds),
        }
        await client.create(_LEASES, lease, NODE_LEASE_NAMESPACE)
    except ApiError as error:
        if not error.already_exists:
            raise
        await renew_lease(client, name, lease_seconds)


async def renew_lease(client: Client, node: str, lease_seconds: int = LEASE_SECONDS) -> None:
    """The node's heartbeat (KEP-589). Raises ``ApiError``."""
    await client.patch(_LEASES, node, {"spec": _lease_spec(client, node, lease_seconds)}, NODE_LEASE_NAMESPACE)


async def heartbeat(client: Client, node: str, lease_seconds: int) -> None:
    """Renew the lease, and say so when the node lifecycle controller has given the node up meanwhile.

    That controller only ever takes a node's readiness away; to be Ready again is for its kubelet to say.
    Raises ``ApiError``.
    """
    await renew_lease(client, node, lease_seconds)
    conditions = (await client.get(NODES, node)).status.conditions
    if not any(condition.type == "Ready" and condition.status == "True" for condition in conditions):
        status = {"status": {"conditions": node_conditions(format_time(client.clock.time()))}}
        await client.patch(_NODES, node, status, patch_type=PatchType.STRATEGIC, subresource="status")


def _lease_spec(client: Client, node: str, lease_seconds: int) -> dict[str, Any]:
    renewed = format_micro_time(client.clock.time())
    return {"holderIdentity": node, "leaseDurationSeconds": lease_seconds, "renewTime": renewed}
