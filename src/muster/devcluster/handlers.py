"""From HTTP requests to the registry and back: one handler for every path."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import structlog
from aiohttp import web

from muster.devcluster import discovery, errors, openapi, subresources
from muster.devcluster.answers import Form
from muster.devcluster.audit import Audit, Entry
from muster.devcluster.authentication import Identity, Tokens
from muster.devcluster.bodies import media_type, parse_object, parse_value, read_body
from muster.devcluster.event_versions import from_core, to_core
from muster.devcluster.kinds import Kind, KindTable
from muster.devcluster.lists import list_page, selector_of
from muster.devcluster.patch import APPLY_YAML
from muster.devcluster.registry import Registry
from muster.devcluster.requests import Request, find_target, verb_of
from muster.devcluster.storage import Object, Record, Store, encode
from muster.devcluster.streams import open_watch, refuse, stream_frames, stream_lines
from muster.devcluster.tables import COLUMNS, DEFAULT_COLUMNS, Columns
from muster.devcluster.watch import WatchHub

PodLogs = Callable[[str, str, "dict[str, str]"], Awaitable[bytes]]
"""Gives the log of a pod: namespace, name, query parameters (container, tailLines …)."""

_OPEN_PATHS = frozenset({"/healthz", "/livez", "/readyz", "/version", "/version/"})
_log = structlog.get_logger("muster.devcluster")


class Handlers:
    def __init__(self, store: Store, kinds: KindTable, registry: Registry, tokens: Tokens, audit: Audit) -> None:
        self.store = store
        self.kinds = kinds
        self.registry = registry
        self.tokens = tokens
        self.audit = audit
        self.pod_logs: PodLogs | None = None
        self.columns: dict[str, Columns] = dict(COLUMNS)
        self.address = ""
        self._hubs: dict[str, WatchHub] = {}
        self._documents: dict[tuple[str, int], bytes] = {}

    def hub(self, collection: str) -> WatchHub:
        hub = self._hubs.get(collection)
        if hub is None:
            hub = self._hubs[collection] = WatchHub()
            self.store.collection(collection).listen(hub.dispatch)
        return hub

    def drop_hub(self, collection: str) -> None:
        hub = self._hubs.pop(collection, None)
        if hub is not None:
            hub.close()

    def close_watches(self) -> None:
        for hub in self._hubs.values():
            hub.close()

    async def handle(self, http: web.BaseRequest) -> web.StreamResponse:
        """Answers one HTTP request; every failure becomes a ``Status``."""
        try:
            if http.path in _OPEN_PATHS:
                return self._open(http.path)
            user = self.tokens.authenticate(http.headers.get("Authorization"))
            return await self._authenticated(http, user)
        except errors.ApiError as error:
            return failure(error)
        except ConnectionError:
            raise
        except Exception as error:  # a fault of this server must reach the client as a Status, not as a cut line
            _log.exception("request failed", method=http.method, path=http.path)
            return failure(errors.internal(f"{type(error).__name__}; the server's log has the details"))

    def _open(self, path: str) -> web.Response:
        if path.startswith("/version"):
            return answer(encode(discovery.VERSION))
        return web.Response(text="ok")

    async def _authenticated(self, http: web.BaseRequest, user: Identity) -> web.StreamResponse:
        path = http.path
        if not path.startswith(("/api/", "/apis/")) or path.count("/") < 3 or path.endswith("/"):
            document = self._document(http, path.rstrip("/"))
            if document is not None:
                return document
        if path.startswith("/apis/") and path.count("/") == 3:
            document = self._document(http, path)
            if document is not None:
                return document
        target = find_target(path, self.kinds)
        params = dict(http.query)
        verb = verb_of(http.method, target, params)
        if not verb:
            raise errors.method_not_supported(target.kind.plural, target.kind.group, http.method.lower())
        agent = http.headers.get("User-Agent", "")
        request = Request(verb, target, user, agent, params)
        code = 500
        try:
            response = await self._serve(http, request)
            code = response.status
            return response
        except errors.ApiError as error:
            code = error.code
            raise
        finally:
            resource = target.kind.resource + (f"/{target.subresource}" if target.subresource else "")
            self.audit.record(Entry(user.name, agent, verb, resource, code))

    def _document(self, http: web.BaseRequest, path: str) -> web.Response | None:
        parts = path.strip("/").split("/")
        accept = http.headers.get("Accept", "")
        match parts:
            case ["api"] | ["apis"]:
                core = parts == ["api"]
                if "apidiscovery.k8s.io" in accept and "v=v2;" in accept.replace(" ", "") + ";":
                    content = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
                    return answer(encode(discovery.aggregated(self.kinds, core=core)), content_type=content)
                plain = discovery.core_versions(self.address) if core else discovery.group_list(self.kinds)
                return answer(encode(plain))
            case ["api", "v1"]:
                return answer(encode(discovery.resource_list(self.kinds, "", "v1")))
            case ["apis", group]:
                return answer(encode(discovery.group(self.kinds, group)))
            case ["apis", group, version]:
                return answer(encode(discovery.resource_list(self.kinds, group, version)))
            case ["openapi", "v2"]:
                return openapi.v2(accept)
            case ["openapi", "v3"]:
                return answer(encode(openapi.v3_index(self.kinds)))
            case ["openapi", "v3", *rest]:
                return answer(encode(openapi.v3(self.kinds, "/".join(rest))))
            case ["debug", "audit"]:
                return answer(encode({"requests": self.audit.rows()}))
        return None

    async def _serve(self, http: web.BaseRequest, request: Request) -> web.StreamResponse:
        kind, target = request.kind, request.target
        form = self._form(http, request)
        if kind.storage == "events" and kind.group:
            core = self.kinds.find("", "v1", "events")
            assert core is not None
            if request.params.get("fieldSelector"):
                renamed = request.params["fieldSelector"].replace("regarding.", "involvedObject.")
                request = msgspec.structs.replace(request, params={**request.params, "fieldSelector": renamed})
            request = msgspec.structs.replace(request, target=msgspec.structs.replace(target, kind=core))
        if kind.create_only:
            if request.verb != "create":
                raise errors.method_not_supported(kind.plural, kind.group, request.verb)
            body = parse_object(await read_body(http), media_type(http))
            return answer(encode(subresources.answer(self.tokens, request, body)), 201)
        if kind.namespaced and target.namespace is None and request.verb in ("create", "deletecollection"):
            raise errors.method_not_supported(kind.plural, kind.group, request.verb)
        if target.subresource in discovery.SUBRESOURCE_VERBS and target.subresource != "finalize":
            return await self._act(http, request)
        match request.verb:
            case "get":
                return answer(form.one(self.registry.get(request)))
            case "list":
                return answer(form.page(list_page(self.store, request)))
            case "watch":
                return await self._watch(http, request, form)
        return await self._write(http, request, form)

    async def _write(self, http: web.BaseRequest, request: Request, form: Form) -> web.StreamResponse:
        data, media = await read_body(http), media_type(http)
        match request.verb:
            case "create":
                record = await self.registry.create(request, self._incoming(request, parse_object(data, media)))
                return answer(form.one(record), 201)
            case "update":
                record = await self.registry.update(request, self._incoming(request, parse_object(data, media)))
                return answer(form.one(record))
            case "patch" if media == APPLY_YAML:
                record, created = await self.registry.apply(request, parse_object(data, media))
                return answer(form.one(record), 201 if created else 200)
            case "patch":
                record = await self.registry.patch(request, media, parse_value(data, media))
                return answer(form.one(record))
        options = delete_options(request, parse_object(data, media) if data else {})
        if request.verb == "deletecollection":
            page = list_page(self.store, request)
            deleted = await self.registry.delete_collection(request, page.records, options)
            return answer(form.page(msgspec.structs.replace(page, records=deleted)))
        record, gone = await self.registry.delete(request, options)
        if gone and not request.kind.returns_deleted:
            return answer(encode(deleted_status(request, record)))
        return answer(form.one(record))

    def _incoming(self, request: Request, body: Object) -> Object:
        return to_core(body) if body.get("apiVersion") == "events.k8s.io/v1" else body

    async def _watch(self, http: web.BaseRequest, request: Request, form: Form) -> web.StreamResponse:
        hub = self.hub(request.kind.collection)
        selector_of(request)  # a selector that cannot be parsed is a 400, not an event
        try:
            watcher = open_watch(self.store, hub, request, form.change)
        except errors.ApiError as error:
            if error.code != 410:
                raise
            return await refuse(http, error)
        try:
            socket = http.headers.get("Upgrade", "").lower() == "websocket"
            stream = stream_frames if socket else stream_lines
            return await stream(http, self.store, watcher, request)
        finally:
            hub.discard(watcher)

    async def _act(self, http: web.BaseRequest, request: Request) -> web.StreamResponse:
        name = request.target.subresource
        if request.verb not in ({"log": "get"}.get(name, "create"),):
            raise errors.method_not_supported(f"{request.kind.plural}/{name}", request.kind.group, request.verb)
        if name == "log":
            return await self._logs(request)
        body = parse_object(await read_body(http), media_type(http))
        match name:
            case "binding":
                return answer(encode(await subresources.bind(self.registry, request, body)), 201)
            case "eviction":
                return answer(encode(await subresources.evict(self.registry, request, body)), 201)
        return answer(encode(subresources.create_token(self.registry, self.tokens, request, body)), 201)

    async def _logs(self, request: Request) -> web.Response:
        self.registry.get(request)
        if self.pod_logs is None:
            raise errors.ApiError(501, "NotImplemented", "no kubelet of this cluster serves logs")
        text = await self.pod_logs(request.target.space, request.target.name, dict(request.params))
        return web.Response(body=text, content_type="text/plain")

    def _form(self, http: web.BaseRequest, request: Request) -> Form:
        kind = request.kind
        columns = self.columns.get(kind.collection, DEFAULT_COLUMNS)
        accept = http.headers.get("Accept", "application/json")
        return Form(kind, accept, request.params.get("includeObject", ""), self._conversion(kind), columns)

    def _conversion(self, kind: Kind) -> Callable[[Object], Object] | None:
        if kind.storage == "events" and kind.group:
            return from_core
        if kind.custom and len(self.kinds.group_versions().get(kind.group, ())) > 1:
            return lambda obj: obj | {"apiVersion": kind.api_version}
        return None


def answer(data: bytes, code: int = 200, content_type: str = "application/json") -> web.Response:
    headers = {"Content-Type": content_type, "Cache-Control": "no-cache, private"}
    return web.Response(body=data, status=code, headers=headers)


def failure(error: errors.ApiError) -> web.Response:
    response = answer(encode(error.status), error.code)
    if error.retry_after:
        response.headers["Retry-After"] = str(error.retry_after)
    if error.code == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def delete_options(request: Request, body: Object) -> Object:
    """DeleteOptions from the body, and from the query where the body is silent."""
    if body.get("kind") not in (None, "DeleteOptions"):
        raise errors.bad_request(f"expected DeleteOptions, got {body.get('kind')}")
    options: dict[str, Any] = dict(body)
    if request.params.get("propagationPolicy"):
        options.setdefault("propagationPolicy", request.params["propagationPolicy"])
    grace = request.integer("gracePeriodSeconds")
    if grace is not None:
        options.setdefault("gracePeriodSeconds", grace)
    if options.get("dryRun") and not request.dry_run:
        raise errors.bad_request("dryRun belongs in the query of this server's requests")
    return options


def deleted_status(request: Request, record: Record) -> Object:
    kind = request.kind
    details = {"name": record.key[1], "group": kind.group, "kind": kind.plural, "uid": record.obj["metadata"]["uid"]}
    details = {key: value for key, value in details.items() if value}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
