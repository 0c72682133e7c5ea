"""Submit, route, run, record: over HTTP, on real servers, as a user sees it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import asyncpg
import httpx2
import pytest

from agent_engines import Client, TaskRequest
from running_system import System, finished, wait_until


def test_a_routed_task_tells_who_was_chosen_and_why(fleet: System) -> None:
    """The answer of /route-task has every field of the contract."""
    with fleet.http() as http:
        answer = http.post("/route-task", json={"task_type": "test", "payload": {"n": 1}})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["status"] == "queued"
    assert body["selected_agent"] == "echo"
    assert 0 < body["confidence"] <= 1
    assert 0 < body["propensity"] <= 1
    assert body["durability"] == "committed"
    assert body["reasoning"]
    assert body["strategy"]
    assert body["policy_version"]
    assert body["task_id"]
    assert body["request_id"]


def test_waiting_returns_the_result(fleet: System) -> None:
    """?wait= holds the answer back until the task has ended, and then has the result in it."""
    with fleet.http() as http:
        body = http.post(
            "/route-task", params={"wait": 30}, json={"task_type": "echo", "payload": {"x": [1, "two"]}}
        ).json()
        assert body["status"] == "success"
        assert body["result"] == {"x": [1, "two"]}
        again = http.get(f"/v1/tasks/{body['task_id']}").json()
    assert again["status"] == "success"
    assert again["attempts"] == 1
    assert again["execution_time_ms"] >= 0
    assert again["completed_at"] >= again["started_at"] >= again["submitted_at"]


async def test_the_ledger_holds_task_decision_and_result(fleet: System) -> None:
    """What the contract says about tables is true for a finished task."""
    with fleet.http() as http:
        body = http.post("/route-task", params={"wait": 30}, json={"task_type": "test"}).json()
    (decision,) = await fleet.sql("SELECT * FROM decision_history WHERE request_id = $1", body["request_id"])
    assert decision["selected_agent"] == "echo"
    assert decision["reasoning"] == body["reasoning"]
    assert decision["propensity"] == pytest.approx(body["propensity"])
    results = await fleet.sql("SELECT * FROM task_results WHERE task_id::text = $1", body["task_id"])
    assert [row["status"] for row in results] == ["success"]
    assert results[0]["agent_id"] == "echo"
    agents = await fleet.sql("SELECT name, status FROM agents")
    assert {"echo", "misbehaving"} <= {row["name"] for row in agents}


async def test_five_thousand_tasks_through_http_have_one_terminal_row_each(fleet: System) -> None:
    """Nothing is lost and nothing is recorded twice at volume, by the front door."""
    batch, batches = 500, 10

    def send(http: httpx2.Client, number: int) -> list[str]:
        waiting = [{"task_type": "echo", "payload": {"i": number * batch + i}} for i in range(batch)]
        ids: list[str] = []
        while waiting:
            answer = http.post("/v1/tasks:batch", json={"tasks": waiting})
            assert answer.status_code in (202, 429, 503), answer.text
            results = answer.json()["results"]
            ids += [entry["task_id"] for entry in results if "task_id" in entry]
            waiting = [task for task, entry in zip(waiting, results, strict=True) if "task_id" not in entry]
            if waiting:
                # What a slow machine cannot take yet is refused with a hint when to come again.
                time.sleep(max(entry["error"]["retry_after"] for entry in results if "error" in entry))
        return ids

    with fleet.http() as http, ThreadPoolExecutor(4) as pool:
        ids = [task_id for part in pool.map(lambda number: send(http, number), range(batches)) for task_id in part]
    assert len(set(ids)) == batch * batches
    await _each_has_one_terminal_row(fleet, ids)


async def test_twenty_thousand_tasks_through_the_client_have_one_terminal_row_each(fleet: System) -> None:
    """The same over the bus, with the Python client."""
    async with Client(fleet.endpoints["nats_url"]) as client:
        handles = await client.submit_many(TaskRequest(task_type="echo", payload={"i": i}) for i in range(20_000))
        results = [await handle.result(timeout=120) for handle in handles]
    assert Counter(result["i"] for result in results) == Counter(range(20_000))
    await _each_has_one_terminal_row(fleet, [handle.task_id for handle in handles])


async def _each_has_one_terminal_row(fleet: System, ids: list[str]) -> None:
    connection = await asyncpg.connect(fleet.endpoints["postgres_url"])
    try:

        async def rows() -> list[asyncpg.Record]:
            return await connection.fetch(
                "SELECT task_id::text AS id, status FROM task_results WHERE task_id::text = ANY($1)", ids
            )

        for _ in range(1200):
            found = await rows()
            if len(found) >= len(ids):
                break
            await asyncio.sleep(0.1)
    finally:
        await connection.close()
    assert Counter(row["id"] for row in found) == Counter(ids)
    assert {row["status"] for row in found} == {"success"}


async def test_a_killed_replica_loses_nothing(fleet: System) -> None:
    """kill -9 of one of two replicas in mid-run: every accepted task still succeeds, once."""
    with fleet.http() as http:
        tasks = [{"task_type": "slow", "payload": {"steps": 2, "pause": 0.2}} for _ in range(200)]
        answer = http.post("/v1/tasks:batch", json={"tasks": tasks})
        ids = [entry["task_id"] for entry in answer.json()["results"]]
        ours = set(ids)

        def some_are_done() -> bool:
            done = http.get("/v1/tasks", params={"status": "success"}).json()["items"]
            return any(task["task_id"] in ours for task in done)

        wait_until(some_are_done, "some tasks are done")
        victim = fleet.pid("agent:misbehaving:1")
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: fleet.pid("agent:misbehaving:1") != victim, "the supervisor starts another replica")
        ended = [finished(http, task_id, 90) for task_id in ids]
    assert {task["status"] for task in ended} == {"success"}
    await _each_has_one_terminal_row(fleet, ids)


def test_the_same_key_is_the_same_task(fleet: System) -> None:
    """A repeated submission gets the first answer; the same key with another body is a conflict."""
    body = {"task_type": "echo", "payload": 1, "idempotency_key": "order-7"}
    with fleet.http() as http:
        first = http.post("/v1/tasks", json=body)
        second = http.post("/v1/tasks", json=body)
        other = http.post("/v1/tasks", json={**body, "payload": 2})
    assert first.status_code == second.status_code == 202
    assert first.json()["task_id"] == second.json()["task_id"]
    assert first.headers["Location"].endswith(first.json()["task_id"])
    assert other.status_code == 409
    assert other.headers["Content-Type"].startswith("application/problem+json")


def test_a_queued_or_running_task_can_be_cancelled(fleet: System) -> None:
    """DELETE answers 202, the task ends as cancelled and stays so; cancelling again is a conflict."""
    with fleet.http() as http:
        task_id = http.post("/v1/tasks", json={"task_type": "slow", "payload": {"steps": 300}}).json()["task_id"]
        wait_until(lambda: http.get(f"/v1/tasks/{task_id}").json()["status"] == "running", "the task runs")
        assert http.delete(f"/v1/tasks/{task_id}").status_code == 202
        assert finished(http, task_id)["status"] == "cancelled"
        assert http.delete(f"/v1/tasks/{task_id}").status_code == 409


def test_events_tell_the_whole_life_and_resume_where_they_broke(fleet: System) -> None:
    """The stream has queued, progress and the end; with Last-Event-ID only what came after."""
    with fleet.http() as http:
        body = {"task_type": "slow", "payload": {"steps": 4, "pause": 0.1}}
        task_id = http.post("/v1/tasks", json=body).json()["task_id"]
        events = _events(http, task_id)
        names = [event["event"] for event in events]
        assert names[0] == "queued"
        assert names[-1] == "success"
        assert names.count("progress") == 4
        again = _events(http, task_id, events[2]["id"])
    assert [event["id"] for event in again] == [event["id"] for event in events[3:]]


async def test_who_looks_after_the_end_sees_the_same_over_http_and_over_the_bus(fleet: System) -> None:
    async with Client(fleet.url) as over_http, Client(fleet.endpoints["nats_url"]) as over_bus:
        handle = await over_bus.submit("slow", {"steps": 3, "pause": 0.01})
        await handle.result(timeout=60)
        found = [event async for event in handle.events()]
        assert [event.event for event in found] == ["queued", "running", *["progress"] * 3, "success"]
        assert found == [event async for event in over_http.transport.events(handle.task_id)]


def _events(http: httpx2.Client, task_id: str, after: str | None = None) -> list[dict[str, str]]:
    headers = {"Last-Event-ID": after} if after else {}
    events: list[dict[str, str]] = []
    with http.stream("GET", f"/v1/tasks/{task_id}/events", headers=headers) as stream:
        current: dict[str, str] = {}
        for line in stream.iter_lines():
            if not line and current:
                events.append(current)
                current = {}
            elif line and not line.startswith(":"):
                name, _, value = line.partition(":")
                current[name] = value.strip()
    return [event for event in events if "event" in event]


def test_a_requirement_nobody_meets_is_explained(fleet: System) -> None:
    """503 with Retry-After, and the reason names what was missing."""
    with fleet.http() as http:
        unknown = http.post("/route-task", json={"task_type": "nobody-does-this"})
        unmet = http.post("/route-task", json={"task_type": "slow", "requirements": {"region": "mars"}})
    for answer in (unknown, unmet):
        assert answer.status_code == 503
        assert "Retry-After" in answer.headers
    assert "nobody-does-this" in unknown.json()["detail"]
    assert "region" in unmet.json()["detail"]


def test_metrics_have_the_contracts_names(fleet: System) -> None:
    """Prometheus text of the router has the names and labels users build dashboards on."""
    with fleet.http() as http:
        http.post("/route-task", params={"wait": 30}, json={"task_type": "test"})
        text = http.get("/metrics").text
    assert "routing_decisions_total{" in text
    assert "# TYPE agent_tasks_total counter" in text or "# TYPE agent_tasks counter" in text
    assert "agent_task_duration_seconds" in text
    assert "agent_queue_size" in text
    assert "circuit_breaker_state" in text


def test_the_other_engines_answer_through_the_front_door(fleet: System) -> None:
    """Performance, scaling and policies are reachable on the router's address."""
    with fleet.http() as http:
        for _ in range(20):
            http.post("/route-task", params={"wait": 30}, json={"task_type": "test"})
        performance = wait_until(
            lambda: [row for row in http.get("/v1/performance").json()["agents"] if row["agent"] == "echo"],
            "the performance engine has seen the echo agent",
        )
        scaling = http.get("/v1/scaling").json()
        policies = http.get("/v1/policies").json()
    assert performance
    assert scaling["agents"]
    assert policies["policies"] is not None


def test_decisions_can_be_listed_and_read_back(fleet: System) -> None:
    """The record of a choice has every candidate with its probability."""
    with fleet.http() as http:
        made = http.post("/v1/decisions", json={"task_type": "echo"}).json()
        record = wait_until(
            lambda: (answer := http.get(f"/v1/decisions/{made['request_id']}")).status_code == 200 and answer.json(),
            "the recommendation is recorded",
        )
        listed = http.get("/v1/decisions", params={"task_type": "echo"}).json()
    assert record["selected_agent"] == made["selected_agent"]
    assert sum(candidate["probability"] for candidate in record["candidates"]) == pytest.approx(1.0)
    assert made["request_id"] in json.dumps(listed)
