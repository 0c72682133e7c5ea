"""Tenants, budgets and affinity over HTTP, from the client and from the command line."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agent_engines.cli import main
from agent_engines.client import SyncClient
from agent_engines.domain.errors import InvalidRequest
from agent_engines.domain.terms import Affinity, Budget
from agent_engines.runtime.agent_config import AgentConfig
from agent_engines.runtime.context import TaskContext
from agent_engines.runtime.engine import Engine
from api_house import House, HouseThread, house_fixture


def shop(name: str, price: float) -> Engine:
    engine = Engine(
        AgentConfig(agent_id=name, http_port=None, shutdown_grace_seconds=0),
        metadata={"cost_per_task": price, "tokens_per_task": 10},
    )

    @engine.task("buy", max_attempts=3)
    async def buy(context: TaskContext, payload: Any) -> str:
        if payload == "dear":
            context.cost(price * 3)
            context.tokens(50)
        return name

    return engine


house = house_fixture(others=(shop("cheap", 0.1), shop("fine", 0.5)))


async def send(house: House, **body: Any) -> Any:
    return await house.http.post("/route-task", params={"wait": 20}, json={"task_type": "buy", **body})


@pytest.mark.asyncio(loop_scope="module")
async def test_only_agents_the_budget_pays_for_are_asked(house: House) -> None:
    for _ in range(8):
        answer = (await send(house, budget={"cost": 0.2})).json()
        assert (answer["status"], answer["selected_agent"]) == ("success", "cheap")
    assert "over budget: costs 0.5, 0.2 is left" in answer["reasoning"]


@pytest.mark.parametrize(("field", "budget", "named"), [("cost", 0.05, "0.1"), ("tokens", 9, "10")])
@pytest.mark.asyncio(loop_scope="module")
async def test_a_budget_nobody_fits_is_refused_before_the_call(
    house: House, field: str, budget: float, named: str
) -> None:
    refused = await send(house, budget={field: budget})
    body = refused.json()
    assert (refused.status_code, body["field"]) == (422, f"budget.{field}")
    assert body["type"].endswith("budget-too-small")
    assert "cheap" in body["detail"]
    assert named in body["detail"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"budget": {"cost": -1}}, "budget.cost"),
        ({"budget": {"cost": "much"}}, "budget.cost"),
        ({"budget": {"tokens": 1.5}}, "budget.tokens"),
        ({"budget": {"attempts": 0}}, "budget.attempts"),
        ({"budget": {"money": 1}}, "budget.money"),
        ({"tenant": "a b"}, "tenant"),
        ({"affinity": {}}, "affinity.key"),
        ({"affinity": {"key": ""}}, "affinity.key"),
        ({"affinity": {"key": "k", "mode": "firm"}}, "affinity.mode"),
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_wrong_term_names_itself(house: House, body: dict[str, Any], field: str) -> None:
    answer = await send(house, **body)
    assert (answer.status_code, answer.json()["field"]) == (422, field), answer.text


@pytest.mark.asyncio(loop_scope="module")
async def test_a_task_shows_its_terms_and_what_it_used_up(house: House) -> None:
    terms = {"budget": {"cost": 1.0, "attempts": 2}, "affinity": {"key": "k"}, "tenant": "shown"}
    sent = (await send(house, payload="dear", **terms)).json()
    view = (await house.http.get(f"/v1/tasks/{sent['task_id']}")).json()
    assert {name: view[name] for name in terms} == terms
    price = {"cheap": 0.1, "fine": 0.5}[view["selected_agent"]]
    assert view["spent"] == {"cost": pytest.approx(price * 3), "tokens": 50}
    plain = (await send(house)).json()
    view = (await house.http.get(f"/v1/tasks/{plain['task_id']}")).json()
    assert (view["tenant"], "budget" in view, "spent" in view) == ("default", False, False)
    assert view["cost"] == {"cheap": 0.1, "fine": 0.5}[view["selected_agent"]]


@pytest.mark.asyncio(loop_scope="module")
async def test_the_header_names_the_tenant_where_the_body_does_not(house: House) -> None:
    async def sent(header: str, **body: Any) -> Any:
        return await house.http.post("/v1/tasks", json={"task_type": "buy", **body}, headers={"X-Tenant": header})

    task_id = (await sent("by-header")).json()["task_id"]
    assert (await house.http.get(f"/v1/tasks/{task_id}")).json()["tenant"] == "by-header"
    other = await sent("by-header", tenant="by-body")
    assert (other.status_code, other.json()["field"]) == (422, "X-Tenant")
    assert (await sent("not a name")).json()["field"] == "X-Tenant"
    batch = await house.http.post("/v1/tasks:batch", json=[{"task_type": "buy"}], headers={"X-Tenant": "by-header"})
    task_id = batch.json()["results"][0]["task_id"]
    assert (await house.http.get(f"/v1/tasks/{task_id}")).json()["tenant"] == "by-header"


@pytest.mark.asyncio(loop_scope="module")
async def test_a_tenant_that_has_spent_its_budget_is_refused_until_the_next_period(house: House) -> None:
    put = await house.http.put("/v1/tenants/poor", json={"budget": {"cost": 0.25, "period_seconds": 3600}})
    assert put.status_code == 200, put.text
    assert (put.json()["budget"]["cost"], put.json()["weight"]) == (0.25, 1.0)
    for _ in range(2):
        assert (await send(house, tenant="poor")).json()["selected_agent"] == "cheap"
    refused = await send(house, tenant="poor")
    body = refused.json()
    assert refused.status_code == 429
    assert body["type"].endswith("budget-spent")
    assert "'poor'" in body["detail"]
    assert "cheap, is expected to take 0.1" in body["detail"]
    assert 1 <= int(refused.headers["retry-after"]) <= 3600
    shown = (await house.http.get("/v1/tenants/poor")).json()
    assert shown["budget"]["spent_cost"] == pytest.approx(0.2)
    assert (await send(house, tenant="rich")).status_code == 200
    assert (await house.http.delete("/v1/tenants/poor")).status_code == 204
    assert (await house.http.delete("/v1/tenants/poor")).status_code == 404
    assert (await send(house, tenant="poor")).status_code == 200


@pytest.mark.asyncio(loop_scope="module")
async def test_a_key_that_was_accepted_keeps_its_answer_when_the_money_is_gone(house: House) -> None:
    await house.http.put("/v1/tenants/keyed", json={"budget": {"cost": 0.15}})
    first = await send(house, tenant="keyed", idempotency_key="once")
    assert first.status_code == 200
    assert (await send(house, tenant="keyed")).status_code == 429
    again = await send(house, tenant="keyed", idempotency_key="once")
    assert (again.status_code, again.json()["task_id"]) == (200, first.json()["task_id"])


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"budget": {"cost": -1}}, "budget.cost"),
        ({"budget": {"period_seconds": 60}}, "budget.period_seconds"),
        ({"budget": {"period_seconds": 5400}}, "budget.period_seconds"),
        ({"weight": 0}, "weight"),
        ({"colour": "red"}, "colour"),
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_wrong_limit_names_itself(house: House, body: dict[str, Any], field: str) -> None:
    answer = await house.http.put("/v1/tenants/odd", json=body)
    assert (answer.status_code, answer.json()["field"]) == (422, field), answer.text


@pytest.mark.asyncio(loop_scope="module")
async def test_one_key_meets_one_agent_and_says_so(house: House) -> None:
    homes: dict[str, set[str]] = {}
    for key in ("a", "b", "c", "d", "e", "f"):
        for _ in range(3):
            answer = (await send(house, affinity={"key": key, "mode": "hard"})).json()
            homes.setdefault(key, set()).add(answer["selected_agent"])
            assert answer["propensity"] == 1.0
    assert {len(found) for found in homes.values()} == {1}
    assert {agent for found in homes.values() for agent in found} == {"cheap", "fine"}
    soft = (await send(house, affinity={"key": "a"})).json()
    assert f"Affinity: {homes['a'].copy().pop()} is the key's agent and was preferred" in soft["reasoning"]


@pytest.mark.asyncio(loop_scope="module")
async def test_a_hard_key_waits_for_its_agent(house: House) -> None:
    owner = (await send(house, affinity={"key": "wait", "mode": "hard"})).json()["selected_agent"]
    await house.http.post(f"/v1/agents/{owner}:drain")
    refused = await send(house, affinity={"key": "wait", "mode": "hard"})
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) >= 1
    assert f"belongs to agent {owner}" in refused.json()["detail"]
    assert "draining by an operator" in refused.json()["detail"]
    soft = (await send(house, affinity={"key": "wait"})).json()
    assert soft["status"] == "success"
    assert soft["selected_agent"] != owner
    await house.http.post(f"/v1/agents/{owner}:resume")
    again = (await send(house, affinity={"key": "wait", "mode": "hard"})).json()
    assert again["selected_agent"] == owner


def test_the_client_and_the_command_line_know_tenants(capsys: pytest.CaptureFixture[str]) -> None:
    with HouseThread() as house, SyncClient(house.url) as client:

        def engines(*arguments: str, expect: int = 0) -> Any:
            assert main([*arguments, "--json", "--url", house.url]) == expect
            return json.loads(capsys.readouterr().out or "null")

        made = engines("tenants", "set", "acme", "--cost", "5", "--hours", "2", "--weight", "2")
        assert (made["weight"], made["budget"]["cost"], made["budget"]["period_seconds"]) == (2.0, 5.0, 7200.0)
        assert [one["name"] for one in engines("tenants", "list")["items"]] == ["acme"]
        assert engines("tenants", "show", "acme") == client.tenants.show("acme")
        sent = engines("submit", "echo", "--tenant", "acme", "--budget", '{"cost": 1}', "--affinity", "s1", "--wait")
        shown = engines("tasks", "show", sent["task_id"])
        assert (shown["tenant"], shown["budget"], shown["affinity"]) == ("acme", {"cost": 1.0}, {"key": "s1"})
        handle = client.submit("echo", 1, tenant="acme", budget=Budget(attempts=1), affinity=Affinity(key="s1"))
        assert handle.result(20) == 1
        assert handle.status().terms.tenant == "acme"
        client.tenants.put("acme", budget={"cost": 0.0})
        assert client.submit("echo", 1, tenant="acme").result(20) == 1, "free agents fit an empty budget"
        with pytest.raises(InvalidRequest):
            client.tenants.put("acme", weight=0.0)
        assert engines("tenants", "remove", "acme") == {"name": "acme", "removed": True}
        assert engines("tenants", "remove", "acme", expect=1) is None
