"""Calls to the Kubernetes API: typed, retried as the API asks, counted. Watches are in ``list_watch``."""

from __future__ import annotations

import asyncio
import random as random_module
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from enum import StrEnum
from importlib.metadata import version
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import aiohttp
import msgspec

from muster.kube.clock import Clock, SystemClock
from muster.kube.config import ClusterAccess
from muster.kube.credentials import AccessError
from muster.kube.errors import SILENT, UNREACHABLE, ApiError, error_from_answer
from muster.kube.kinds import PODS, SERVICE_ACCOUNTS, Resource
from muster.kube.objects import ListMeta, ObjectList, RawList
from muster.kube.retry import RetryPolicy

T = TypeVar("T")
Query = Mapping[str, str | int | bool | None]

USER_AGENT = f"muster/{version('spark-muster')}"

_BROKEN = (aiohttp.ClientError, TimeoutError, ConnectionError)


class PatchType(StrEnum):
    """The media types of RFC 6902, RFC 7386, Kubernetes' own strategic merge, and server-side apply."""

    JSON = "application/json-patch+json"
    MERGE = "application/merge-patch+json"
    STRATEGIC = "application/strategic-merge-patch+json"
    APPLY = "application/apply-patch+yaml"


class Call(msgspec.Struct, frozen=True):
    """One request that was sent, for metrics. Attempts of one call count one by one."""

    verb: str
    """As in RBAC: get, list, watch, create, update, patch, delete, deletecollection."""
    resource: str
    """Plural, with the subresource: ``pods/binding``."""
    code: int
    """HTTP status; 0 when no answer came."""
    seconds: float
    """Until the answer was complete (a watch: until it was accepted)."""


class Page(msgspec.Struct, frozen=True):
    """One page of a list, its items still undecoded."""

    items: list[msgspec.Raw]
    metadata: ListMeta


class DecodedPage(msgspec.Struct, Generic[T], frozen=True):
    """One page of a list, its items decoded."""

    items: list[T]
    metadata: ListMeta


class Client:
    """Use as an async context manager. Every method raises ``ApiError`` and nothing else when a call fails.

    ``random`` (in [0, 1)) and ``clock`` make back-off repeatable in tests; ``observe`` is told of every request.
    """

    def __init__(
        self,
        access: ClusterAccess,
        *,
        clock: Clock | None = None,
        random: Callable[[], float] = random_module.random,
        retry: RetryPolicy | None = None,
        observe: Callable[[Call], None] | None = None,
        timeout: float = 30.0,
        user_agent: str = USER_AGENT,
    ) -> None:
        self.access = access
        self.clock = clock or SystemClock()
        self.random = random
        self.retry = retry or RetryPolicy()
        self._observe = observe
        self._timeout = timeout
        # Large answers come uncompressed: a page of pods costs more to inflate than to decode
        self._headers = {"User-Agent": user_agent, "Accept": "application/json", "Accept-Encoding": "identity"}
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(ssl=self.access.tls or True, limit=0, keepalive_timeout=60)
        self._http = aiohttp.ClientSession(
            connector=connector, headers=self._headers, cookie_jar=aiohttp.DummyCookieJar()
        )
        # aiohttp would silently send a DELETE or PUT again after a lost answer; what is repeated is decided here
        self._http._retry_connection = False
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()
            self._http = None

    async def get(self, resource: Resource[T], name: str, namespace: str = "") -> T:
        path = resource.path(namespace, name)
        return _decode(await self._call("get", resource, "GET", path, repeatable=True), resource.object, path)

    async def page(
        self,
        resource: Resource[Any],
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = 500,
        continue_: str = "",
        resource_version: str = "",
    ) -> Page:
        """One page of a list. An outdated ``continue_`` raises an error that is ``expired``."""
        path, text = await self._page(
            resource, namespace, label_selector, field_selector, limit, continue_, resource_version
        )
        return _undecoded(text, path)

    async def decoded_page(
        self,
        resource: Resource[T],
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = 500,
        continue_: str = "",
    ) -> DecodedPage[T] | Page:
        """The same decoded in one go, which takes two thirds of the time of item by item, but holds the loop longer.

        Undecoded when not every item is of the resource's type, so that one bad object spoils no others.
        """
        path, text = await self._page(resource, namespace, label_selector, field_selector, limit, continue_, "")
        try:
            answer = msgspec.json.decode(text, type=ObjectList[resource.object])  # type: ignore[name-defined]
        except msgspec.ValidationError:
            return _undecoded(text, path)
        except msgspec.DecodeError as error:
            raise ApiError(path, 200, "Undecodable", str(error)) from error
        return DecodedPage(answer.items or [], answer.metadata)

    async def _page(
        self,
        resource: Resource[Any],
        namespace: str,
        label_selector: str,
        field_selector: str,
        limit: int,
        continue_: str,
        resource_version: str,
    ) -> tuple[str, bytes]:
        """Path and text."""
        path = resource.path(namespace)
        query: Query = {
            "labelSelector": label_selector,
            "fieldSelector": field_selector,
            "limit": limit,
            "continue": continue_,
            "resourceVersion": resource_version,
        }
        return path, await self._call("list", resource, "GET", path, query, repeatable=True)

    async def list(
        self, resource: Resource[T], namespace: str = "", *, label_selector: str = "", field_selector: str = ""
    ) -> list[T]:
        """Everything, decoded, for small lists; large ones belong to ``list_watch``."""
        decode = msgspec.json.Decoder(resource.object).decode
        found: list[T] = []
        token = ""
        while True:
            page = await self.page(
                resource, namespace, label_selector=label_selector, field_selector=field_selector, continue_=token
            )
            found += [decode(raw) for raw in page.items]
            token = page.metadata.continue_
            if not token:
                return found

    async def create(self, resource: Resource[T], body: object, namespace: str = "") -> T:
        """``already_exists`` may also mean that an earlier attempt, whose answer was lost, has created it.

        A body without ``metadata.name`` (``generateName``) is never sent again after a lost answer.
        """
        content = msgspec.json.encode(body)
        path = resource.path(namespace)
        answer = await self._call("create", resource, "POST", path, body=content, repeatable=_is_named(content))
        return _decode(answer, resource.object, path)

    async def replace(
        self, resource: Resource[T], name: str, body: object, namespace: str = "", *, subresource: str = ""
    ) -> T:
        """``conflict`` when the body's ``resourceVersion`` is not the current one (or was, before a lost answer)."""
        path = resource.path(namespace, name, subresource)
        answer = await self._call(
            "update", resource, "PUT", path, body=msgspec.json.encode(body), repeatable=True, subresource=subresource
        )
        return _decode(answer, resource.object, path)

    async def patch(
        self,
        resource: Resource[T],
        name: str,
        body: object,
        namespace: str = "",
        *,
        patch_type: PatchType = PatchType.MERGE,
        subresource: str = "",
        field_manager: str = "",
        force: bool = False,
    ) -> T:
        """``field_manager`` is required by ``APPLY``.

        A JSON patch is sent again after a lost answer only when it begins with a ``test``: then a second run fails
        (422) where it would have doubled. The other types say how it should be, not what to do, and may be repeated.
        """
        path = resource.path(namespace, name, subresource)
        query: Query = {"fieldManager": field_manager, "force": force or None}
        answer = await self._call(
            "patch",
            resource,
            "PATCH",
            path,
            query,
            body=msgspec.json.encode(body),
            content_type=patch_type,
            repeatable=patch_type is not PatchType.JSON or _begins_with_test(body),
            subresource=subresource,
        )
        return _decode(answer, resource.object, path)

    async def apply(self, resource: Resource[T], body: Mapping[str, Any], *, field_manager: str) -> T:
        """Server-side apply of a whole manifest, taking over fields that others own."""
        metadata = body["metadata"]
        return await self.patch(
            resource,
            metadata["name"],
            body,
            metadata.get("namespace", ""),
            patch_type=PatchType.APPLY,
            field_manager=field_manager,
            force=True,
        )

    async def delete(
        self,
        resource: Resource[Any],
        name: str,
        namespace: str = "",
        *,
        uid: str = "",
        resource_version: str = "",
        grace_period_seconds: int | None = None,
        propagation: str = "",
    ) -> None:
        """With ``uid`` only that very object goes (``conflict`` otherwise), and a lost answer is no danger.

        Without, a lost answer is not followed by a second attempt: it could hit a successor of the same name.
        """
        preconditions = {"uid": uid or None, "resourceVersion": resource_version or None}
        options = {
            "kind": "DeleteOptions",
            "apiVersion": "v1",
            "preconditions": {key: value for key, value in preconditions.items() if value} or None,
            "gracePeriodSeconds": grace_period_seconds,
            "propagationPolicy": propagation or None,
        }
        body = msgspec.json.encode({key: value for key, value in options.items() if value is not None})
        path = resource.path(namespace, name)
        await self._call("delete", resource, "DELETE", path, body=body, repeatable=bool(uid))

    async def delete_collection(
        self, resource: Resource[Any], namespace: str, *, label_selector: str = "", field_selector: str = ""
    ) -> None:
        query: Query = {"labelSelector": label_selector, "fieldSelector": field_selector}
        path = resource.path(namespace)
        await self._call("deletecollection", resource, "DELETE", path, query, repeatable=False)

    async def bind(self, name: str, namespace: str, node: str, *, uid: str = "") -> None:
        """Bind a pod to a node (``pods/binding``). ``conflict`` when it has a node already, perhaps this one."""
        metadata = {"name": name, "namespace": namespace} | ({"uid": uid} if uid else {})
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": metadata,
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        path = PODS.path(namespace, name, "binding")
        body = msgspec.json.encode(binding)
        await self._call("create", PODS, "POST", path, body=body, repeatable=True, subresource="binding")

    async def service_account_token(
        self,
        name: str,
        namespace: str,
        *,
        audiences: tuple[str, ...] = (),
        seconds: int = 3600,
        pod: tuple[str, str] | None = None,
    ) -> str:
        """A new token of a service account (``serviceaccounts/token``, KEP-1205).

        With ``pod`` (name, uid) it is that pod's own: its requests are audited as the pod's, and it ends with the pod.
        """
        spec: dict[str, Any] = {"audiences": audiences, "expirationSeconds": seconds}
        if pod is not None:
            spec["boundObjectRef"] = {"apiVersion": "v1", "kind": "Pod", "name": pod[0], "uid": pod[1]}
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        path = SERVICE_ACCOUNTS.path(namespace, name, "token")
        body = msgspec.json.encode(request)
        answer = await self._call(
            "create", SERVICE_ACCOUNTS, "POST", path, body=body, repeatable=True, subresource="token"
        )
        return _decode(answer, _TokenRequest, path).status.token

    @asynccontextmanager
    async def watch(
        self, resource: Resource[Any], namespace: str, query: Query, *, inactivity: float
    ) -> AsyncIterator[aiohttp.StreamReader]:
        """The open stream of a watch. Not retried. ``ApiError`` also for what goes wrong while it is read.

        ``inactivity``: seconds without a byte after which the stream counts as dead.
        """
        path = resource.path(namespace)
        call = f"WATCH {path}"
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=inactivity)
        begun = self.clock.monotonic()
        code = 0
        try:
            headers = await self._authorize(call)
            async with self._session.get(
                self.access.server + path,
                params=_query({**query, "watch": True}),
                headers=headers,
                **self._route(timeout),
            ) as response:
                code = response.status
                if code != 200:
                    if code == 401:
                        self.access.credentials.rejected()
                    raise error_from_answer(call, code, await response.read(), response.headers.get("Retry-After"))
                self._count("watch", resource, "", code, begun)
                begun = -1.0
                yield response.content
        except _BROKEN as error:
            silent = begun < 0 and isinstance(error, asyncio.TimeoutError)
            raise ApiError(call, 0, SILENT if silent else UNREACHABLE, _describe(error)) from error
        finally:
            if begun >= 0:
                self._count("watch", resource, "", code, begun)

    @property
    def _session(self) -> aiohttp.ClientSession:
        if self._http is None:
            raise RuntimeError("the client is closed; use it inside `async with`")
        return self._http

    async def _call(
        self,
        verb: str,
        resource: Resource[Any],
        method: str,
        path: str,
        query: Query | None = None,
        *,
        repeatable: bool,
        body: bytes | None = None,
        content_type: str = "application/json",
        subresource: str = "",
    ) -> bytes:
        call = f"{method} {path}"
        failures = 0
        renewed = False
        while True:
            begun = self.clock.monotonic()
            try:
                answer = await self._send(call, method, path, query, body, content_type)
            except ApiError as error:
                self._count(verb, resource, subresource, error.code, begun)
                if error.code == 401 and not renewed:
                    renewed = True
                    self.access.credentials.rejected()
                    continue
                failures += 1
                wait = self.retry.wait(error, failures=failures, repeatable=repeatable, random=self.random())
                if wait is None:
                    raise
                await self.clock.sleep(wait)
            else:
                self._count(verb, resource, subresource, 200, begun)
                return answer

    async def _send(
        self, call: str, method: str, path: str, query: Query | None, body: bytes | None, content_type: str
    ) -> bytes:
        headers = await self._authorize(call)
        if body is not None:
            headers["Content-Type"] = content_type
        timeout = aiohttp.ClientTimeout(total=self._timeout, sock_connect=10)
        url = self.access.server + path
        try:
            async with self._session.request(
                method, url, params=_query(query or {}), headers=headers, data=body, **self._route(timeout)
            ) as response:
                answer = await response.read()
                if response.status >= 300:
                    raise error_from_answer(call, response.status, answer, response.headers.get("Retry-After"))
                return answer
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise ApiError(call, 0, UNREACHABLE, _describe(error), sent=False) from error
        except _BROKEN as error:
            raise ApiError(call, 0, UNREACHABLE, _describe(error)) from error

    async def _authorize(self, call: str) -> dict[str, str]:
        try:
            value = await self.access.credentials.authorization()
        except AccessError as error:
            raise ApiError(call, 401, "Unauthorized", str(error)) from error
        return {"Authorization": value} if value else {}

    def _route(self, timeout: aiohttp.ClientTimeout) -> dict[str, Any]:
        return {
            "timeout": timeout,
            "proxy": self.access.proxy or None,
            "server_hostname": self.access.tls_server_name or None,
            "allow_redirects": False,
        }

    def _count(self, verb: str, resource: Resource[Any], subresource: str, code: int, begun: float) -> None:
        if self._observe is not None:
            name = f"{resource.plural}/{subresource}" if subresource else resource.plural
            self._observe(Call(verb, name, code, self.clock.monotonic() - begun))


def _decode(answer: bytes, object_type: type[T], path: str) -> T:
    try:
        return msgspec.json.decode(answer, type=object_type)
    except msgspec.MsgspecError as error:
        raise ApiError(path, 200, "Undecodable", str(error)) from error


def _undecoded(text: bytes, path: str) -> Page:
    answer = _decode(text, RawList, path)
    return Page(answer.items or [], answer.metadata)


def _query(query: Query) -> dict[str, str]:
    return {
        key: str(value).lower() if isinstance(value, bool) else str(value)
        for key, value in query.items()
        if value not in ("", None)
    }


class _TokenRequest(msgspec.Struct):
    class Status(msgspec.Struct):
        token: str

    status: Status


class _Named(msgspec.Struct):
    class Metadata(msgspec.Struct):
        name: str = ""

    metadata: Metadata


def _is_named(content: bytes) -> bool:
    try:
        return bool(msgspec.json.decode(content, type=_Named).metadata.name)
    except msgspec.MsgspecError:
        return False


def _begins_with_test(patch: object) -> bool:
    return isinstance(patch, list) and bool(patch) and isinstance(patch[0], dict) and patch[0].get("op") == "test"


def _describe(error: BaseException) -> str:
    if isinstance(error, asyncio.TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__
