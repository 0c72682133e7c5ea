"""Decision routes: ask who should do something, read why."""

from __future__ import annotations

import pytest

from api_house import House, house_fixture

house = house_fixture()
pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_recommendation_dispatches_nothing(house: House) -> None:
    answer = await house.http.post("/v1/decisions", json={"task_type": "listed", "payload": {"n": 1}})
    assert answer.status_code == 200
    body = answer.json()
    assert body["selected_agent"] == "worker-1"
    assert body["task_id"] is None
    assert sum(candidate["probability"] for candidate in body["candidates"]) == pytest.approx(1)
    assert body["context"]["payload_bytes"] == len('{"n":1}')
    assert (await house.http.get("/v1/tasks", params={"task_type": "listed"})).json()["items"] == []


async def test_a_recommendation_can_be_read_again(house: House) -> None:
    made = (await house.http.post("/v1/decisions", json={"task_type": "echo", "request_id": "mine/1:2"})).json()
    found = await house.http.get("/v1/decisions/mine%2F1:2")
    assert found.status_code == 200
    assert found.json()["reasoning"] == made["reasoning"]


async def test_the_decision_behind_a_task_is_complete(house: House) -> None:
    made = await house.ended("echo", 1, priority=2)
    record = (await house.http.get(f"/v1/decisions/{made['request_id']}")).json()
    assert record["task_id"] == made["task_id"]
    assert record["propensity"] == made["propensity"]
    assert record["context"]["priority"] == 2
    assert [candidate["agent"] for candidate in record["candidates"]] == ["worker-1"]
    assert isinstance(record["rejected"], list)
    assert record["created_at"].endswith("Z")


async def test_decisions_are_listed_newest_first_and_filtered(house: House) -> None:
    made = [(await house.ended("echo", number))["request_id"] for number in range(3)]
    listed = (await house.http.get("/v1/decisions", params={"task_type": "echo", "limit": 2})).json()
    assert [decision["request_id"] for decision in listed["items"]] == made[:0:-1]
    assert listed["next_cursor"] is not None
    empty = await house.http.get("/v1/decisions", params={"agent": "nobody"})
    assert empty.json() == {"items": [], "next_cursor": None}


@pytest.mark.parametrize("name", ["no-such-request", "%00", "x" * 256, "a%0Ab"])
async def test_an_unknown_decision_is_not_found(house: House, name: str) -> None:
    assert (await house.http.get(f"/v1/decisions/{name}")).status_code == 404


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"task_type": ""}, "task_type"),
        ({"task_type": "echo", "priority": 0}, "priority"),
        ({"task_type": "echo", "deadline": 1}, "deadline"),
        ({"task_type": "echo", "requirements": {"a": "\0"}}, "requirements.a"),
        ({"task_type": "echo", "payload": "\0"}, "payload"),
    ],
)
async def test_what_could_not_be_submitted_is_not_recommended(house: House, body: dict, field: str) -> None:
    answer = await house.http.post("/v1/decisions", json=body)
    assert answer.status_code == 422
    assert answer.json()["field"] == field


async def test_nobody_to_recommend_is_a_503(house: House) -> None:
    answer = await house.http.post("/v1/decisions", json={"task_type": "nobody"})
    assert answer.status_code == 503
    assert "retry-after" in answer.headers


@pytest.mark.parametrize(("name", "value"), [("limit", "0"), ("since", "x"), ("cursor", "x"), ("agent", "\0")])
async def test_a_wrong_filter_names_itself(house: House, name: str, value: str) -> None:
    answer = await house.http.get("/v1/decisions", params={name: value})
    assert answer.status_code == 422
    assert answer.json()["field"] == name
