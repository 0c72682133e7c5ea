"""Dead letter routes."""

from __future__ import annotations

import pytest

from api_house import UNKNOWN, House, house_fixture

house = house_fixture()
pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_task_that_ran_out_of_attempts_is_a_dead_letter(house: House) -> None:
    dead = await house.ended("unlucky")
    assert dead["status"] == "dead_letter"
    letter = (await house.http.get("/v1/dead-letters", params={"limit": 1})).json()["items"][0]
    assert letter["task_id"] == dead["task_id"]
    assert letter["task_type"] == "unlucky"
    assert letter["attempts"] == 1
    assert letter["redriven_at"] is None
    assert letter["created_at"].endswith("Z")


async def test_a_dead_letter_is_driven_again(house: House) -> None:
    dead = await house.ended("unlucky")
    answer = await house.http.post(f"/v1/dead-letters/{dead['task_id']}:redrive")
    assert answer.status_code == 202
    assert answer.json()["task_id"] == dead["task_id"]
    ended = await house.http.get(f"/v1/tasks/{dead['task_id']}", params={"wait": 20})
    assert ended.json()["status"] == "dead_letter"


async def test_what_is_no_dead_letter_is_not_driven_again(house: House) -> None:
    done = await house.ended("echo")
    assert (await house.http.post(f"/v1/dead-letters/{done['task_id']}:redrive")).status_code in (404, 409)
    assert (await house.http.post(f"/v1/dead-letters/{UNKNOWN}:redrive")).status_code == 404


@pytest.mark.parametrize(("name", "value"), [("limit", "0"), ("limit", "x"), ("cursor", "x")])
async def test_a_wrong_filter_names_itself(house: House, name: str, value: str) -> None:
    answer = await house.http.get("/v1/dead-letters", params={name: value})
    assert answer.status_code == 422
    assert answer.json()["field"] == name
