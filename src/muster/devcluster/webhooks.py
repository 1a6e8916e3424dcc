"""Mutating and validating webhooks: which ones are asked, how, and what becomes of the answer.

Source: apiserver ``pkg/admission/plugin/webhook``. Mutating ones are asked one after the other, ordered by
configuration name; validating ones after them, all of them.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import Iterator, Mapping
from typing import Any

import aiohttp
import msgspec

from muster.devcluster.errors import ApiError, bad_request, internal
from muster.devcluster.kinds import HOOKS_GROUP, KindTable
from muster.devcluster.metadata import Origin
from muster.devcluster.patch import json_patch
from muster.devcluster.requests import Request
from muster.devcluster.selectors import Selector, from_label_selector
from muster.devcluster.storage import Object, Record, Store, decode

_MUTATING = f"mutatingwebhookconfigurations.{HOOKS_GROUP}"
_VALIDATING = f"validatingwebhookconfigurations.{HOOKS_GROUP}"
_LARGEST_ANSWER = 3 * 1024 * 1024


class Webhook(msgspec.Struct, frozen=True):
    """One webhook of a configuration, with its selectors parsed."""

    name: str
    spec: Mapping[str, Any]
    objects: Selector
    namespaces: Selector
    mutating: bool

    @property
    def ignores_failure(self) -> bool:
        return bool(self.spec.get("failurePolicy", "Fail") == "Ignore")


class WebhookFailure(Exception):
    """The webhook could not be asked, or its answer is of no use; what follows is the failure policy's matter."""


class WebhookCaller:
    """Asks the webhooks. ``services`` maps "namespace/name" to the (host, port) at which a service really listens."""

    def __init__(self, store: Store, kinds: KindTable, services: Mapping[str, tuple[str, int]], origin: Origin) -> None:
        self._store = store
        self._kinds = kinds
        self._services = services
        self._origin = origin
        self._session: aiohttp.ClientSession | None = None
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._parsed: dict[tuple[str, str], tuple[Record, tuple[Webhook, ...]]] = {}

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def admit(self, request: Request, operation: str, obj: Object | None, old: Object | None) -> Object | None:
        """The object as the mutating webhooks leave it. Raises ApiError when one refuses, or fails and may not."""
        if request.kind.group == HOOKS_GROUP:
            return obj  # webhooks cannot lock themselves in
        obj = await self._mutate(request, operation, obj, old)
        refusals = [
            self._ask(webhook, request, operation, obj, old)
            for webhook in self._matching(_VALIDATING, request, operation, obj, old)
        ]
        if refusals:
            await asyncio.gather(*refusals)
        return obj

    async def _mutate(self, request: Request, operation: str, obj: Object | None, old: Object | None) -> Object | None:
        asked: list[tuple[Webhook, Object | None]] = []
        for webhook in self._matching(_MUTATING, request, operation, obj, old):
            if not self._selects(webhook, request, obj, old):
                continue  # an earlier webhook changed what this one selects by
            obj = await self._ask(webhook, request, operation, obj, old)
            asked.append((webhook, obj))
        for webhook, left in asked:
            if webhook.spec.get("reinvocationPolicy") == "IfNeeded" and left != obj:
                obj = await self._ask(webhook, request, operation, obj, old)
        return obj

    def _matching(
        self, collection: str, request: Request, operation: str, obj: Object | None, old: Object | None
    ) -> Iterator[Webhook]:
        for record in self._store.collection(collection).scan(""):
            for webhook in self._webhooks(collection, record):
                rules = webhook.spec.get("rules") or ()
                if any(_rule_matches(rule, request, operation) for rule in rules) and self._selects(
                    webhook, request, obj, old
                ):
                    yield webhook

    def _webhooks(self, collection: str, record: Record) -> tuple[Webhook, ...]:
        key = (collection, record.key[1])
        cached = self._parsed.get(key)
        if cached is None or cached[0] is not record:
            parsed = tuple(
                Webhook(
                    spec["name"],
                    spec,
                    Selector(from_label_selector(spec.get("objectSelector"))),
                    Selector(from_label_selector(spec.get("namespaceSelector"))),
                    collection == _MUTATING,
                )
                for spec in record.obj.get("webhooks") or ()
            )
            cached = self._parsed[key] = (record, parsed)
        return cached[1]

    def _selects(self, webhook: Webhook, request: Request, obj: Object | None, old: Object | None) -> bool:
        if not webhook.objects.is_empty:
            candidates = [candidate for candidate in (obj, old) if candidate is not None]
            if not any(webhook.objects.matches(candidate) for candidate in candidates):
                return False
        if webhook.namespaces.is_empty:
            return True
        if not request.kind.namespaced:
            return request.kind.collection != "namespaces" or bool(obj and webhook.namespaces.matches(obj))
        namespace = self._store.collection("namespaces").get("", request.target.space)
        return namespace is not None and webhook.namespaces.matches(namespace.obj)

    async def _ask(
        self, webhook: Webhook, request: Request, operation: str, obj: Object | None, old: Object | None
    ) -> Object | None:
        if request.dry_run and webhook.spec.get("sideEffects") not in ("None", "NoneOnDryRun"):
            raise bad_request(f"admission webhook {webhook.name!r} does not support dry run")
        review = review_of(request, operation, obj, old, self._origin.uid())
        try:
            response = await self._call(webhook, review)
            return _outcome(webhook, response, review["request"]["uid"], obj)
        except WebhookFailure as failure:
            if webhook.ignores_failure:
                return obj
            raise internal(f'failed calling webhook "{webhook.name}": {failure}') from failure

    async def _call(self, webhook: Webhook, review: Object) -> Mapping[str, Any]:
        url, host, context = self._address(webhook)
        timeout = aiohttp.ClientTimeout(total=webhook.spec.get("timeoutSeconds", 10))
        if self._session is None:
            self._session = aiohttp.ClientSession()
        body = msgspec.json.encode(review)
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "User-Agent": "kube-apiserver-admission",
        }
        try:
            async with self._session.post(
                url, data=body, headers=headers, timeout=timeout, ssl=context, server_hostname=host
            ) as answer:
                if answer.status != 200:
                    raise WebhookFailure(f"the server answered with status {answer.status}")
                content = await answer.content.read(_LARGEST_ANSWER)
            decoded = decode(content)
            response = decoded["response"]
            if not isinstance(response, dict) or decoded.get("kind") != "AdmissionReview":
                raise WebhookFailure("the answer is no AdmissionReview with a response")
            return response
        except TimeoutError:
            raise WebhookFailure("context deadline exceeded") from None
        except (aiohttp.ClientError, OSError, msgspec.DecodeError, KeyError, TypeError) as error:
            raise WebhookFailure(str(error) or type(error).__name__) from None

    def _address(self, webhook: Webhook) -> tuple[str, str | None, ssl.SSLContext]:
        """URL to call, name to verify the certificate against, TLS context."""
        config = webhook.spec.get("clientConfig") or {}
        context = self._context(config.get("caBundle") or "")
        service = config.get("service")
        if not service:
            return str(config.get("url")), None, context
        name = f"{service['namespace']}/{service['name']}"
        address = self._services.get(name)
        if address is None:
            raise WebhookFailure(f"service {name} has no known address")
        path = service.get("path") or "/"
        return f"https://{address[0]}:{address[1]}{path}", f"{service['name']}.{service['namespace']}.svc", context

    def _context(self, bundle: str) -> ssl.SSLContext:
        context = self._contexts.get(bundle)
        if context is None:
            try:
                pem = base64.b64decode(bundle).decode() if bundle else None
                context = ssl.create_default_context(cadata=pem)
            except (ValueError, ssl.SSLError) as error:
                raise WebhookFailure(f"unable to load root certificates: {error}") from None
            self._contexts[bundle] = context
        return context


def _rule_matches(rule: Mapping[str, Any], request: Request, operation: str) -> bool:
    kind, target = request.kind, request.target
    resource = f"{kind.plural}/{target.subresource}" if target.subresource else kind.plural
    wanted = rule.get("resources") or ()
    subresource_any = f"{kind.plural}/*" in wanted or (target.subresource and f"*/{target.subresource}" in wanted)
    plain_any = "*" in wanted and not target.subresource
    scope = rule.get("scope", "*")
    return (
        _has(rule.get("operations"), operation)
        and _has(rule.get("apiGroups"), kind.group)
        and _has(rule.get("apiVersions"), kind.version)
        and (resource in wanted or "*/*" in wanted or plain_any or bool(subresource_any))
        and (scope == "*" or (scope == "Namespaced") is kind.namespaced)
    )


def _has(values: Any, wanted: str) -> bool:
    return wanted in (values or ()) or "*" in (values or ())


def review_of(request: Request, operation: str, obj: Object | None, old: Object | None, uid: str) -> Object:
    """The AdmissionReview that goes to a webhook."""
    kind, target = request.kind, request.target
    type_name = {"group": kind.group, "version": kind.version, "kind": kind.kind}
    resource = {"group": kind.group, "version": kind.version, "resource": kind.plural}
    name = target.name or ((obj or {}).get("metadata") or {}).get("name", "")
    options = {"CREATE": "CreateOptions", "UPDATE": "UpdateOptions", "DELETE": "DeleteOptions"}.get(operation)
    body: Object = {
        "uid": uid,
        "kind": type_name,
        "resource": resource,
        "requestKind": type_name,
        "requestResource": resource,
        "operation": operation,
        "userInfo": request.user.user_info,
        "object": obj,
        "oldObject": old,
        "dryRun": request.dry_run,
        "options": {"kind": options, "apiVersion": "meta.k8s.io/v1"} if options else None,
    }
    if name:
        body["name"] = name
    if kind.namespaced:
        body["namespace"] = target.space
    if target.subresource:
        body["subResource"] = body["requestSubResource"] = target.subresource
    return {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": body}


def _outcome(webhook: Webhook, response: Mapping[str, Any], uid: str, obj: Object | None) -> Object | None:
    """The object after a webhook's answer. Raises ApiError for a refusal, WebhookFailure for a malformed answer."""
    if response.get("uid") != uid:
        raise WebhookFailure(f"expected response.uid={uid!r}, got {response.get('uid')!r}")
    if not response.get("allowed"):
        status = response.get("status") or {}
        said = status.get("message") or status.get("reason")
        message = f'admission webhook "{webhook.name}" denied the request'
        message += f": {said}" if said else " without explanation"
        raise ApiError(max(int(status.get("code") or 0), 400), str(status.get("reason") or ""), message)
    patch = response.get("patch")
    if not patch or not webhook.mutating or obj is None:
        return obj
    if response.get("patchType") != "JSONPatch":
        raise WebhookFailure(f"patchType must be JSONPatch, got {response.get('patchType')!r}")
    try:
        operations = decode(base64.b64decode(patch))
        return json_patch(obj, operations)
    except (ValueError, msgspec.DecodeError, ApiError) as error:
        raise WebhookFailure(f"the patch does not apply: {error}") from None
