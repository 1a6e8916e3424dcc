"""What is served without an application around it answers as aiohttp's application does."""

from __future__ import annotations

import aiohttp
import pytest
from aiohttp import web

from muster.control.listening import listening, posts_to

LIMIT = 100


async def length(request: web.BaseRequest) -> web.Response:
    return web.Response(text=str(len(await request.read())))


def one_path() -> web.Server:
    return posts_to("/mutate", length, most_bytes=LIMIT)


def application() -> web.Application:
    app = web.Application(client_max_size=LIMIT)
    app.router.add_post("/mutate", length)
    return app


@pytest.mark.parametrize("made", [one_path, application])
async def test_it_has_the_answers_of_an_application(made) -> None:
    async with listening(made(), "127.0.0.1", 0, None) as port, aiohttp.ClientSession() as http:

        async def asked(method: str, path: str, body: bytes = b"") -> tuple[int, str, str | None]:
            async with http.request(method, f"http://127.0.0.1:{port}{path}", data=body) as answer:
                return answer.status, (await answer.text()).partition(" ")[0], answer.headers.get("Allow")

        assert await asked("POST", "/mutate", b"x" * LIMIT) == (200, "100", None)
        assert await asked("POST", "/mutate?timeout=10s", b"x") == (200, "1", None), "as kube-apiserver asks"
        assert await asked("GET", "/mutate") == (405, "405:", "POST")
        assert await asked("POST", "/mutate/") == (404, "404:", None)
        assert await asked("GET", "/") == (404, "404:", None)
        assert (await asked("POST", "/mutate", b"x" * (LIMIT + 1)))[0] == 413


async def test_a_connection_is_kept_also_after_a_refusal_whose_body_was_read() -> None:
    async with listening(one_path(), "127.0.0.1", 0, None) as port:
        connector = aiohttp.TCPConnector(limit=1)
        opened = []
        trace = aiohttp.TraceConfig()

        async def note(*_: object) -> None:
            opened.append(1)

        trace.on_connection_create_end.append(note)
        async with aiohttp.ClientSession(connector=connector, trace_configs=[trace]) as http:
            for path in ("/mutate", "/other", "/mutate"):
                async with http.post(f"http://127.0.0.1:{port}{path}", data=b"x") as answer:
                    await answer.read()
        assert len(opened) == 1
