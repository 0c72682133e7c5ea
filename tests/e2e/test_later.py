"""Work for later in a whole system whose router is killed while it waits."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from running_system import finished, system, wait_until


def test_what_waits_survives_the_death_of_its_router(tmp_path: Path) -> None:
    options = ["--ephemeral", "--engine", "agent_engines.engines.echo:echo_engine"]
    with system(tmp_path / "later", *options) as running:
        with running.http() as http:
            wait_until(
                lambda: http.post("/route-task", json={"task_type": "echo"}).status_code == 200,
                "an agent can be chosen",
            )
        made = running.engines("schedules", "add", "often", "* * * * *", "echo", "--payload", '{"n": 1}', "--json")
        assert made.returncode == 0, made.stderr
        later = running.engines("submit", "echo", "--payload", '"later"', "--in", "8s", "--json")
        assert later.returncode == 0, later.stderr
        task_id = json.loads(later.stdout)["task_id"]
        first = running.pid("intelligence")
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: running.pid("intelligence") != first, "the router is started again")
        with running.http() as http:
            wait_until(lambda: http.get("/ready").status_code == 200, "the router is ready again")
            ended = finished(http, task_id)
            assert (ended["status"], ended["result"], ended["attempts"]) == ("success", "later", 1)
            [schedule] = http.get("/v1/schedules").json()["items"]
            assert (schedule["name"], schedule["enabled"]) == ("often", True)
            ran = http.post("/v1/schedules/often:run").json()
            assert finished(http, ran["task_id"])["result"] == {"n": 1}
