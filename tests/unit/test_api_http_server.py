"""The HTTP server: bounded before a request exists, and gone when it is told to go."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agent_engines.adapters.http_server import HttpServer, ServerLimits
from agent_engines.domain.errors import ConfigurationError

GET = b"GET / HTTP/1.1\r\nhost: engines.test\r\n"


async def greet(scope: Any, receive: Any, send: Any) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"hi"})


@asynccontextmanager
async def serving(app: Any = greet, **limits: Any) -> AsyncIterator[HttpServer]:
    server = HttpServer(app, host="127.0.0.1", port=0, limits=ServerLimits(**limits))
    await server.start()
    try:
        yield server
    finally:
        await server.stop(5)


async def exchange(server: HttpServer, data: bytes) -> bytes:
    """Send bytes and read until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write(data)
        await writer.drain()
        async with asyncio.timeout(20):
            return await reader.read()
    finally:
        writer.close()


def problem_of(answer: bytes) -> dict[str, Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head
    return json.loads(body)


async def test_a_request_is_answered() -> None:
    async with serving() as server:
        answer = await exchange(server, GET + b"connection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"hi")
    assert b"server:" not in answer.lower()


async def test_a_head_that_is_too_large_is_refused_whether_it_comes_at_once_or_never_ends() -> None:
    async with serving(head_bytes=1024) as server:
        at_once = await exchange(server, GET + b"x-large: " + b"x" * 2000 + b"\r\n\r\n")
        endless = await exchange(server, GET + b"x-large: " + b"x" * 2000)
        path = await exchange(server, b"GET /" + b"x" * 2000 + b" HTTP/1.1\r\nhost: a\r\n\r\n")
    for answer in (at_once, endless, path):
        assert problem_of(answer)["status"] == 431


async def test_many_small_headers_are_counted_together() -> None:
    async with serving(head_bytes=1024) as server:
        answer = await exchange(server, GET + b"".join(b"x-%d: y\r\n" % number for number in range(200)) + b"\r\n")
    assert problem_of(answer)["status"] == 431


async def test_a_large_body_is_not_taken_for_a_large_head() -> None:
    async with serving(head_bytes=1024) as server:
        request = b"POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 5000\r\n\r\n" + b"x" * 5000
        answer = await exchange(server, request)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("begun", [b"", b"GE", GET + b"x-slow: "])
async def test_a_head_that_does_not_come_is_given_up(begun: bytes) -> None:
    """Slow senders must not hold connections for nothing."""
    async with serving(head_seconds=0.05) as server:
        answer = await exchange(server, begun)
    assert problem_of(answer)["status"] == 408


async def test_a_second_slow_head_on_one_connection_is_given_up_too() -> None:
    async with serving(head_seconds=0.05) as server:
        answer = await exchange(server, GET + b"\r\n" + GET + b"x-slow: ")
    first, _, second = answer.partition(b"hi")
    assert first.startswith(b"HTTP/1.1 200 OK\r\n")
    assert problem_of(second)["status"] == 408


async def test_nothing_is_written_in_front_of_an_answer_that_is_under_way() -> None:
    release = asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await release.wait()
        await greet(scope, receive, send)

    async with serving(slow, head_seconds=0.02) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(GET + b"\r\n" + GET + b"x-slow: ")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await reader.read(1)
        release.set()
        async with asyncio.timeout(20):
            assert (await reader.readline()) == b"HTTP/1.1 200 OK\r\n"
        writer.close()


@pytest.mark.parametrize(
    "garbage",
    [b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\nhost a\r\n\r\n", b"\0" * 64],
)
async def test_what_is_no_http_is_a_problem_and_the_end(garbage: bytes) -> None:
    async with serving() as server:
        problem = problem_of(await exchange(server, garbage))
        assert problem["status"] == 400
        assert {"type", "title", "detail", "request_id"} <= {name for name, value in problem.items() if value}


async def test_more_connections_than_allowed_are_sent_away() -> None:
    async with serving(connections=1) as server:
        _, first = await asyncio.open_connection("127.0.0.1", server.port)
        answer = await exchange(server, b"")
        first.close()
    assert problem_of(answer)["status"] == 503
    assert b"retry-after: 1" in answer


async def test_open_requests_end_within_the_grace() -> None:
    arrived, release = asyncio.Event(), asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        arrived.set()
        await release.wait()
        await greet(scope, receive, send)

    async with serving(slow) as server:
        asking = asyncio.create_task(exchange(server, GET + b"\r\n"))
        await arrived.wait()
        stopping = asyncio.create_task(server.stop(20))
        await asyncio.sleep(0)
        release.set()
        answer = await asking
        await stopping
    assert answer.endswith(b"hi")


async def test_what_does_not_end_within_the_grace_is_cut() -> None:
    arrived = asyncio.Event()

    async def stuck(scope: Any, receive: Any, send: Any) -> None:
        arrived.set()
        await asyncio.Event().wait()

    async with serving(stuck) as server:
        asking = asyncio.create_task(exchange(server, GET + b"\r\n"))
        await arrived.wait()
        async with asyncio.timeout(20):
            await server.stop(0.05)
            answer = await asyncio.gather(asking, return_exceptions=True)
    assert b"200 OK" not in (answer[0] if isinstance(answer[0], bytes) else b"")


async def test_stopping_drains_and_may_be_done_twice_or_before_the_start() -> None:
    drained: list[str] = []
    server = HttpServer(greet, host="127.0.0.1", port=0, drain=lambda: drained.append("drained"))
    await server.stop()
    await server.start()
    await server.stop()
    await server.stop()
    assert drained
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", server.port)


async def test_an_address_in_use_is_named() -> None:
    async with serving() as server:
        second = HttpServer(greet, host="127.0.0.1", port=server.port)
        with pytest.raises(ConfigurationError, match=f"AGENT_HTTP_PORT.*{server.port}"):
            await second.start()


@pytest.mark.parametrize(
    ("host", "url"),
    [("0.0.0.0", "http://127.0.0.1:80"), ("::", "http://[::1]:80"), ("10.0.0.5", "http://10.0.0.5:80")],
)
def test_the_url_is_one_that_can_be_opened(host: str, url: str) -> None:
    assert HttpServer(greet, host=host, port=80).url == url
