"""Requirements over HTTP: every form the guide names, and the refusal that says why each agent fell."""

from __future__ import annotations

from typing import Any

import pytest

from agent_engines.runtime.agent_config import AgentConfig
from agent_engines.runtime.engine import Engine
from api_house import House, house_fixture


def model(name: str, agent_type: str = "nlp", **metadata: Any) -> Engine:
    engine = Engine(
        AgentConfig(agent_id=name, http_port=None, shutdown_grace_seconds=0), agent_type=agent_type, metadata=metadata
    )

    @engine.task("write")
    async def write(payload: Any) -> str:
        return name

    if name == "large":

        @engine.task("translate")
        async def translate(payload: Any) -> str:
            return name

    return engine


house = house_fixture(
    others=(
        model("small", region="eu", context_length=8000, gpu=False, languages=["de", "en"]),
        model("large", "vision", region="us", context_length=128_000, gpu=True, languages=["en", "fr"]),
    )
)
pytestmark = pytest.mark.asyncio(loop_scope="module")


async def decided(house: House, requirements: dict[str, Any]) -> Any:
    return await house.http.post("/v1/decisions", json={"task_type": "write", "requirements": requirements})


@pytest.mark.parametrize(
    ("requirements", "agent"),
    [
        ({"gpu": True}, "large"),
        ({"gpu": False}, "small"),
        ({"region": "eu"}, "small"),
        ({"region": ["us", "asia"]}, "large"),
        ({"region": {"in": ["us", "asia"]}}, "large"),
        ({"region": {"!=": "us"}}, "small"),
        ({"context_length": {">=": 100_000}}, "large"),
        ({"context_length": {">": 1000, "<": 10_000}}, "small"),
        ({"context_length": {"<=": 8000}}, "small"),
        ({"context_length": {"==": 128_000}}, "large"),
        ({"languages": "de"}, "small"),
        ({"languages": ["fr", "it"]}, "large"),
        ({"agent": "small"}, "small"),
        ({"agent": ["large", "nobody"]}, "large"),
        ({"agent_type": "vision"}, "large"),
        ({"exclude_agents": ["large"]}, "small"),
        ({"capabilities": ["write", "translate"]}, "large"),
        ({"gpu": True, "region": "us", "context_length": {">=": 1}}, "large"),
    ],
)
async def test_only_who_meets_all_requirements_is_a_candidate(
    house: House, requirements: dict[str, Any], agent: str
) -> None:
    body = (await decided(house, requirements)).json()
    assert [one["agent"] for one in body["candidates"]] == [agent]
    assert body["selected_agent"] == agent


@pytest.mark.parametrize("requirements", [{"region": "mars"}, {"quantum": True}, {"context_length": {">": 10**9}}])
async def test_when_nobody_does_the_refusal_says_why_each_fell(house: House, requirements: dict[str, Any]) -> None:
    refused = await house.http.post("/v1/tasks", json={"task_type": "write", "requirements": requirements})
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) >= 1
    assert all(name in refused.json()["detail"] for name in ("small: ", "large: ", next(iter(requirements))))


@pytest.mark.parametrize(
    ("requirements", "field"),
    [
        ({"agent": 5}, "requirements.agent"),
        ({"exclude_agents": "small"}, "requirements.exclude_agents"),
        ({"capabilities": [1]}, "requirements.capabilities"),
        ({"region": {}}, "requirements.region"),
        ({"region": {"in": "eu"}}, "requirements.region"),
        ({"region": {"~": "eu"}}, "requirements.region"),
    ],
)
async def test_a_requirement_nobody_can_read_names_itself(
    house: House, requirements: dict[str, Any], field: str
) -> None:
    answer = await decided(house, requirements)
    assert (answer.status_code, answer.json()["field"]) == (422, field)
