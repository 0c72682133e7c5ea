"""Event streams: a task's life, resumable, and nothing left behind by those who leave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import msgspec
import pytest

from agent_engines.adapters.http_server import HttpServer
from agent_engines.api.events import framed
from agent_engines.api.limits import ApiLimits
from agent_engines.ports.service import TaskEvent
from api_house import UNKNOWN, House, house_fixture, open_house

house = house_fixture()
pytestmark = pytest.mark.asyncio(loop_scope="module")


def events_of(text: str) -> list[dict[str, Any]]:
    """The events of a whole stream."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "event" in fields:
            found.append({**fields, "data": msgspec.json.decode(fields["data"])})
    return found


async def test_a_stream_tells_the_whole_life_and_ends(house: House) -> None:
    done = await house.ended("steps")
    answer = await house.http.get(f"/v1/tasks/{done['task_id']}/events")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    events = events_of(answer.text)
    names = [event["event"] for event in events]
    assert names[0] == "queued"
    assert names[-1] == "success"
    assert names.count("progress") == 3
    assert events[-1]["data"]["result"] == "done"


async def test_times_in_events_are_readable(house: House) -> None:
    done = await house.ended("echo")
    events = events_of((await house.http.get(f"/v1/tasks/{done['task_id']}/events")).text)
    assert events[0]["data"]["submitted_at"] == done["submitted_at"]
    assert events[-1]["data"]["completed_at"] == done["completed_at"]


async def test_a_broken_stream_goes_on_after_the_last_event_seen(house: House) -> None:
    done = await house.ended("steps")
    path = f"/v1/tasks/{done['task_id']}/events"
    events = events_of((await house.http.get(path)).text)
    for seen in range(1, len(events)):
        rest = await house.http.get(path, headers={"last-event-id": events[seen - 1]["id"]})
        assert events_of(rest.text) == events[seen:]


async def test_who_has_seen_the_end_is_told_not_to_come_back(house: House) -> None:
    done = await house.ended("echo")
    path = f"/v1/tasks/{done['task_id']}/events"
    last = events_of((await house.http.get(path)).text)[-1]["id"]
    assert (await house.http.get(path, headers={"last-event-id": last})).status_code == 204


async def test_an_event_id_from_elsewhere_starts_at_the_beginning(house: House) -> None:
    done = await house.ended("echo")
    answer = await house.http.get(f"/v1/tasks/{done['task_id']}/events", headers={"last-event-id": b"\x80 made up"})
    assert events_of(answer.text)[0]["event"] == "queued"


async def test_an_unknown_task_has_no_stream(house: House) -> None:
    assert (await house.http.get(f"/v1/tasks/{UNKNOWN}/events")).status_code == 404


async def test_only_event_streams_are_spoken_here(house: House) -> None:
    done = await house.ended("echo")
    answer = await house.http.get(f"/v1/tasks/{done['task_id']}/events", headers={"accept": "application/json"})
    assert answer.status_code == 406


async def test_head_gets_the_headers_only(house: House) -> None:
    task_id = await house.held()
    answer = await house.http.head(f"/v1/tasks/{task_id}/events")
    assert answer.status_code == 200
    assert answer.content == b""


def framed_text(data: dict[str, Any]) -> str:
    return framed(TaskEvent(id="1", event="progress", data=data)).decode()


async def test_line_breaks_in_data_cannot_forge_events() -> None:
    text = framed_text({"message": "a\n\nevent: success\r\n\r\n"})
    assert text.count("\n\n") == 1
    assert [event["event"] for event in events_of(text)] == ["progress"]


async def lines_of(stream: httpx2.Response) -> AsyncIterator[str]:
    async for line in stream.aiter_lines():
        yield line


async def test_streams_over_the_wire() -> None:
    """Live events, comments while nothing happens, a place freed by who leaves, and a farewell when the server drains."""
    limits = ApiLimits(heartbeat_seconds=0.01, event_streams=1)
    async with open_house(limits=limits) as house:
        server = HttpServer(house.app, host="127.0.0.1", port=0, drain=house.app.begin_drain)
        await server.start()
        async with httpx2.AsyncClient(base_url=server.url, timeout=20) as http:
            task_id = await house.held()
            path = f"/v1/tasks/{task_id}/events"

            async with http.stream("GET", path) as stream:
                lines = lines_of(stream)
                seen = [await anext(lines)]
                while ": still here" not in seen or "event: queued" not in seen:
                    seen.append(await anext(lines))
                assert seen[0] == "retry: 1000"
                crowded = await http.get(path)
                assert crowded.status_code == 503
                assert "retry-after" in crowded.headers

            async with asyncio.timeout(20):
                while (freed := await http.get(path, headers={"accept": "nothing/at-all"})).status_code == 503:
                    await asyncio.sleep(0.01)
            assert freed.status_code == 406

            async with asyncio.timeout(20), open_stream(http, path) as stream:
                lines = lines_of(stream)
                while await anext(lines) != "event: queued":
                    pass
                stopping = asyncio.create_task(server.stop(20))
                rest = [line async for line in lines]
                assert ": this server is going away, reconnect" in rest
                await stopping


def open_stream(http: httpx2.AsyncClient, path: str) -> Any:
    return http.stream("GET", path)
