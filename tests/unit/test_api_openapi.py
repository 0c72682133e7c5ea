"""The OpenAPI document is part of the interface: it changes on purpose only."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
import pytest

from agent_engines.api.routing import compiled
from api_house import House, house_fixture

GOLDEN = Path(__file__).parent.parent / "golden" / "openapi.json"

house = house_fixture()
pytestmark = pytest.mark.asyncio(loop_scope="module")


async def document(house: House) -> dict[str, Any]:
    answer = await house.http.get("/openapi.json")
    assert answer.status_code == 200
    return answer.json()


async def test_the_document_is_the_one_we_agreed_on(house: House) -> None:
    """Run with UPDATE_GOLDEN=1 to write it anew, then read the difference."""
    made = msgspec.json.format(msgspec.json.encode(await document(house)), indent=2).decode() + "\n"
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(made)
    assert made == GOLDEN.read_text(), "the API changed: UPDATE_GOLDEN=1 writes the golden file anew"


async def test_every_route_of_the_contract_is_described(house: House) -> None:
    paths = (await document(house))["paths"]
    described = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    assert described == {
        "POST /route-task",
        "POST /v1/tasks",
        "POST /v1/tasks:batch",
        "POST /v1/tasks:wait",
        "GET /v1/tasks",
        "GET /v1/tasks/{task_id}",
        "DELETE /v1/tasks/{task_id}",
        "POST /v1/tasks/{task_id}:retry",
        "GET /v1/tasks/{task_id}/events",
        "POST /v1/tasks/{task_id}/feedback",
        "GET /v1/tasks/{task_id}/feedback",
        "GET /v1/tenants",
        "GET /v1/tenants/{tenant}",
        "PUT /v1/tenants/{tenant}",
        "DELETE /v1/tenants/{tenant}",
        "POST /v1/decisions",
        "GET /v1/decisions",
        "GET /v1/decisions/{request_id}",
        "GET /v1/agents",
        "GET /v1/agents/{agent_id}",
        "POST /v1/agents/{agent_id}:drain",
        "POST /v1/agents/{agent_id}:resume",
        "POST /v1/agents/{agent_id}:quarantine",
        "GET /v1/dead-letters",
        "POST /v1/dead-letters/{task_id}:redrive",
        "POST /v1/dead-letters:redrive",
        "GET /v1/dead-letters:redrive",
        "DELETE /v1/dead-letters:redrive",
        "GET /v1/schedules",
        "POST /v1/schedules",
        "GET /v1/schedules/{schedule}",
        "PUT /v1/schedules/{schedule}",
        "DELETE /v1/schedules/{schedule}",
        "POST /v1/schedules/{schedule}:pause",
        "POST /v1/schedules/{schedule}:resume",
        "POST /v1/schedules/{schedule}:run",
        "GET /v1/performance",
        "GET /v1/scaling",
        "GET /v1/policies",
        "GET /v1/policies/{version}:replay",
        "POST /v1/policies/{version}:promote",
        "POST /v1/policies/{version}:rollback",
        "GET /v1/tuning",
        "GET /v1/overview",
        "GET /health",
        "GET /ready",
        "GET /livez",
        "GET /metrics",
    }


async def test_every_reference_leads_somewhere(house: House) -> None:
    whole = await document(house)
    references = set(re.findall(r'"\$ref":"#/([^"]+)"', msgspec.json.encode(whole).decode()))
    assert references
    for reference in references:
        place: Any = whole
        for part in reference.split("/"):
            place = place[part]


async def test_operation_ids_are_unique(house: House) -> None:
    paths = (await document(house))["paths"]
    names = [detail["operationId"] for methods in paths.values() for detail in methods.values()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("path", "schema"),
    [
        ("/v1/tasks", "Listing_TaskBody_"),
        ("/v1/agents", "Listing_AgentBody_"),
        ("/v1/decisions", "Listing_DecisionBody_"),
        ("/v1/dead-letters", "Listing_DeadLetterBody_"),
        ("/v1/overview", "Overview"),
        ("/health", "Health"),
        ("/nowhere", "Problem"),
    ],
)
async def test_answers_are_as_described(house: House, path: str, schema: str) -> None:
    whole = await document(house)
    await house.ended("echo", {"a": 1})
    await house.ended("unlucky")
    described = {"$ref": f"#/components/schemas/{schema}", "components": whole["components"]}
    answer = (await house.http.get(path)).json()
    assert jsonschema_rs.validator_for(described).is_valid(answer)


async def test_a_pattern_matches_its_parts_and_nothing_more() -> None:
    pattern = compiled("/v1/agents/{agent_id}:drain")
    match = pattern.fullmatch("/v1/agents/worker-1:drain")
    assert match is not None
    assert match.groupdict() == {"agent_id": "worker-1"}
    for other in ("/v1/agents/a/b:drain", "/v1/agents/:drain", "/v1/agents/a:drain/", "/v1/agents/a:draining"):
        assert pattern.fullmatch(other) is None
