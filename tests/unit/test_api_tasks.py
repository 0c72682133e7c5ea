"""Task routes: submit, follow, list, cancel, retry."""

from __future__ import annotations

import asyncio

import pytest

from api_house import UNKNOWN, House, house_fixture

ACCEPTED = [
    "task_id",
    "request_id",
    "status",
    "selected_agent",
    "confidence",
    "propensity",
    "strategy",
    "reasoning",
    "policy_version",
    "durability",
]


house = house_fixture()
pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_routing_answers_with_exactly_the_fields_of_the_contract(house: House) -> None:
    answer = await house.http.post("/route-task", json={"task_type": "echo"})
    assert answer.status_code == 200
    body = answer.json()
    assert list(body) == ACCEPTED
    assert body["status"] == "queued"
    assert body["selected_agent"] == "worker-1"
    assert 0 < body["confidence"] <= 1
    assert 0 < body["propensity"] <= 1
    assert body["durability"] == "committed"


async def test_waiting_adds_the_terminal_fields(house: House) -> None:
    body = await house.ended("echo", {"deep": [1, "zwei", None]})
    assert body["status"] == "success"
    assert body["result"] == {"deep": [1, "zwei", None]}
    assert body["error"] is None
    assert body["attempts"] == 1
    assert body["execution_time_ms"] >= 0
    assert body["submitted_at"] <= body["started_at"] <= body["completed_at"]
    assert body["completed_at"].endswith("Z")
    assert "trace_id" in body


async def test_a_wait_that_is_over_tells_what_is_known(house: House) -> None:
    answer = await house.http.post("/route-task", params={"wait": 0.05}, json={"task_type": "held"})
    assert answer.status_code == 200
    assert answer.json()["status"] in ("queued", "running")
    assert answer.json()["result"] is None


async def test_a_submission_is_accepted_and_located(house: House) -> None:
    answer = await house.http.post("/v1/tasks", json={"task_type": "echo", "payload": 1})
    assert answer.status_code == 202
    assert list(answer.json()) == ACCEPTED
    assert answer.headers["location"] == f"/v1/tasks/{answer.json()['task_id']}"
    found = await house.http.get(answer.headers["location"], params={"wait": 20})
    assert found.status_code == 200
    assert found.json()["result"] == 1


async def test_a_failed_task_says_why(house: House) -> None:
    body = await house.ended("broken")
    assert body["status"] == "failed"
    assert body["error"] == {"type": "PermanentFailure", "message": "it never works", "retryable": False}


async def test_the_same_key_is_the_same_task(house: House) -> None:
    headers = {"idempotency-key": "order-1"}
    first = await house.http.post("/v1/tasks", json={"task_type": "echo"}, headers=headers)
    second = await house.http.post("/v1/tasks", json={"task_type": "echo"}, headers=headers)
    in_body = await house.http.post("/v1/tasks", json={"task_type": "echo", "idempotency_key": "order-1"})
    assert first.status_code == second.status_code == in_body.status_code == 202
    assert first.json()["task_id"] == second.json()["task_id"] == in_body.json()["task_id"]
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"


async def test_the_same_key_with_another_body_is_a_conflict(house: House) -> None:
    await house.http.post("/v1/tasks", json={"task_type": "echo", "payload": 1, "idempotency_key": "k"})
    answer = await house.http.post("/v1/tasks", json={"task_type": "echo", "payload": 2, "idempotency_key": "k"})
    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/problem+json"


async def test_two_different_keys_in_one_request_are_refused(house: House) -> None:
    answer = await house.http.post(
        "/v1/tasks", json={"task_type": "echo", "idempotency_key": "a"}, headers={"idempotency-key": "b"}
    )
    assert answer.status_code == 422
    assert answer.json()["field"] == "Idempotency-Key"


@pytest.mark.parametrize("key", ["", "x" * 256, "sch\xf6n"])
async def test_a_key_that_cannot_be_one_is_refused(house: House, key: str) -> None:
    headers = {"idempotency-key": key.encode("latin-1")}
    answer = await house.http.post("/v1/tasks", json={"task_type": "echo"}, headers=headers)
    assert answer.status_code == 422
    assert answer.json()["field"] == "Idempotency-Key"


async def test_a_task_without_an_agent_is_refused_with_a_time_to_come_back(house: House) -> None:
    answer = await house.http.post("/route-task", json={"task_type": "nobody-does-this"})
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert "nobody-does-this" in answer.json()["detail"]
    assert answer.json()["type"] == "/docs#problem-no-eligible-agent"


async def test_a_bus_that_is_away_is_a_503(house: House) -> None:
    house.bus.switch(False)
    try:
        answer = await house.http.post("/route-task", json={"task_type": "echo"})
    finally:
        house.bus.switch(True)
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1


async def test_the_trace_goes_on(house: House) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    made = await house.http.post("/v1/tasks", json={"task_type": "echo"}, headers=headers)
    found = await house.http.get(made.headers["location"])
    assert found.json()["trace_id"] == trace


async def test_a_broken_trace_starts_a_new_one(house: House) -> None:
    made = await house.http.post("/v1/tasks", json={"task_type": "echo"}, headers={"traceparent": "00-nonsense"})
    assert made.status_code == 202


@pytest.mark.parametrize("path", [f"/v1/tasks/{UNKNOWN}", "/v1/tasks/not-an-id", "/v1/tasks/%00", "/v1/tasks/%ff"])
async def test_an_unknown_task_is_not_found(house: House, path: str) -> None:
    answer = await house.http.get(path)
    assert answer.status_code == 404
    assert answer.json()["status"] == 404


@pytest.mark.parametrize("path", ["/v1/tasks/not-an-id", "/v1/tasks/not-an-id/events", f"/v1/tasks/{UNKNOWN}0"])
async def test_what_is_no_task_id_is_told_as_such(house: House, path: str) -> None:
    detail = (await house.http.get(path)).json()["detail"]
    assert detail.startswith(f"no task '{path.split('/')[3]}'")
    assert "UUID" in detail


async def test_a_path_under_a_task_that_could_be_is_not_blamed_on_its_id(house: House) -> None:
    assert "at this path" in (await house.http.get(f"/v1/tasks/{UNKNOWN}/nothing")).json()["detail"]


async def test_an_id_may_be_written_in_capitals(house: House) -> None:
    made = await house.ended("echo", 5)
    found = await house.http.get(f"/v1/tasks/{made['task_id'].upper()}")
    assert found.json()["result"] == 5


@pytest.mark.parametrize("wait", ["-1", "301", "nan", "inf", "soon", ""])
async def test_a_wait_out_of_range_names_itself(house: House, wait: str) -> None:
    answer = await house.http.get(f"/v1/tasks/{UNKNOWN}", params={"wait": wait})
    assert answer.status_code == 422
    assert answer.json()["field"] == "wait"


async def test_a_wait_ends_with_its_task(house: House) -> None:
    task_id = await house.held()
    waiting = asyncio.create_task(house.http.get(f"/v1/tasks/{task_id}", params={"wait": 60}))
    while house.app.in_flight == 0:
        await asyncio.sleep(0)
    house.release.set()
    assert (await waiting).json()["result"] == "released"


async def test_a_list_pages_through_everything_newest_first(house: House) -> None:
    made = [(await house.ended("listed", number))["task_id"] for number in range(5)]
    seen: list[str] = []
    cursor = None
    while True:
        params = {"limit": 2, "task_type": "listed"} | ({"cursor": cursor} if cursor else {})
        page = (await house.http.get("/v1/tasks", params=params)).json()
        assert len(page["items"]) <= 2
        seen += [task["task_id"] for task in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == made[::-1]


async def test_a_list_is_filtered(house: House) -> None:
    before = await house.ended("echo", 1)
    good = await house.ended("echo", 2)
    bad = await house.ended("broken")
    start = good["submitted_at"]

    async def found(**params: str) -> list[str]:
        page = await house.http.get("/v1/tasks", params={"since": start, **params})
        assert page.status_code == 200, page.text
        return [task["task_id"] for task in page.json()["items"] if task["task_id"] != before["task_id"]]

    assert await found() == [bad["task_id"], good["task_id"]]
    assert await found(status="failed") == [bad["task_id"]]
    assert await found(task_type="echo") == [good["task_id"]]
    assert await found(agent="worker-1") == [bad["task_id"], good["task_id"]]
    assert await found(agent="nobody") == []
    assert await found(since="2999-01-01T00:00:00Z") == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("status", "done"),
        ("limit", "0"),
        ("limit", "201"),
        ("limit", "1e3"),
        ("since", "yesterday"),
        ("cursor", "made-up"),
        ("task_type", "nul\0"),
        ("agent", "nul\0"),
    ],
)
async def test_a_wrong_filter_names_itself(house: House, name: str, value: str) -> None:
    answer = await house.http.get("/v1/tasks", params={name: value})
    assert answer.status_code == 422, answer.text
    assert answer.json()["field"] == name


async def test_a_running_task_is_cancelled_once(house: House) -> None:
    task_id = await house.held()
    answer = await house.http.delete(f"/v1/tasks/{task_id}")
    assert answer.status_code == 202
    assert answer.json()["task_id"] == task_id
    ended = await house.http.get(f"/v1/tasks/{task_id}", params={"wait": 20})
    assert ended.json()["status"] == "cancelled"
    again = await house.http.delete(f"/v1/tasks/{task_id}")
    assert again.status_code == 409


async def test_cancelling_the_unknown_is_not_found(house: House) -> None:
    assert (await house.http.delete(f"/v1/tasks/{UNKNOWN}")).status_code == 404


async def test_a_failed_task_runs_again(house: House) -> None:
    failed = await house.ended("broken")
    answer = await house.http.post(f"/v1/tasks/{failed['task_id']}:retry")
    assert answer.status_code == 202
    assert answer.json()["task_id"] == failed["task_id"]
    ended = await house.http.get(f"/v1/tasks/{failed['task_id']}", params={"wait": 20})
    assert ended.json()["status"] == "failed"


async def test_a_success_does_not_run_again(house: House) -> None:
    done = await house.ended("echo")
    assert (await house.http.post(f"/v1/tasks/{done['task_id']}:retry")).status_code == 409
    assert (await house.http.post(f"/v1/tasks/{UNKNOWN}:retry")).status_code == 404
