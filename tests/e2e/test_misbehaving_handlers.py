"""Handlers that raise, return rubbish, block, exit or die: each has one clear answer, and nothing else suffers."""

from __future__ import annotations

from running_system import System, finished, wait_until


def run(fleet: System, task_type: str, payload: object = None, seconds: float = 60) -> dict:
    with fleet.http() as http:
        body = {"task_type": task_type, "payload": {} if payload is None else payload}
        task_id = http.post("/v1/tasks", json=body).json()["task_id"]
        return finished(http, task_id, seconds)


def test_an_exception_is_tried_again_and_then_kept_as_a_dead_letter(fleet: System) -> None:
    """Attempts are counted, the error is told, the dead letter can be seen and redriven."""
    task = run(fleet, "raises")
    assert task["status"] == "dead_letter"
    assert task["attempts"] == 2
    assert task["error"] == {"type": "ValueError", "message": "the handler does not like it", "retryable": True}
    with fleet.http() as http:
        letters = http.get("/v1/dead-letters", params={"limit": 200}).json()
        assert task["task_id"] in str(letters)
        redriven = http.post(f"/v1/dead-letters/{task['task_id']}:redrive")
        assert redriven.status_code in (200, 202), redriven.text
        again = finished(http, task["task_id"], 60)
    assert again["status"] == "dead_letter"


def test_a_permanent_failure_is_not_tried_again(fleet: System) -> None:
    """One attempt, status failed, not retryable."""
    task = run(fleet, "raises-for-good")
    assert (task["status"], task["attempts"]) == ("failed", 1)
    assert task["error"]["type"] == "PermanentFailure"
    assert task["error"]["retryable"] is False


def test_a_handler_that_comes_good_succeeds_on_a_later_attempt(fleet: System) -> None:
    """Retries happen and the attempt number reaches the handler."""
    task = run(fleet, "comes-good")
    assert (task["status"], task["attempts"], task["result"]) == ("success", 3, {"attempt": 3})


def test_results_that_are_not_json_fail_with_a_name(fleet: System) -> None:
    """No retry, and the message says what is wrong."""
    for task_type in ("unserialisable", "not-a-number", "nul-in-result"):
        task = run(fleet, task_type)
        assert task["status"] == "failed", task
        assert task["error"]["type"] == "UnserializableResult"


def test_a_wrong_payload_fails_at_once_and_names_the_place(fleet: System) -> None:
    """A handler that expects a mapping of numbers gets a string."""
    task = run(fleet, "plain", {"a": "one", "b": 2})
    assert task["status"] == "failed"
    assert task["error"]["type"] == "InvalidPayload"
    assert "a" in task["error"]["message"]


def test_a_plain_function_runs_in_a_thread(fleet: System) -> None:
    """`def` handlers work like `async def` ones."""
    assert run(fleet, "plain", {"a": 2, "b": 3})["result"] == 5


def test_a_handler_that_blocks_the_loop_finishes_and_is_noticed(fleet: System) -> None:
    """The task succeeds once; the log names the handler that blocked."""
    task = run(fleet, "blocks", {"seconds": 2.5})
    assert (task["status"], task["result"]) == ("success", "unblocked")

    def noticed() -> bool:
        logs = "".join(path.read_text(errors="replace") for path in fleet.data_dir.rglob("*.log"))
        return "blocks" in logs and "event loop" in logs.lower()

    wait_until(noticed, "a log line names the blocked event loop")


def test_a_handler_that_exits_does_not_take_the_process_down(fleet: System) -> None:
    """sys.exit in a handler is a failure of the task, not of the agent."""
    before = fleet.pid("agent:misbehaving:1"), fleet.pid("agent:misbehaving:2")
    task = run(fleet, "exits")
    assert task["error"]["type"] == "HandlerExit"
    assert (fleet.pid("agent:misbehaving:1"), fleet.pid("agent:misbehaving:2")) == before


def test_a_task_over_its_time_is_stopped(fleet: System) -> None:
    """The timeout of the handler's declaration holds."""
    task = run(fleet, "too-slow")
    assert task["status"] == "dead_letter"
    assert task["error"]["type"] == "Timeout"
