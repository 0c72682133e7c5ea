"""What the other engines report, and what no engine changes by itself."""

from __future__ import annotations

import msgspec
import pytest

from agent_engines.domain import subjects
from agent_engines.domain.errors import Unavailable
from api_house import House, house_fixture, open_house

house = house_fixture()
pytestmark = pytest.mark.asyncio(loop_scope="module")

PATHS = {
    "/v1/performance": ("performance", "report"),
    "/v1/scaling": ("performance", "scaling"),
    "/v1/policies": ("optimizing", "policies"),
    "/v1/tuning": ("optimizing", "tuning"),
}


@pytest.mark.parametrize("path", PATHS)
async def test_an_engine_that_does_not_run_is_a_503(house: House, path: str) -> None:
    answer = await house.http.get(path)
    assert answer.status_code == 503
    assert "retry-after" in answer.headers


@pytest.mark.parametrize("path", PATHS)
async def test_a_report_is_passed_on_with_readable_times(house: House, path: str) -> None:
    async def reply(subject: str, data: bytes) -> bytes:
        return msgspec.json.encode({"generated_at": 0.0, "agents": [{"agent": "a"}]})

    listening = await house.bus.signals.listen(subjects.ask(*PATHS[path]), reply)
    try:
        answer = await house.http.get(path)
    finally:
        await listening.close()
    assert answer.status_code == 200
    assert answer.json() == {"generated_at": "1970-01-01T00:00:00.000Z", "agents": [{"agent": "a"}]}


async def test_policies_are_not_changed_by_http() -> None:
    async def reply(subject: str, data: bytes) -> bytes:
        return msgspec.json.encode({"active": "load_aware-1", "policies": [{"policy": "always:a"}]})

    async with open_house(agents=False) as house:
        assert (await house.http.post("/v1/policies/load_aware-1:promote")).status_code == 503
        await house.bus.signals.listen(subjects.ask("optimizing", "policies"), reply)
        for verb in ("promote", "rollback"):
            for version in ("load_aware-1", "always:a"):
                known = await house.http.post(f"/v1/policies/{version}:{verb}")
                assert known.status_code == 409
                assert "changes nothing" in known.json()["detail"]
            assert (await house.http.post(f"/v1/policies/nothing:{verb}")).status_code == 404


async def test_an_engine_that_answers_nonsense_is_a_503() -> None:
    async def reply(subject: str, data: bytes) -> bytes:
        return b'{"policies": 5}'

    async with open_house(agents=False) as house:
        await house.bus.signals.listen(subjects.ask("optimizing", "policies"), reply)
        assert (await house.http.post("/v1/policies/load_aware-1:promote")).status_code == 503


async def test_the_overview_has_it_all_in_one_answer(house: House) -> None:
    done = await house.ended("echo")
    answer = await house.http.get("/v1/overview")
    assert answer.status_code == 200
    body = answer.json()
    assert list(body) == ["agents", "performance", "scaling", "counts", "decisions", "problem", "server_time"]
    assert body["problem"] is None
    assert "worker-1" in {agent["name"] for agent in body["agents"]}
    assert body["counts"]["success"] >= 1
    assert body["decisions"][0]["request_id"] == done["request_id"]
    assert body["server_time"].endswith("Z")


async def test_the_overview_tells_the_fleet_and_the_cause_while_the_database_is_away(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away() -> dict[str, int]:
        raise Unavailable("postgres does not answer")

    monkeypatch.setattr(house.service, "counts", away)
    # The answer of the moment before is shared with whoever asks now.
    monkeypatch.setattr("agent_engines.api.overview.FRESH_SECONDS", 0.0)
    answer = await house.http.get("/v1/overview")
    body = answer.json()
    assert answer.status_code == 200
    assert "worker-1" in {agent["name"] for agent in body["agents"]}
    assert (body["counts"], body["decisions"], body["problem"]) == (None, None, "postgres does not answer")


async def test_many_who_look_at_once_cost_one_look(house: House) -> None:
    asked = 0

    async def reply(subject: str, data: bytes) -> bytes:
        nonlocal asked
        asked += 1
        return b"{}"

    listening = await house.bus.signals.listen(subjects.ask("performance", "scaling"), reply)
    try:
        for _ in range(20):
            assert (await house.http.get("/v1/overview")).status_code == 200
    finally:
        await listening.close()
    assert asked <= 2
