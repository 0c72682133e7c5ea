"""Schedule routes, tasks that run later, and redrives of many dead letters, over HTTP."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from api_house import House, house_fixture

house = house_fixture()
pytestmark = pytest.mark.asyncio(loop_scope="module")
PLAN = {"cron": "30 2 * * *", "timezone": "Europe/Berlin", "task": {"task_type": "echo", "payload": {"n": 1.50}}}


async def test_a_schedule_is_made_shown_listed_and_forgotten(house: House) -> None:
    made = await house.http.post("/v1/schedules", json={"name": "nightly", **PLAN})
    assert made.status_code == 201, made.text
    assert made.headers["location"] == "/v1/schedules/nightly"
    body = made.json()
    assert body["enabled"] is True
    assert body["catch_up"] == "skip"
    assert body["next_run_at"].endswith(":30:00.000Z")
    assert (body["last_run_at"], body["last_task_id"], body["last_error"]) == (None, None, None)
    assert body["task"] == {
        "task_type": "echo",
        "payload": {"n": 1.5},
        "requirements": {},
        "priority": 3,
        "timeout_seconds": None,
        "max_attempts": None,
        "metadata": {},
        "strategy": None,
        "features": None,
        "embedding": None,
        "tenant": "default",
        "budget": None,
        "affinity": None,
    }
    assert (await house.http.get("/v1/schedules/nightly")).json() == body
    assert (await house.http.get("/v1/schedules")).json() == {"items": [body], "next_cursor": None}
    again = await house.http.post("/v1/schedules", json={"name": "nightly", **PLAN})
    assert again.status_code == 409
    gone = await house.http.delete("/v1/schedules/nightly")
    assert (gone.status_code, gone.content) == (204, b"")
    assert (await house.http.get("/v1/schedules/nightly")).status_code == 404
    assert (await house.http.delete("/v1/schedules/nightly")).status_code == 404


async def test_lists_have_pages(house: House) -> None:
    for name in ("a", "b", "c"):
        await house.http.put(f"/v1/schedules/{name}", json=PLAN)
    first = (await house.http.get("/v1/schedules", params={"limit": 2})).json()
    rest = (await house.http.get("/v1/schedules", params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert [one["name"] for one in first["items"] + rest["items"]] == ["a", "b", "c"]
    assert rest["next_cursor"] is None
    wrong = await house.http.get("/v1/schedules", params={"cursor": "/"})
    assert (wrong.status_code, wrong.json()["field"]) == (422, "cursor")
    for name in ("a", "b", "c"):
        await house.http.delete(f"/v1/schedules/{name}")


async def test_put_makes_and_replaces(house: House) -> None:
    made = await house.http.put("/v1/schedules/hourly", json={**PLAN, "cron": "@hourly"})
    assert made.status_code == 200
    assert made.json()["cron"] == "@hourly"
    changed = await house.http.put("/v1/schedules/hourly", json={**PLAN, "cron": "@hourly", "enabled": False})
    assert changed.json()["next_run_at"] is None
    assert changed.json()["created_at"] == made.json()["created_at"]
    renamed = await house.http.put("/v1/schedules/hourly", json={"name": "other", **PLAN})
    assert (renamed.status_code, renamed.json()["field"]) == (422, "name")


async def test_it_is_paused_resumed_and_run_by_hand(house: House) -> None:
    await house.http.put("/v1/schedules/steered", json=PLAN)
    paused = (await house.http.post("/v1/schedules/steered:pause")).json()
    assert (paused["enabled"], paused["next_run_at"]) == (False, None)
    resumed = (await house.http.post("/v1/schedules/steered:resume")).json()
    assert resumed["enabled"] is True
    assert resumed["next_run_at"] is not None
    ran = await house.http.post("/v1/schedules/steered:run")
    assert ran.status_code == 202
    task_id = ran.json()["task_id"]
    assert ran.headers["location"] == f"/v1/tasks/{task_id}"
    ended = (await house.http.get(f"/v1/tasks/{task_id}", params={"wait": 20})).json()
    assert (ended["status"], ended["result"], ended["metadata"]["schedule"]) == ("success", {"n": 1.5}, "steered")
    assert (await house.http.get("/v1/schedules/steered")).json()["last_task_id"] == task_id
    for verb in ("pause", "resume", "run"):
        assert (await house.http.post(f"/v1/schedules/missing:{verb}")).status_code == 404


async def test_a_run_nobody_can_take_is_refused(house: House) -> None:
    await house.http.put("/v1/schedules/lonely", json={**PLAN, "task": {"task_type": "nobody-knows"}})
    refused = await house.http.post("/v1/schedules/lonely:run")
    assert refused.status_code == 503
    assert "retry-after" in refused.headers


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "a b"}, "name"),
        ({"name": None}, "name"),
        ({"cron": "often"}, "cron"),
        ({"cron": 5}, "cron"),
        ({"timezone": "Mars/Base"}, "timezone"),
        ({"catch_up": "never"}, "catch_up"),
        ({"enabled": "yes"}, "enabled"),
        ({"task": {}}, "task.task_type"),
        ({"task": {"task_type": "echo", "priority": 9}}, "task.priority"),
        ({"task": {"task_type": "echo", "deadline": 1}}, "task.deadline"),
        ({"task": {"task_type": "echo", "payload": "a\0b"}}, "task.payload"),
        ({"colour": "red"}, "colour"),
    ],
)
async def test_a_wrong_field_is_named(house: House, change: dict[str, Any], field: str) -> None:
    answer = await house.http.post("/v1/schedules", json={"name": "wrong", **PLAN, **change})
    assert answer.status_code == 422, answer.text
    assert answer.json()["field"] == field


async def test_a_task_for_later_waits_shows_its_time_and_runs(house: House) -> None:
    run_at = time.time() + 1.5
    answer = await house.http.post("/v1/tasks", json={"task_type": "echo", "payload": 7, "run_at": run_at})
    assert answer.status_code == 202
    assert answer.json()["status"] == "queued"
    assert answer.json()["selected_agent"] == "worker-1"
    task_id = answer.json()["task_id"]
    waiting = (await house.http.get(f"/v1/tasks/{task_id}")).json()
    assert (waiting["status"], waiting["selected_agent"], waiting["attempts"]) == ("queued", None, 0)
    shown = datetime.fromisoformat(waiting["run_at"])
    assert abs(shown.timestamp() - run_at) < 0.002
    ended = (await house.http.get(f"/v1/tasks/{task_id}", params={"wait": 30})).json()
    assert (ended["status"], ended["result"], ended["run_at"]) == ("success", 7, waiting["run_at"])
    assert datetime.fromisoformat(ended["started_at"]) >= shown
    decided = await house.http.get(f"/v1/decisions/{answer.json()['request_id']}")
    assert decided.json()["task_id"] == task_id


async def test_route_task_waits_for_a_task_that_is_soon_due(house: House) -> None:
    body = {"task_type": "echo", "payload": 8, "run_at": datetime.fromtimestamp(time.time() + 1, UTC).isoformat()}
    answer = await house.http.post("/route-task", params={"wait": 30}, json=body)
    assert (answer.status_code, answer.json()["status"], answer.json()["result"]) == (200, "success", 8)


async def test_a_task_for_now_says_nothing_about_a_time(house: House) -> None:
    ended = await house.ended("echo", 1, run_at="2001-01-01T00:00:00Z")
    shown = (await house.http.get(f"/v1/tasks/{ended['task_id']}")).json()
    assert "run_at" not in shown


async def test_a_batch_may_hold_tasks_for_later_and_one_is_cancelled_before_its_time(house: House) -> None:
    later = time.time() + 3600
    tasks = [{"task_type": "echo", "run_at": later}, {"task_type": "echo"}, {"task_type": "echo", "run_at": "soon"}]
    answer = (await house.http.post("/v1/tasks:batch", json={"tasks": tasks})).json()
    assert (answer["accepted"], answer["refused"]) == (2, 1)
    assert answer["results"][2]["error"]["field"] == "run_at"
    task_id = answer["results"][0]["task_id"]
    cancelled = await house.http.delete(f"/v1/tasks/{task_id}")
    assert (cancelled.status_code, cancelled.json()["status"]) == (202, "cancelled")


@pytest.mark.parametrize(
    "more",
    [
        {"run_at": "tomorrow"},
        {"run_at": "2030-01-01T00:00:00"},
        {"run_at": True},
        {"run_at": 1e300},
        {"run_at": -1},
        {"run_at": 32_000_000_000},
        {"run_at": time.time() + 7200, "deadline": time.time() + 3600},
    ],
)
async def test_a_time_that_cannot_be_is_named(house: House, more: dict[str, Any]) -> None:
    answer = await house.http.post("/v1/tasks", json={"task_type": "echo", **more})
    assert answer.status_code == 422, answer.text
    assert answer.json()["field"] == "run_at"


async def test_many_dead_letters_are_driven_again_and_their_progress_is_told(house: House) -> None:
    buried = {(await house.ended("unlucky"))["task_id"] for _ in range(3)}
    listed = await house.http.get("/v1/dead-letters", params={"task_type": "unlucky", "waiting": "true"})
    assert {item["task_id"] for item in listed.json()["items"]} == buried
    assert (await house.http.get("/v1/dead-letters", params={"agent": "nobody"})).json()["items"] == []
    begun = await house.http.post("/v1/dead-letters:redrive", json={"task_type": "unlucky", "rate": 100})
    assert begun.status_code == 202, begun.text
    assert (begun.json()["state"], begun.json()["matched"], begun.json()["rate"]) == ("running", 3, 100.0)
    async with asyncio.timeout(60):
        while (told := (await house.http.get("/v1/dead-letters:redrive")).json())["state"] == "running":
            await asyncio.sleep(0.05)
    assert (told["id"], told["state"], told["redriven"]) == (begun.json()["id"], "done", 3)
    stopped = await house.http.delete("/v1/dead-letters:redrive")
    assert (stopped.status_code, stopped.json()["state"]) == (200, "done")
    attempts = [(await house.http.get(f"/v1/tasks/{one}", params={"wait": 30})).json()["status"] for one in buried]
    assert attempts == ["dead_letter"] * 3


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"rate": 0}, "rate"),
        ({"rate": 5000}, "rate"),
        ({"limit": 0}, "limit"),
        ({"task_type": ""}, "task_type"),
        ({"since": "yesterday"}, "since"),
        ({"colour": "red"}, "colour"),
    ],
)
async def test_a_wrong_redrive_names_the_field(house: House, body: dict[str, Any], field: str) -> None:
    answer = await house.http.post("/v1/dead-letters:redrive", json=body)
    assert answer.status_code == 422
    assert answer.json()["field"] == field
