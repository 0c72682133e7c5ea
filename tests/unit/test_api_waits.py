"""Waiting for many tasks by one question."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from agent_engines.api.limits import ApiLimits
from api_house import UNKNOWN, House, house_fixture, open_house

house = house_fixture()
pytestmark = pytest.mark.asyncio(loop_scope="module")


async def ask(house: House, task_ids: list[str], **more: Any) -> dict[str, Any]:
    answer = await house.http.post("/v1/tasks:wait", json={"task_ids": task_ids, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_the_ended_ones_of_many_are_shown_as_each_would_be(house: House) -> None:
    done = (await house.ended("echo", {"n": 1}))["task_id"]
    broken = (await house.ended("broken"))["task_id"]
    held = await house.held()
    body = await ask(house, [done.upper(), broken, held, UNKNOWN])
    assert body["more"] is False
    shown = {item["task_id"]: item for item in body["items"]}
    assert shown == {task_id: (await house.http.get(f"/v1/tasks/{task_id}")).json() for task_id in (done, broken)}
    assert (await ask(house, [held, UNKNOWN])) == {"items": [], "more": False}
    house.release.set()


async def test_a_wait_ends_as_soon_as_one_of_them_has(house: House) -> None:
    held = await house.held()
    waiting = asyncio.ensure_future(ask(house, [UNKNOWN, held], wait=300))
    await asyncio.sleep(0)
    house.release.set()
    items = (await asyncio.wait_for(waiting, 20))["items"]
    assert [(item["task_id"], item["result"]) for item in items] == [(held, "released")]


async def test_a_wait_that_is_over_says_that_nothing_ended(house: House) -> None:
    held = await house.held()
    assert await ask(house, [held], wait=0.01) == {"items": [], "more": False}
    house.release.set()


async def test_answers_stop_growing_and_say_so() -> None:
    async with open_house(limits=ApiLimits(ended_bytes=5000)) as house:
        task_ids = [(await house.ended("echo", "x" * 4000))["task_id"] for _ in range(5)]
        seen: list[str] = []
        sizes: list[int] = []
        while len(seen) < 5:
            body = await ask(house, [one for one in task_ids if one not in seen])
            seen += [item["task_id"] for item in body["items"]]
            sizes.append(len(body["items"]))
            assert body["more"] is (len(seen) < 5)
        assert (sizes, sorted(seen)) == ([2, 2, 1], sorted(task_ids))


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"task_ids": []}, "task_ids"),
        ({"task_ids": [str(uuid4()) for _ in range(1001)]}, "task_ids"),
        ({"task_ids": UNKNOWN}, "task_ids"),
        ({"task_ids": [UNKNOWN, 5]}, "task_ids[1]"),
        ({"task_ids": [UNKNOWN, "nope"]}, "task_ids[1]"),
        ({"task_ids": [UNKNOWN + "\n"]}, "task_ids[0]"),
        ({"task_ids": ["\0"]}, "task_ids[0]"),
        ({"task_ids": [UNKNOWN], "wait": 301}, "wait"),
        ({"task_ids": [UNKNOWN], "wait": -1}, "wait"),
        ({"task_ids": [UNKNOWN], "wait": "5"}, "wait"),
        ({"task_ids": [UNKNOWN], "wait": True}, "wait"),
        ({"task_ids": [UNKNOWN], "wait": None}, "wait"),
        ({"wait": 1}, "task_ids"),
        ({"task_ids": [UNKNOWN], "tasks": []}, "tasks"),
        ([UNKNOWN], "body"),
    ],
)
async def test_what_is_no_question_is_refused_by_name(house: House, body: Any, field: str | None) -> None:
    answer = await house.http.post("/v1/tasks:wait", json=body)
    assert answer.status_code == 422
    assert answer.json().get("field") == field


@pytest.mark.parametrize("body", [b"", b"{", b'{"task_ids":["\xff"]}'])
async def test_bytes_that_are_no_json_are_refused(house: House, body: bytes) -> None:
    answer = await house.http.post("/v1/tasks:wait", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
