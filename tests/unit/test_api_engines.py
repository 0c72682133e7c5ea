"""What the other engines report, and how a policy is changed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
import pytest

from agent_engines.domain import subjects
from agent_engines.domain.errors import Unavailable
from agent_engines.domain.promotion import Gain
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
    changes: dict[str, list[str]] = {"changes": []} if path == "/v1/tuning" else {}
    assert answer.json() == changes | {"generated_at": "1970-01-01T00:00:00.000Z", "agents": [{"agent": "a"}]}


def judged(low: float, sample: float = 900.0) -> Callable[[str, bytes], Awaitable[bytes]]:
    """An optimizing engine that says one thing about every policy."""
    gain = Gain(
        rows=2000, value=low + 0.1, interval=(low, low + 0.2), effective_sample_size=sample, mean_weight=1.0,
        mean_weight_error=0.1, max_weight_share=0.01,
    )  # fmt: skip

    async def reply(subject: str, data: bytes) -> bytes:
        return msgspec.json.encode({"document": {"gains": [gain], "earned": []}})

    return reply


async def test_a_policy_is_promoted_and_rolled_back_over_http() -> None:
    async with open_house() as house:
        await house.bus.signals.listen(subjects.ask("optimizing", "replay"), judged(0.05))
        promoted = await house.http.post("/v1/policies/c3:promote", json={"by": "ann", "reason": "a try"})
        assert promoted.status_code == 200
        body = promoted.json()
        assert {name: body[name] for name in ("turn", "verb", "from", "to", "version", "by", "reason", "forced")} == {
            "turn": 1, "verb": "promote", "from": "adaptive", "to": "c3", "version": "c3-1", "by": "ann",
            "reason": "a try", "forced": False,
        }  # fmt: skip
        assert body["at"].endswith("Z")
        assert body["evidence"][0]["interval"] == [0.05, 0.25]
        done = await house.ended("echo")
        assert (done["strategy"], done["policy_version"]) == ("c3", "c3-1")
        left = await house.http.post("/v1/policies/c3:rollback")
        assert (left.status_code, left.json()["to"]) == (200, "adaptive")
        assert (await house.ended("echo"))["strategy"] == "adaptive"


async def test_a_change_that_cannot_be_is_refused_with_its_reason() -> None:
    async with open_house(agents=False) as house:
        post = house.http.post
        assert (await post("/v1/policies/c3:promote")).status_code == 503, "nobody can judge it"
        await house.bus.signals.listen(subjects.ask("optimizing", "replay"), judged(-0.2, 12.0))
        thin = await post("/v1/policies/c3:promote", json={})
        assert thin.status_code == 409
        assert "effective sample size 12 is under 500" in thin.json()["detail"]
        for verb in ("promote", "rollback"):
            assert (await post(f"/v1/policies/nothing:{verb}")).status_code == 404
            assert (await post(f"/v1/policies/always:a:{verb}")).status_code == 409
        foreign = await post("/v1/policies/c3:promote", headers={"sec-fetch-site": "cross-site"})
        assert foreign.status_code == 403
        for verb, said, field in (
            ("promote", {"force": True}, "reason"),
            ("promote", {"force": "yes"}, "force"),
            ("promote", {"by": "x" * 65}, "by"),
            ("promote", {"why": ""}, "why"),
            ("rollback", {"force": True, "reason": "x"}, "force"),
            ("rollback", {"reason": "\0"}, "reason"),
        ):
            refused = await post(f"/v1/policies/c3:{verb}", json=said)
            assert (refused.status_code, refused.json()["field"]) == (422, field), refused.text
        forced = await post("/v1/policies/c3:promote", json={"force": True, "reason": "I know"})
        assert (forced.status_code, forced.json()["forced"]) == (200, True)
        assert "effective sample size 12" in forced.json()["objections"][0]


@pytest.mark.parametrize("answer", [b'{"document": {}}', b'{"document": {"gains": 5}}', b"5"])
async def test_an_engine_that_answers_nonsense_is_a_503(answer: bytes) -> None:
    async def reply(subject: str, data: bytes) -> bytes:
        return answer

    async with open_house(agents=False) as house:
        await house.bus.signals.listen(subjects.ask("optimizing", "replay"), reply)
        assert (await house.http.post("/v1/policies/c3:promote")).status_code == 503


async def test_changes_that_cannot_be_read_are_a_503() -> None:
    async def reply(subject: str, data: bytes) -> bytes:
        return b'{"changes": [5]}'

    async with open_house(agents=False) as house:
        await house.bus.signals.listen(subjects.ask("optimizing", "tuning"), reply)
        assert (await house.http.get("/v1/tuning")).status_code == 503


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
