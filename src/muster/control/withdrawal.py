"""Before Muster is uninstalled: no new pod comes to its webhook, and none waits behind its gate.

Works on the API alone, whether the service runs or not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import msgspec

from muster.control.facts import is_gated, pod_ref
from muster.control.writer import ungating_patch
from muster.kube import objects as k
from muster.kube.client import Client, PatchType
from muster.kube.errors import ApiError
from muster.kube.kinds import MUTATING_WEBHOOKS, PODS
from muster.kube.manifests import NAME
from muster.spark import names

SETTLE_SECONDS = 10.0
"""From the end of the webhook until no API server asks it any more: their watch, and the longest review under way."""
LOOK_SECONDS = 1.0
_AT_ONCE = 16
"""Patches under way at the same time."""
_SELECTOR = f"{names.SPARK_ROLE_LABEL} in ({names.SPARK_ROLE_DRIVER},{names.SPARK_ROLE_EXECUTOR})"


class Withdrawal(msgspec.Struct, frozen=True):
    webhook: bool
    """Whether there was a webhook configuration to delete."""
    released: int
    """Pods whose gate was taken off (in a dry run: that have one)."""
    left: int
    """Pods that were still gated when the time was over."""


async def withdraw(
    client: Client,
    *,
    timeout: float,
    settle: float = SETTLE_SECONDS,
    dry_run: bool = False,
    notice: Callable[[str], None] = lambda _: None,
) -> Withdrawal:
    """Delete the webhook, then hand every gated pod to ordinary scheduling, until none comes any more.

    ``notice`` is told what goes on. Raises ``ApiError`` when the webhook cannot be deleted or pods cannot be listed.
    """
    if dry_run:
        gated = [pod async for pod in _gated(client)]
        return Withdrawal(await _webhook_exists(client), len(gated), len(gated))
    webhook = await _delete_webhook(client)
    notice("webhook deleted" if webhook else "there was no webhook")
    loop = asyncio.get_running_loop()
    begun, released, places = loop.time(), 0, asyncio.Semaphore(_AT_ONCE)

    async def release(pod: k.Pod) -> bool:
        async with places:
            return await _release(client, pod, notice)

    while True:
        gated = [pod async for pod in _gated(client)]
        freed = sum(await asyncio.gather(*(release(pod) for pod in gated)))
        if freed:
            notice(f"{freed} waiting pods released")
        released += freed
        left, passed = len(gated) - freed, loop.time() - begun
        if not gated and passed >= settle:
            return Withdrawal(webhook, released, 0)
        if passed >= timeout:
            return Withdrawal(webhook, released, left)
        await asyncio.sleep(LOOK_SECONDS)


async def _gated(client: Client) -> AsyncIterator[k.Pod]:
    for pod in await client.list(PODS, label_selector=_SELECTOR, field_selector="status.phase=Pending"):
        if is_gated(pod):
            yield pod


async def _release(client: Client, pod: k.Pod, notice: Callable[[str], None]) -> bool:
    ref = pod_ref(pod)
    try:
        await client.patch(PODS, ref.name, ungating_patch(ref.uid), ref.namespace, patch_type=PatchType.STRATEGIC)
    except ApiError as error:
        if not (error.not_found or error.conflict or error.code == 422):  # gone, or released by somebody else
            notice(f"pod {ref.namespace}/{ref.name} not released, will be tried again: {error}")
        return False
    return True


async def _delete_webhook(client: Client) -> bool:
    try:
        await client.delete(MUTATING_WEBHOOKS, NAME)
    except ApiError as error:
        if error.not_found:
            return False
        raise
    return True


async def _webhook_exists(client: Client) -> bool:
    try:
        await client.get(MUTATING_WEBHOOKS, NAME)
    except ApiError as error:
        if error.not_found:
            return False
        raise
    return True
