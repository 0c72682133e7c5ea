"""The edge: every request gets an id, a bound and a clean answer."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import msgspec
import pytest

from agent_engines.api.edge import Edge
from agent_engines.api.exchange import Call, Reply, json_reply
from agent_engines.api.limits import ApiLimits
from agent_engines.api.routing import Operation
from api_house import House, KeptTelemetry, house_fixture, open_house

house = house_fixture()
pytestmark = pytest.mark.asyncio(loop_scope="module")

TASK = {"task_type": "echo"}


def edge_of(handler: Any, *, limits: ApiLimits | None = None, probe: bool = False) -> tuple[Edge, KeptTelemetry]:
    """An application with one operation, GET and POST /."""
    telemetry = KeptTelemetry()
    edge = Edge(limits=limits or ApiLimits(), log=telemetry)
    edge.serve(
        [
            Operation(method=method, path="/", handler=handler, summary="", tag="", replies={}, probe=probe)
            for method in ("GET", "POST")
        ]
    )
    return edge, telemetry


def client(edge: Edge) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=edge), base_url="http://engines.test")


async def test_a_request_id_is_kept_and_told_in_the_problem(house: House) -> None:
    answer = await house.http.get("/nowhere", headers={"x-request-id": "order-17/retry:2"})
    assert answer.headers["x-request-id"] == "order-17/retry:2"
    assert answer.json()["request_id"] == "order-17/retry:2"


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "line\\nbreak?", '{"json"}'])
async def test_a_request_id_that_could_do_harm_is_replaced(house: House, given: str) -> None:
    answer = await house.http.get("/livez", headers={"x-request-id": given})
    assert answer.headers["x-request-id"] != given
    assert len(answer.headers["x-request-id"]) >= 12


async def test_no_two_requests_share_a_generated_id(house: House) -> None:
    ids = {(await house.http.get("/livez")).headers["x-request-id"] for _ in range(50)}
    assert len(ids) == 50


async def test_an_unknown_path_is_a_problem(house: House) -> None:
    answer = await house.http.get("/v2/tasks")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert sorted(answer.json()) == ["detail", "request_id", "status", "title", "type"]


async def test_another_method_is_told_what_is_possible(house: House) -> None:
    answer = await house.http.put("/v1/tasks", json=TASK)
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD, POST"


async def test_head_is_answered_where_get_is(house: House) -> None:
    assert (await house.http.head("/v1/agents")).status_code == 200


@pytest.mark.parametrize("accept", ["text/html", "application/json;q=0", "image/*, text/plain;q=0.5"])
async def test_who_cannot_read_json_is_told_before_anything_happens(house: House, accept: str) -> None:
    answer = await house.http.post("/v1/tasks", json={"task_type": "listed"}, headers={"accept": accept})
    assert answer.status_code == 406
    assert (await house.http.get("/v1/tasks", params={"task_type": "listed"})).json()["items"] == []


@pytest.mark.parametrize("accept", ["*/*", "application/*", "text/html, application/json;q=0.1", "*/*;q=0.1"])
async def test_who_can_read_json_is_served(house: House, accept: str) -> None:
    assert (await house.http.get("/v1/tasks", headers={"accept": accept})).status_code == 200


@pytest.mark.parametrize("media_type", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data", ""])
async def test_a_body_that_is_declared_as_something_else_is_refused(house: House, media_type: str) -> None:
    answer = await house.http.post("/v1/tasks", content=b'{"task_type":"echo"}', headers={"content-type": media_type})
    assert answer.status_code == 415


@pytest.mark.parametrize(
    "media_type", ["application/json", "Application/JSON; charset=utf-8", "application/cloudevents+json"]
)
async def test_json_by_any_name_is_taken(house: House, media_type: str) -> None:
    answer = await house.http.post("/v1/tasks", content=b'{"task_type":"echo"}', headers={"content-type": media_type})
    assert answer.status_code == 202


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "http://evil.test"},
        {"origin": "null"},
        {"origin": "http://[broken"},
    ],
)
async def test_pages_of_other_sites_change_nothing(house: House, headers: dict[str, str]) -> None:
    """A browser on the operator's machine reaches a local server; a foreign page must not use that."""
    answer = await house.http.post("/v1/agents/worker-1:quarantine", headers=headers)
    assert answer.status_code == 403
    assert (await house.http.get("/v1/agents/worker-1")).json()["mode"] == "active"


@pytest.mark.parametrize(
    "headers", [{}, {"sec-fetch-site": "same-origin"}, {"sec-fetch-site": "none"}, {"origin": "http://engines.test"}]
)
async def test_our_own_pages_and_programs_may(house: House, headers: dict[str, str]) -> None:
    assert (await house.http.post("/v1/agents/worker-1:resume", headers=headers)).status_code == 200


async def test_reading_from_other_sites_is_left_to_the_browser(house: House) -> None:
    assert (await house.http.get("/livez", headers={"sec-fetch-site": "cross-site"})).status_code == 200


async def test_an_unexpected_error_is_logged_and_not_told() -> None:
    async def broken(call: Call) -> Reply:
        raise RuntimeError("password=hunter2")

    edge, telemetry = edge_of(broken)
    async with client(edge) as http:
        answer = await http.get("/", headers={"x-request-id": "r-1"})
    assert answer.status_code == 500
    assert "hunter2" not in answer.text
    ((level, _, context),) = telemetry.lines
    assert level == "error"
    assert context["request_id"] == "r-1"
    assert "hunter2" in context["traceback"]
    assert edge.in_flight == 0


async def test_more_requests_than_allowed_at_once_are_sent_away() -> None:
    release, arrived = asyncio.Event(), asyncio.Event()

    async def slow(call: Call) -> Reply:
        arrived.set()
        await release.wait()
        return json_reply(200, {})

    edge, _ = edge_of(slow, limits=ApiLimits(in_flight=1))
    async with client(edge) as http:
        first = asyncio.create_task(http.get("/"))
        await arrived.wait()
        second = await http.get("/")
        assert second.status_code == 503
        assert second.headers["retry-after"] == "1"
        release.set()
        assert (await first).status_code == 200
        assert (await http.get("/")).status_code == 200


async def test_probes_are_answered_when_nothing_else_is() -> None:
    async def alive(call: Call) -> Reply:
        return json_reply(200, {})

    edge, _ = edge_of(alive, limits=ApiLimits(in_flight=0), probe=True)
    async with client(edge) as http:
        assert (await http.get("/")).status_code == 200


async def test_a_draining_server_answers_and_closes() -> None:
    async with open_house() as house:
        assert "connection" not in (await house.http.get("/v1/agents")).headers
        house.app.begin_drain()
        answer = await house.http.post("/route-task", json=TASK)
        assert answer.status_code == 200
        assert answer.headers["connection"] == "close"
        ready = await house.http.get("/ready")
        assert ready.status_code == 503
        assert ready.json()["detail"] == "draining"
        assert (await house.http.get("/livez")).status_code == 200


async def test_who_hangs_up_while_waiting_frees_everything(house: House) -> None:
    task_id = await house.held()
    messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": f"/v1/tasks/{task_id}",
        "query_string": b"wait=300",
        "headers": [],
    }
    asking = asyncio.create_task(house.app(scope, messages.get, send))
    while house.app.in_flight == 0:
        await asyncio.sleep(0)
    messages.put_nowait({"type": "http.disconnect"})
    async with asyncio.timeout(20):
        await asking
    assert sent == []
    assert house.app.in_flight == 0
    house.release.set()


async def test_lifespan_is_answered_and_websockets_are_not() -> None:
    edge, _ = edge_of(None)
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(dict(message))

    coming = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}, {"type": "websocket.connect"}])

    async def receive() -> Any:
        return next(coming)

    await edge({"type": "lifespan"}, receive, send)
    await edge({"type": "websocket"}, receive, send)
    assert [message["type"] for message in sent] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
        "websocket.close",
    ]


async def test_every_answer_forbids_guessing_its_type(house: House) -> None:
    for path in ("/livez", "/nowhere", "/docs", "/v1/agents", "/metrics"):
        assert (await house.http.get(path)).headers["x-content-type-options"] == "nosniff"


async def test_problems_are_complete_json(house: House) -> None:
    answer = await house.http.get("/v1/tasks", params={"limit": "0"})
    assert msgspec.json.decode(answer.content)["status"] == answer.status_code == 422
