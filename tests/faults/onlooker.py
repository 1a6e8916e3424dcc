"""Writes a ``History`` from the API alone: lists and watches by plain HTTP, with no code of Muster's own informers.

Where a watch could not be continued (the API server was restarted and has forgotten what was before), states between
the last event and the new list stay unseen; what the list shows has its true revisions.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, Self

import aiohttp

from muster.kube.config import load_access
from tests.faults.cluster_history import Change, History

PATHS = {"pods": "/api/v1/pods", "nodes": "/api/v1/nodes", "gangs": "/apis/muster.dev/v1alpha1/gangs"}
_AWAY = (aiohttp.ClientError, TimeoutError, ConnectionError, ValueError)


class Onlooker:
    """Use as an async context manager; inside, everything that exists has been seen once."""

    def __init__(self, kubeconfig: Path) -> None:
        self._access = load_access(kubeconfig)
        self.history = History()
        self._known: dict[str, dict[tuple[str, str], int]] = {kind: {} for kind in PATHS}

    async def __aenter__(self) -> Self:
        authorization = await self._access.credentials.authorization()
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._access.tls or True),
            headers={"Authorization": authorization or ""},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
        )
        versions = {kind: await self._list(kind) for kind in PATHS}
        self._tasks = [asyncio.create_task(self._follow(kind, version)) for kind, version in versions.items()]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._http.close()

    async def _list(self, kind: str) -> str:
        """Tells what is new since the last time; returns the version to watch from."""
        async with self._http.get(self._access.server + PATHS[kind]) as answer:
            answer.raise_for_status()
            document = await answer.json()
        version: str = document["metadata"]["resourceVersion"]
        seen = set()
        for item in document["items"]:
            seen.add(self._see(kind, item, gone=False))
        for namespace, name in set(self._known[kind]) - seen:
            self.history.add(Change(int(version), kind, namespace, name, None))
            del self._known[kind][namespace, name]
        return version

    async def _follow(self, kind: str, version: str) -> None:
        while True:
            try:
                if not version:
                    version = await self._list(kind)
                version = await self._watch(kind, version)
            except _AWAY:
                await asyncio.sleep(0.1)

    async def _watch(self, kind: str, version: str) -> str:
        """Until the stream ends; returns where to go on, "" when that needs a new list."""
        params = {"watch": "true", "resourceVersion": version, "timeoutSeconds": "600"}
        try:
            async with self._http.get(self._access.server + PATHS[kind], params=params) as answer:
                if answer.status == 410:
                    return ""
                answer.raise_for_status()
                rest = b""
                async for chunk in answer.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        event = json.loads(line)
                        if event["type"] == "ERROR":
                            return ""
                        self._see(kind, event["object"], gone=event["type"] == "DELETED")
                        version = event["object"]["metadata"]["resourceVersion"]
        except _AWAY:
            await asyncio.sleep(0.1)
        return version

    def _see(self, kind: str, item: dict[str, Any], *, gone: bool) -> tuple[str, str]:
        metadata = item["metadata"]
        key = (metadata.get("namespace", ""), metadata["name"])
        revision = int(metadata["resourceVersion"])
        if self._known[kind].get(key) != revision:
            self.history.add(Change(revision, kind, *key, None if gone else item))
        if gone:
            self._known[kind].pop(key, None)
        else:
            self._known[kind][key] = revision
        return key
