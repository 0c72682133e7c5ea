"""What happened to a task, for callers who look after its end: the same over HTTP and over the bus."""

from __future__ import annotations

import asyncio

import pytest

from agent_engines.client import ClientOptions
from agent_engines.client.bus_transport import BusTransport
from agent_engines.client.http_transport import HttpTransport
from agent_engines.domain import subjects
from agent_engines.domain.errors import NotFound
from agent_engines.engines import gateway
from agent_engines.ports.service import TaskEvent
from api_house import UNKNOWN, House, house_fixture

pytestmark = pytest.mark.asyncio(loop_scope="module")

house = house_fixture()


async def over_http(house: House, task_id: str) -> list[TaskEvent]:
    transport = HttpTransport("http://engines.test", app=house.app)
    try:
        return [event async for event in transport.events(task_id)]
    finally:
        await transport.close()


async def over_bus(house: House, task_id: str) -> list[TaskEvent]:
    transport = await BusTransport.open(house.bus, ClientOptions(request_timeout=5), owns_bus=False)
    try:
        return [event async for event in transport.events(task_id)]
    finally:
        await transport.close()


@pytest.mark.parametrize(
    ("task_type", "names"),
    [
        ("steps", ["queued", "running", "progress", "progress", "progress", "success"]),
        ("echo", ["queued", "running", "success"]),
        ("broken", ["queued", "running", "failed"]),
        ("unlucky", ["queued", "running", "dead_letter"]),
    ],
)
async def test_who_looks_after_the_end_sees_the_same_both_ways(house: House, task_type: str, names: list[str]) -> None:
    task_id = (await house.ended(task_type))["task_id"]
    found = await over_bus(house, task_id)
    assert [event.event for event in found] == names
    assert found == await over_http(house, task_id)
    assert found == await over_bus(house, task_id), "looking changes nothing"


async def test_a_history_that_fits_no_message_comes_in_several(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the bus took messages with two or three events."""
    asked: list[bytes] = []

    async def heard(_: str, data: bytes) -> None:
        asked.append(data)

    task_id = (await house.ended("steps"))["task_id"]
    listening = await house.bus.signals.listen(subjects.ask("intelligence", "events"), heard)
    whole = await over_bus(house, task_id)
    assert len(asked) == 1
    monkeypatch.setattr(gateway, "ENVELOPE_BYTES", house.bus.max_message_bytes - 500)
    assert await over_bus(house, task_id) == whole
    assert len(asked) > 2
    await listening.close()


async def test_a_cancelled_task_tells_its_end_and_one_that_is_unknown_is_not_found(house: House) -> None:
    task_id = await house.held()
    assert (await house.http.delete(f"/v1/tasks/{task_id}")).status_code == 202
    await house.service.task(task_id, 20)
    found = await over_bus(house, task_id)
    assert (found[0].event, found[-1].event) == ("queued", "cancelled")
    assert found == await over_http(house, task_id)
    for look in (over_bus, over_http):
        with pytest.raises(NotFound):
            await look(house, UNKNOWN)


async def test_who_looks_before_the_end_hears_progress_and_the_end_in_the_form_of_http(house: House) -> None:
    """States in between are not signalled; times read alike."""
    asked = asyncio.Event()

    async def heard(_: str, data: bytes) -> None:
        asked.set()

    listening = await house.bus.signals.listen(subjects.ask("intelligence", "events"), heard)
    task_id = await house.held()
    looking = asyncio.ensure_future(over_bus(house, task_id))
    await asyncio.wait_for(asked.wait(), 20)
    house.release.set()
    [end] = await looking
    await listening.close()
    told = (await over_http(house, task_id))[-1]
    assert (end.event, told.event) == ("success", "success")
    assert end.data["completed_at"] == told.data["completed_at"]
