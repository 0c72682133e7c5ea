"""Batches: each task is accepted or refused by itself."""

from __future__ import annotations

import pytest

from api_house import House, house_fixture

house = house_fixture()
pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_thousand_tasks_are_accepted_in_order(house: House) -> None:
    tasks = [{"task_type": "echo", "payload": number, "idempotency_key": f"n-{number}"} for number in range(1000)]
    answer = await house.http.post("/v1/tasks:batch", json={"tasks": tasks})
    assert answer.status_code == 202
    body = answer.json()
    assert (body["accepted"], body["refused"]) == (1000, 0)
    last = body["results"][-1]["task_id"]
    assert (await house.http.get(f"/v1/tasks/{last}", params={"wait": 20})).json()["result"] == 999


async def test_a_bare_list_is_a_batch_too(house: House) -> None:
    answer = await house.http.post("/v1/tasks:batch", json=[{"task_type": "echo"}])
    assert answer.status_code == 202
    assert answer.json()["results"][0]["status"] == "queued"


async def test_one_bad_task_does_not_spoil_the_others(house: House) -> None:
    tasks = [{"task_type": "echo"}, {"task_type": "echo", "priority": 9}, {"task_type": 5}, {"task_type": "echo"}]
    body = (await house.http.post("/v1/tasks:batch", json={"tasks": tasks})).json()
    assert (body["accepted"], body["refused"]) == (2, 2)
    assert [("task_id" in entry) for entry in body["results"]] == [True, False, False, True]
    refused = body["results"][1]["error"]
    assert refused["status"] == 422
    assert refused["field"] == "priority"
    assert body["results"][2]["error"]["field"] == "task_type"


async def test_a_batch_of_which_nothing_was_accepted_is_no_202(house: House) -> None:
    """A caller who looks at the status alone must not believe that something was taken."""
    answer = await house.http.post("/v1/tasks:batch", json={"tasks": [{"task_type": "nobody"}] * 2})
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert [entry["error"]["status"] for entry in answer.json()["results"]] == [503, 503]


@pytest.mark.parametrize("count", [0, 1001])
async def test_a_batch_has_one_to_a_thousand_tasks(house: House, count: int) -> None:
    answer = await house.http.post("/v1/tasks:batch", json={"tasks": [{"task_type": "echo"}] * count})
    assert answer.status_code == 422
    assert answer.json()["field"] == "tasks"


@pytest.mark.parametrize(
    ("body", "field"),
    [({}, "tasks"), ({"tasks": {}}, "tasks"), ({"tasks": [], "wait": 1}, "wait"), ("text", "body"), (5, "body")],
)
async def test_another_shape_is_refused_and_the_field_is_named(house: House, body: object, field: str) -> None:
    answer = await house.http.post("/v1/tasks:batch", json=body)
    assert (answer.status_code, answer.json()["field"]) == (422, field)
    assert field in answer.json()["detail"]


@pytest.mark.parametrize(
    "body", [b"", b"5", b"{", b'{"tasks":[{"task_type":"echo","payload":"\xff"}]}', b"[" * 100_000]
)
async def test_bytes_that_are_no_batch_are_refused(house: House, body: bytes) -> None:
    answer = await house.http.post("/v1/tasks:batch", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422)


async def test_one_key_for_a_whole_batch_is_refused(house: House) -> None:
    """Ignoring it would let the caller believe in a protection that is not there."""
    answer = await house.http.post(
        "/v1/tasks:batch", json=[{"task_type": "echo"}], headers={"idempotency-key": "all-of-them"}
    )
    assert answer.status_code == 422
    assert answer.json()["field"] == "Idempotency-Key"


async def test_a_task_that_is_too_large_is_refused_alone(house: House) -> None:
    large = {"task_type": "echo", "payload": "x" * 1_100_000}
    body = (await house.http.post("/v1/tasks:batch", json=[{"task_type": "echo"}, large])).json()
    assert body["accepted"] == 1
    assert body["results"][1]["error"]["status"] == 413
