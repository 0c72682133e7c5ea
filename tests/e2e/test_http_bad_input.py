"""Bad input over a real socket, on the real bus and ledger: always a clear problem, never a 500, and the server lives on."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from agent_engines.adapters.embedded import Endpoints
from api_house import UNKNOWN, HouseThread

JSON = {"content-type": "application/json"}
SUBMIT = ("/route-task", "/v1/tasks", "/v1/decisions")


@pytest.fixture(scope="module", params=["memory", "servers"])
def house(request: pytest.FixtureRequest) -> Iterator[HouseThread]:
    servers: Endpoints | None = request.getfixturevalue("servers") if request.param == "servers" else None
    with HouseThread(servers) as running:
        yield running


@pytest.fixture(scope="module")
def connections(house: HouseThread) -> Iterator[httpx2.Client]:
    """After all of it, good input is still taken."""
    with httpx2.Client(base_url=house.url, timeout=30) as client:
        yield client
        good = client.post("/route-task", params={"wait": 20}, json={"task_type": "echo", "payload": "good"})
        assert good.json()["result"] == "good"


@pytest.fixture
def http(house: HouseThread, connections: httpx2.Client) -> Iterator[httpx2.Client]:
    """After each test: nothing unexpected was logged."""
    yield connections
    assert [line for line in house.telemetry.lines if line[1] == "Request failed unexpectedly"] == []


def refused(answer: httpx2.Response, *statuses: int) -> dict[str, Any]:
    """The problem, complete."""
    assert answer.status_code in statuses, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == answer.status_code
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert problem["type"].startswith("/docs#problem-")
    assert problem["title"]
    assert problem["detail"]
    return problem


def task(**fields: Any) -> bytes:
    return json.dumps({"task_type": "echo", **fields}).encode()


MALFORMED = {
    "empty": b"",
    "blank": b"   ",
    "cut off": b'{"task_type":"echo"',
    "two values": b'{"task_type":"echo"} {}',
    "trailing comma": b'{"task_type":"echo",}',
    "single quotes": b"{'task_type':'echo'}",
    "no quotes": b"{task_type:echo}",
    "NaN": b'{"task_type":"echo","payload":NaN}',
    "infinity": b'{"task_type":"echo","payload":-Infinity}',
    "leading zero": b'{"task_type":"echo","payload":01}',
    "raw control character": b'{"task_type":"echo","payload":"a\nb"}',
    "not UTF-8": b'{"task_type":"echo","payload":"\xff\xfe"}',
    "overlong UTF-8": b'{"task_type":"echo","payload":"\xc0\x80"}',
    "surrogate in UTF-8": b'{"task_type":"echo","payload":"\xed\xa0\x80"}',
    "UTF-16": '{"task_type":"echo"}'.encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf" + b'{"task_type":"echo"}',
    "deep arrays": b'{"task_type":"echo","payload":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep objects": b'{"task_type":"echo","payload":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
    "deep and open": b"[" * 500_000,
    "deep metadata": b'{"task_type":"echo","metadata":' + b'{"a":' * 40 + b"1" + b"}" * 40 + b"}",
    "zeros": b"\0" * 1000,
    "gzip": b"\x1f\x8b\x08\x00\x00\x00\x00\x00",
}


@pytest.mark.parametrize("path", SUBMIT)
@pytest.mark.parametrize("kind", MALFORMED)
def test_bytes_that_are_no_json_are_refused(http: httpx2.Client, path: str, kind: str) -> None:
    refused(http.post(path, content=MALFORMED[kind], headers=JSON), 400)


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_batch_of_such_bytes_is_refused(http: httpx2.Client, kind: str) -> None:
    body = b'{"tasks":[' + MALFORMED[kind] + b"]}"
    refused(http.post("/v1/tasks:batch", content=body, headers=JSON), 400, 422)


WRONG: dict[str, tuple[bytes, str | None]] = {
    "an array": (b"[]", None),
    "a text": (b'"echo"', None),
    "null": (b"null", None),
    "no task type": (b"{}", "task_type"),
    "task type a number": (b'{"task_type":5}', "task_type"),
    "task type null": (b'{"task_type":null}', "task_type"),
    "task type empty": (task(task_type=""), "task_type"),
    "task type too long": (task(task_type="x" * 129), "task_type"),
    "task type with a line break": (task(task_type="a\nb"), "task_type"),
    "task type with NUL": (task(task_type="a\0b"), "task_type"),
    "task type with blanks around": (task(task_type=" echo "), "task_type"),
    "priority 0": (task(priority=0), "priority"),
    "priority 6": (task(priority=6), "priority"),
    "priority huge": (b'{"task_type":"echo","priority":' + b"9" * 400 + b"}", None),
    "priority true": (task(priority=True), "priority"),
    "priority text": (task(priority="3"), "priority"),
    "priority fraction": (task(priority=1.5), "priority"),
    "timeout 0": (task(timeout_seconds=0), "timeout_seconds"),
    "timeout negative": (task(timeout_seconds=-1), "timeout_seconds"),
    "timeout 1e308": (task(timeout_seconds=1e308), "timeout_seconds"),
    "timeout 1e999": (b'{"task_type":"echo","timeout_seconds":1e999}', None),
    "deadline past": (task(deadline=1), "deadline"),
    "deadline 1e308": (task(deadline=1e308), "deadline"),
    "deadline text": (task(deadline="soon"), "deadline"),
    "deadline without offset": (task(deadline="2999-01-01T00:00:00"), "deadline"),
    "deadline year 0": (task(deadline="0001-01-01T00:00:00+23:59"), "deadline"),
    "attempts 0": (task(max_attempts=0), "max_attempts"),
    "attempts 101": (task(max_attempts=101), "max_attempts"),
    "key empty": (task(idempotency_key=""), "idempotency_key"),
    "key too long": (task(idempotency_key="k" * 256), "idempotency_key"),
    "key with NUL": (task(idempotency_key="k\0"), "idempotency_key"),
    "requirements a list": (task(requirements=[]), "requirements"),
    "requirements too many": (task(requirements={str(n): n for n in range(65)}), "requirements"),
    "metadata too large": (task(metadata={"a": "x" * 17_000}), "metadata"),
    "metadata with NUL": (task(metadata={"a": "\0"}), "metadata.a"),
    "payload with NUL": (task(payload={"a": ["\0"]}), "payload.a[0]"),
    "payload with NUL in a key": (task(payload={"\0": 1}), "a key of payload"),
    "payload with a lone surrogate": (b'{"task_type":"echo","payload":"\\ud800"}', None),
    "payload with a lone low surrogate": (b'{"task_type":"echo","payload":"\\udc00 x"}', None),
    "payload with a number out of range": (b'{"task_type":"echo","payload":1e400}', None),
    "a misspelt field": (task(priorty=1), "priorty"),
}


@pytest.mark.parametrize("path", SUBMIT)
@pytest.mark.parametrize("kind", WRONG)
def test_a_field_that_cannot_be_is_named(http: httpx2.Client, path: str, kind: str) -> None:
    body, field = WRONG[kind]
    problem = refused(http.post(path, content=body, headers=JSON), 400, 422)
    if field is not None:
        assert problem["status"] == 422
        assert problem["field"] == field


ODD_BUT_FINE = {
    "1e308": b"1e308",
    "negative zero": b"-0.0",
    "largest integer": b"18446744073709551615",
    "larger integer": b"99999999999999999999999999",
    "escaped backslash before u0000": rb'"\\u0000"',
    "a pair of surrogates": rb'"\ud83d\ude00"',
    "repeated keys": b'{"a":1,"a":2}',
    "an empty key": b'{"":""}',
    "right to left": '"\u202e"'.encode(),
    "thirty levels": b"[" * 30 + b"]" * 30,
    "a million characters": b'"' + b"x" * 1_000_000 + b'"',
    "markup": b'"<script>alert(1)</script>"',
}


@pytest.mark.parametrize("kind", ODD_BUT_FINE)
def test_odd_payloads_arrive_unharmed(http: httpx2.Client, kind: str) -> None:
    body = b'{"task_type":"echo","payload":' + ODD_BUT_FINE[kind] + b"}"
    answer = http.post("/route-task", params={"wait": 20}, content=body, headers=JSON)
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "success", answer.text
    # A large number may come back in another notation; it must be the same double.
    assert json.loads(answer.text, parse_int=float)["result"] == json.loads(ODD_BUT_FINE[kind], parse_int=float)


LARGE = b'{"task_type":"echo","payload":"' + b"x" * 2 * 1024 * 1024 + b'"}'


@pytest.mark.parametrize("path", SUBMIT)
def test_two_mebibytes_are_too_large_with_and_without_a_declared_length(http: httpx2.Client, path: str) -> None:
    refused(http.post(path, content=LARGE, headers=JSON), 413)
    chunks = (LARGE[start : start + 65_536] for start in range(0, len(LARGE), 65_536))
    refused(http.post(path, content=chunks, headers=JSON), 413)


def test_a_declared_gigabyte_is_refused_before_it_is_sent(house: HouseThread) -> None:
    head = b"POST /v1/tasks HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 1073741824\r\n"
    for more in (b"", b"expect: 100-continue\r\n"):
        answer = exchange(house, head + more + b"\r\n")
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"connection: close" in answer


def test_a_body_that_does_not_come_is_given_up(house: HouseThread) -> None:
    head = b"POST /v1/tasks HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n"
    assert exchange(house, head + b'{"task_type"').startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("path", [*SUBMIT, "/v1/tasks:batch"])
@pytest.mark.parametrize("media_type", ["text/plain", "application/xml", "application/x-www-form-urlencoded", "\xff"])
def test_another_media_type_is_refused(http: httpx2.Client, path: str, media_type: str) -> None:
    refused(http.post(path, content=task(), headers={"content-type": media_type.encode("latin-1")}), 415)


def test_one_key_for_two_bodies_is_a_conflict(http: httpx2.Client) -> None:
    first = http.post("/v1/tasks", content=task(payload=1, idempotency_key="conflict"), headers=JSON)
    assert first.status_code == 202
    same = http.post("/v1/tasks", content=task(idempotency_key="conflict", payload=1), headers=JSON)
    assert same.json()["task_id"] == first.json()["task_id"]
    refused(http.post("/v1/tasks", content=task(payload=2, idempotency_key="conflict"), headers=JSON), 409)


HEADERS: list[dict[bytes, bytes]] = [
    {b"idempotency-key": b"\xff\xfe"},
    {b"idempotency-key": b"k" * 256},
    {b"traceparent": b"00-" + b"f" * 500},
    {b"traceparent": b"\xff"},
    {b"x-request-id": b"\xff" * 200},
    {b"accept": b"\xff, ,;;q=,*/*;q=x, */*"},
    {b"content-length": b"12abc"},
    {b"content-type": b"application/json; charset=\xff"},
    {b"last-event-id": b"\xff"},
    {b"sec-fetch-site": b"\xff"},
    {b"origin": b"http://[::1"},
    {b"if-none-match": b"\xff"},
]


@pytest.mark.parametrize("headers", HEADERS, ids=str)
def test_no_header_breaks_the_server(house: HouseThread, http: httpx2.Client, headers: dict[bytes, bytes]) -> None:
    lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers.items())
    length = b"" if b"content-length" in headers else b"content-length: 20\r\n"
    post = b"POST /v1/tasks HTTP/1.1\r\nhost: a\r\nconnection: close\r\n" + length + lines + b'\r\n{"task_type":"echo"}'
    get = f"GET /v1/tasks/{UNKNOWN}/events HTTP/1.1\r\nhost: a\r\nconnection: close\r\n".encode() + lines + b"\r\n"
    page = b"GET /docs HTTP/1.1\r\nhost: a\r\nconnection: close\r\n" + lines + b"\r\n"
    for request in (post, get, page):
        status = int(exchange(house, request).split(b" ", 2)[1])
        assert status < 500


PATHS = [
    "/v1/tasks/%00",
    "/v1/tasks/%ff%fe",
    "/v1/tasks/..%2f..%2fetc%2fpasswd",
    "/v1/tasks/" + "a" * 5000,
    "/v1/tasks/00000000-0000-0000-0000-00000000000%00",
    "/v1/decisions/%00",
    "/v1/decisions/%F0%9F%98%80",
    "/v1/decisions/%ED%A0%80",
    "/v1/agents/%2e%2e",
    "/v1/agents/a%20b",
    "/static/%2e%2e/%2e%2e/pyproject.toml",
    "//",
    "/%",
    "/v1//tasks",
]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path[:40])
def test_no_path_breaks_the_server(house: HouseThread, http: httpx2.Client, path: str) -> None:
    for method in ("GET", "DELETE", "POST", "PATCH", "OPTIONS"):
        request = f"{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".encode()
        status = int(exchange(house, request).split(b" ", 2)[1])
        assert 400 <= status < 500


QUERIES = ["limit=", "limit=-1", "limit=9" * 20, "since=%00", "since=1e400", "since=NaN", "status=%F0%9F%98%80"]
QUERIES += [
    "cursor=%00",
    "cursor=" + "A" * 3000,
    "cursor=AAAA",
    "cursor=e30",
    "agent=%00",
    "task_type=%00",
    "limit=1e2",
]


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query[:30])
@pytest.mark.parametrize("path", ["/v1/tasks", "/v1/decisions", "/v1/dead-letters"])
def test_no_query_breaks_the_server(http: httpx2.Client, path: str, query: str) -> None:
    answer = http.get(f"{path}?{query}")
    assert answer.status_code in (200, 422), answer.text
    if answer.status_code == 422:
        assert refused(answer, 422)["field"] == query.split("=", maxsplit=1)[0]


@pytest.mark.parametrize(
    "query", ["%ff=1", "&&&", "a=1&a=2", "%00", "agent=%ff", "agent=\u00e4", "agent=" + "x" * 8000]
)
def test_odd_queries_are_taken_or_refused(http: httpx2.Client, query: str) -> None:
    assert http.get(f"/v1/tasks?{query}").status_code in (200, 422)


def exchange(house: HouseThread, data: bytes) -> bytes:
    """Send bytes and read until the server closes."""
    with socket.create_connection(("127.0.0.1", house.port), timeout=30) as connection:
        connection.sendall(data)
        answer = b""
        while piece := connection.recv(65_536):
            answer += piece
        return answer
