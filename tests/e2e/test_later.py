"""Work for later in a whole system whose router is killed while it waits."""

from __future__ import annotations

import json
import os
import signal

from running_system import System, finished, wait_until


def test_what_waits_survives_the_death_of_its_router(fleet: System) -> None:
    with fleet.http() as http:
        wait_until(
            lambda: http.post("/route-task", json={"task_type": "echo"}).status_code == 200,
            "an agent can be chosen",
        )
    made = fleet.engines("schedules", "add", "often", "* * * * *", "echo", "--payload", '{"n": 1}', "--json")
    assert made.returncode == 0, made.stderr
    try:
        later = fleet.engines("submit", "echo", "--payload", '"later"', "--in", "8s", "--json")
        assert later.returncode == 0, later.stderr
        task_id = json.loads(later.stdout)["task_id"]
        first = fleet.pid("intelligence")
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: fleet.pid("intelligence") != first, "the router is started again")
        with fleet.http() as http:
            wait_until(lambda: http.get("/ready").status_code == 200, "the router is ready again")
            ended = finished(http, task_id)
            assert (ended["status"], ended["result"], ended["attempts"]) == ("success", "later", 1)
            [schedule] = http.get("/v1/schedules").json()["items"]
            assert (schedule["name"], schedule["enabled"]) == ("often", True)
            ran = http.post("/v1/schedules/often:run").json()
            assert finished(http, ran["task_id"])["result"] == {"n": 1}
    finally:
        assert fleet.engines("schedules", "remove", "often").returncode == 0
