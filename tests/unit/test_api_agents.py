"""Agent routes: the fleet, and what an operator decides about it."""

from __future__ import annotations

import pytest

from api_house import House, house_fixture

house = house_fixture()
pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_the_fleet_is_listed_with_its_replicas(house: House) -> None:
    listed = (await house.http.get("/v1/agents")).json()
    assert listed["next_cursor"] is None
    worker = next(agent for agent in listed["items"] if agent["name"] == "worker-1")
    assert worker["status"] == "healthy"
    assert worker["mode"] == "active"
    assert worker["breaker"] == "closed"
    assert "echo" in worker["capabilities"]
    assert worker["replicas"][0]["load"]["slots"] == 100
    assert worker["last_seen"].endswith("Z")


async def test_one_agent_is_shown(house: House) -> None:
    shown = await house.http.get("/v1/agents/worker-1")
    assert shown.status_code == 200
    assert shown.json()["name"] == "worker-1"


@pytest.mark.parametrize(("verb", "mode"), [("drain", "draining"), ("quarantine", "quarantined")])
async def test_an_agent_taken_out_gets_nothing_until_it_is_resumed(house: House, verb: str, mode: str) -> None:
    taken = await house.http.post(f"/v1/agents/worker-1:{verb}")
    assert taken.status_code == 200
    assert taken.json()["mode"] == mode
    assert (await house.http.post("/route-task", json={"task_type": "echo"})).status_code == 503
    resumed = await house.http.post("/v1/agents/worker-1:resume")
    assert resumed.json()["mode"] == "active"
    assert (await house.ended("echo"))["status"] == "success"


@pytest.mark.parametrize("name", ["nobody", "a.b", "-x", "x" * 65])
async def test_an_unknown_agent_is_not_found(house: House, name: str) -> None:
    assert (await house.http.get(f"/v1/agents/{name}")).status_code == 404
    assert (await house.http.post(f"/v1/agents/{name}:drain")).status_code == 404


async def test_an_unknown_verb_is_not_found(house: House) -> None:
    assert (await house.http.post("/v1/agents/worker-1:explode")).status_code == 404
