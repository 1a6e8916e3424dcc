"""Asking a replica's management port: the read API of ``muster serve``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from muster.cli.arguments import Failure

DEFAULT_SERVER = "http://127.0.0.1:8484"
_TIMEOUT_S = 30.0


async def read(server: str, path: str, parameters: Mapping[str, str]) -> Any:
    """The JSON that ``path`` answers. Raises ``Failure`` that says what went wrong."""
    import aiohttp

    try:
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(server.rstrip("/") + path, params=parameters) as answer,
        ):
            body = await answer.json()
            if answer.status != 200:
                raise Failure(f"{server} says: {body.get('error', answer.status)}")
            return body
    except aiohttp.InvalidURL:
        raise Failure(f"--server {server!r} is no URL; expected for example {DEFAULT_SERVER}") from None
    except TimeoutError:
        raise Failure(f"{server} did not answer within {_TIMEOUT_S:.0f} s") from None
    except (aiohttp.ClientError, ValueError, AttributeError):
        raise Failure(
            f"{server} cannot be reached or is no management port of muster serve (--server names another address; in "
            "a cluster: kubectl -n muster-system port-forward deploy/muster 8484)"
        ) from None
