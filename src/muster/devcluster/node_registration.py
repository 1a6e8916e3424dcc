"""How a kubelet makes its node known and keeps it alive."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from muster.kube.client import Client, PatchType
from muster.kube.errors import ApiError
from muster.kube.kinds import LEASES, NODES
from muster.kube.objects import Present
from muster.kube.timestamps import format_micro_time

NODE_LEASE_NAMESPACE = "kube-node-lease"
LEASE_SECONDS = 240
"""Six times the kubelet's default, to keep an idle cluster idle; renewed four times as often."""

_LEASES = LEASES.decoding_to(Present)
_NODES = NODES.decoding_to(Present)


async def register_node(client: Client, node: Mapping[str, Any]) -> None:
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
        lease |= {"metadata": {"name": name, "namespace": NODE_LEASE_NAMESPACE}, "spec": _lease_spec(client, name)}
        await client.create(_LEASES, lease, NODE_LEASE_NAMESPACE)
    except ApiError as error:
        if not error.already_exists:
            raise
        await renew_lease(client, name)


async def renew_lease(client: Client, node: str) -> None:
    """The node's heartbeat (KEP-589). Raises ``ApiError``."""
    await client.patch(_LEASES, node, {"spec": _lease_spec(client, node)}, NODE_LEASE_NAMESPACE)


def _lease_spec(client: Client, node: str) -> dict[str, Any]:
    renewed = format_micro_time(client.clock.time())
    return {"holderIdentity": node, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": renewed}
