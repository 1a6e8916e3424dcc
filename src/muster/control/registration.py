"""Keeps the API server's trust in the webhook: its configuration holds the CA that signed our certificate."""

from __future__ import annotations

import asyncio
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any, Protocol

import structlog

from muster.control.config import Webhook, parse_duration
from muster.kube.client import Client, PatchType
from muster.kube.credentials import AccessError
from muster.kube.errors import ApiError
from muster.kube.kinds import MUTATING_WEBHOOKS
from muster.kube.manifests import NAME, WEBHOOK_NAME, webhook_configuration

_log = structlog.get_logger("muster.registration")

RETRY_SECONDS = 5.0

Manifest = dict[str, Any]

_END = b"-----END CERTIFICATE-----"


class Certificates(Protocol):
    """What the webhook is served with."""

    @property
    def ca_pem(self) -> bytes:
        """The ``caBundle`` to register; empty when it is not ours to tell."""
        ...

    async def check(self) -> None:
        """Renew it when it is due, and serve the newest one from now on. Raises ``ApiError`` or ``AccessError``."""
        ...


class WebhookRegistration:
    """``webhook.registration`` of ``muster.yaml``, carried out until cancelled.

    With ``ca-bundle`` an existing configuration is only ever patched: where it was uninstalled, a replica that still
    shuts down cannot bring it back.
    """

    def __init__(
        self, client: Client, webhook: Webhook, namespace: str, port: int, on_change: Callable[[bool], None]
    ) -> None:
        """``port``: where the webhook listens, for a URL with port 0. ``on_change`` is told whether we are trusted."""
        self._client = client
        self._webhook = webhook
        self._namespace = namespace
        self._url = webhook.url.replace(":0/", f":{port}/") or None
        self._on_change = on_change
        self._trusted: bool | None = None
        self._interval = parse_duration(webhook.certificates.check_interval)
        self._retry = min(RETRY_SECONDS, self._interval)

    async def keep(self, certificates: Certificates) -> None:
        """Renew the certificate, write what is to be trusted, look again. What fails is told once and tried again."""
        while True:
            try:
                await certificates.check()
                trusted = await self._settle(certificates.ca_pem)
                self._tell(trusted, f"no MutatingWebhookConfiguration {NAME}: new Spark pods are not seen")
            except (ApiError, AccessError) as error:
                # it may well be trusted still: two thirds of a certificate's life are over at the earliest
                _log.warning("webhook not checked", error=str(error), retry_in=self._retry)
                await asyncio.sleep(self._retry)
                continue
            await asyncio.sleep(self._interval if trusted else self._retry)

    async def _settle(self, ca_pem: bytes) -> bool:
        """Make the configuration trust ``ca_pem``. False when there is none, and none may be created."""
        found = await self._read()
        if self._webhook.registration == "none":
            return found is not None
        if found is not None and self._trusted and trusts(found, ca_pem):
            return True
        if self._webhook.registration == "create":
            # at the first time in any case: what it says of URL, service and timeout may be an earlier run's
            body = webhook_configuration(
                ca_pem,
                namespace=self._namespace,
                service=self._webhook.service,
                url=self._url,
                timeout_seconds=self._webhook.timeout_seconds,
            )
            await self._client.apply(MUTATING_WEBHOOKS, body, field_manager=NAME)
            return True
        if found is None:
            return False
        if not trusts(found, ca_pem):
            patch = ca_patch(found, ca_pem)
            await self._client.patch(MUTATING_WEBHOOKS, NAME, patch, patch_type=PatchType.JSON)
        return True

    async def _read(self) -> Manifest | None:
        try:
            return await self._client.get(MUTATING_WEBHOOKS, NAME)
        except ApiError as error:
            if error.not_found:
                return None
            raise

    def _tell(self, trusted: bool, problem: str) -> None:
        if trusted is self._trusted:
            return
        self._trusted = trusted
        self._on_change(trusted)
        if trusted:
            _log.info("webhook registered")
        else:
            _log.warning("webhook not registered", error=problem, retry_in=self._retry)


def trusts(configuration: Manifest, ca_pem: bytes) -> bool:
    """Whether every webhook of ours in ``configuration`` trusts each of ``ca_pem``'s authorities.

    It may trust more. Bundles also list earlier authorities: so a replica that has not yet seen the newest one finds
    its own in the list and does not write the old list back.
    """
    authorities = [one.strip() for one in ca_pem.split(_END) if one.strip()]
    return all(
        one in b64decode(hook["clientConfig"].get("caBundle") or "")
        for hook in _ours(configuration).values()
        for one in authorities
    )


def ca_patch(configuration: Manifest, ca_pem: bytes) -> list[dict[str, Any]]:
    """JSON patch that writes ``ca_pem`` into our webhook, if it still stands where it stood."""
    patch: list[dict[str, Any]] = []
    for place, hook in _ours(configuration).items():
        where = f"/webhooks/{place}"
        patch += [
            {"op": "test", "path": f"{where}/name", "value": hook["name"]},
            {"op": "add", "path": f"{where}/clientConfig/caBundle", "value": b64encode(ca_pem).decode()},
        ]
    return patch


def _ours(configuration: Manifest) -> dict[int, Manifest]:
    hooks = configuration.get("webhooks") or []
    return {place: hook for place, hook in enumerate(hooks) if hook["name"] == WEBHOOK_NAME}
