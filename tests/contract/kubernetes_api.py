"""A thin HTTP client for the Kubernetes API: paths and JSON in, status and JSON out."""

from __future__ import annotations

import asyncio
import json
import secrets
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

PATIENCE = 20.0  # seconds until a test gives up on something that must happen

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"


@dataclass(frozen=True)
class Answer:
    """``code`` is the HTTP status, ``body`` the decoded JSON (or the text when it is none)."""

    code: int
    body: Any

    @property
    def name(self) -> str:
        return self.body["metadata"]["name"]

    @property
    def version(self) -> str:
        return self.body["metadata"]["resourceVersion"]

    @property
    def reason(self) -> str:
        return self.body.get("reason", "")

    @property
    def names(self) -> list[str]:
        return [item["metadata"]["name"] for item in self.body["items"]]


class Events:
    """The events of an open watch, one by one."""

    def __init__(self, lines: AsyncIterator[bytes]) -> None:
        self._lines = lines

    async def next(self) -> dict[str, Any]:
        """The next event. Fails the test when none comes or the watch ends."""
        async with asyncio.timeout(PATIENCE):
            line = await anext(self._lines, b"")
        assert line, "the watch ended"
        return json.loads(line)

    async def seen(self, count: int) -> list[tuple[str, str]]:
        """(type, name) of the next events."""
        events = [await self.next() for _ in range(count)]
        return [(event["type"], event["object"]["metadata"]["name"]) for event in events]

    async def until_end(self) -> list[dict[str, Any]]:
        async with asyncio.timeout(PATIENCE):
            return [json.loads(line) async for line in self._lines if line]


class Api:
    """A thin HTTP client: paths and JSON in, status and JSON out. ``namespace`` is the test's own."""

    def __init__(self, session: aiohttp.ClientSession, url: str, token: str, context: ssl.SSLContext) -> None:
        self.session = session
        self.url = url
        self.token = token
        self.context = context
        self.namespace = f"contract-{secrets.token_hex(4)}"
        self.has_controllers = True

    def path(self, plural: str, name: str = "", *, group: str = "", namespace: str | None = None) -> str:
        """The path of a namespaced collection or object; ``group`` is group/version, core by default."""
        prefix = f"/apis/{group}" if group else "/api/v1"
        path = f"{prefix}/namespaces/{namespace or self.namespace}/{plural}"
        return f"{path}/{name}" if name else path

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content: str = JSON,
        accept: str = JSON,
        token: str | None = None,
        **params: Any,
    ) -> Answer:
        headers = {"Accept": accept}
        if token != "":
            headers["Authorization"] = f"Bearer {token or self.token}"
        data = None
        if body is not None:
            headers["Content-Type"] = content
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
        query = {key: str(value) for key, value in params.items() if value is not None}
        async with self.session.request(method, self.url + path, data=data, headers=headers, params=query) as answer:
            text = await answer.text()
            try:
                return Answer(answer.status, json.loads(text))
            except ValueError:
                return Answer(answer.status, text)

    async def get(self, path: str, **params: Any) -> Answer:
        return await self.call("GET", path, **params)

    async def post(self, path: str, body: Any, **params: Any) -> Answer:
        return await self.call("POST", path, body, **params)

    async def put(self, path: str, body: Any, **params: Any) -> Answer:
        return await self.call("PUT", path, body, **params)

    async def patch(self, path: str, body: Any, content: str = MERGE_PATCH, **params: Any) -> Answer:
        return await self.call("PATCH", path, body, content=content, **params)

    async def delete(self, path: str, body: Any = None, **params: Any) -> Answer:
        return await self.call("DELETE", path, body, **params)

    async def create(self, plural: str, body: Any, **params: Any) -> Answer:
        """Creates a core object in the test's namespace; it must succeed."""
        answer = await self.post(self.path(plural), body, **params)
        assert answer.code == 201, answer.body
        return answer

    async def config(self, name: str, labels: dict[str, str] | None = None, **data: str) -> Answer:
        return await self.create("configmaps", {"metadata": {"name": name, "labels": labels or {}}, "data": data})

    async def pod(self, name: str, spec: dict[str, Any] | None = None, **metadata: Any) -> Answer:
        return await self.create("pods", pod(name, spec, **metadata))

    @asynccontextmanager
    async def watch(self, path: str, **params: Any) -> AsyncIterator[Events]:
        """An open watch (chunked HTTP)."""
        headers = {"Authorization": f"Bearer {self.token}"}
        query = {"watch": "true", **{key: str(value) for key, value in params.items()}}
        async with self.session.get(self.url + path, headers=headers, params=query) as answer:
            assert answer.status == 200, await answer.text()
            yield Events(_lines(answer))

    async def eventually(self, path: str, code: int) -> Answer:
        """Waits until a GET answers with this status."""
        async with asyncio.timeout(PATIENCE):
            while True:
                answer = await self.get(path)
                if answer.code == code:
                    return answer
                await asyncio.sleep(0.05)


async def _lines(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    rest = b""
    async for chunk in answer.content.iter_any():
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line
    if rest:
        yield rest


def pod(name: str, spec: dict[str, Any] | None = None, **metadata: Any) -> dict[str, Any]:
    """A pod that needs nothing but an image name."""
    container = {"name": "main", "image": "registry.example/app:1"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, **metadata},
        "spec": {"containers": [container], "automountServiceAccountToken": False, **(spec or {})},
    }
