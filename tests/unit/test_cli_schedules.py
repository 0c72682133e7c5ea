"""`engines schedules`, and moments on the command line, against a server that says what the test tells it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agent_engines.cli import main
from agent_engines.cli.moments import moment_given
from agent_engines.domain.errors import InvalidRequest
from api_house import HouseThread

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("at", "delay", "moment"),
    [
        (None, None, None),
        ("1700000123.5", None, 1_700_000_123.5),
        ("2023-11-14T23:13:20+01:00", None, NOW),
        (None, "90", NOW + 90),
        (None, "90s", NOW + 90),
        (None, "1.5m", NOW + 90),
        (None, "2h", NOW + 7200),
        (None, " 1d ", NOW + 86_400),
    ],
)
def test_a_moment_is_a_time_or_a_while_from_now(at: str | None, delay: str | None, moment: float | None) -> None:
    assert moment_given(at, delay, NOW) == moment


@pytest.mark.parametrize(("at", "delay"), [("soon", None), (None, "-5s"), (None, "5 weeks"), ("1", "1")])
def test_what_is_no_moment_is_refused(at: str | None, delay: str | None) -> None:
    with pytest.raises(InvalidRequest):
        moment_given(at, delay, NOW)


def test_a_schedule_lives_its_life_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    with HouseThread() as house:

        def engines(*arguments: str, expect: int = 0) -> Any:
            assert main([*arguments, "--json", "--url", house.url]) == expect
            text = capsys.readouterr().out
            return json.loads(text) if text else None

        made = engines(
            "schedules", "add", "nightly", "30 2 * * *", "echo", "--payload", '{"n": 1}', "--timezone", "Europe/Berlin"
        )
        assert (made["name"], made["timezone"], made["task"]["payload"]) == ("nightly", "Europe/Berlin", {"n": 1})
        assert engines("schedules", "add", "nightly", "@daily", "echo", expect=1) is None
        assert engines("schedules", "add", "nightly", "@daily", "echo", "--replace")["cron"] == "@daily"
        assert engines("schedules", "pause", "nightly")["next_run_at"] is None
        assert engines("schedules", "resume", "nightly")["enabled"] is True
        assert engines("schedules", "run", "nightly")["status"] == "queued"
        [listed] = engines("schedules", "list")["items"]
        assert listed == engines("schedules", "show", "nightly")
        assert main(["schedules", "list", "--url", house.url]) == 0
        assert "nightly" in capsys.readouterr().out
        assert engines("schedules", "remove", "nightly") == {"name": "nightly", "removed": True}
        assert engines("schedules", "show", "nightly", expect=1) is None
        later = engines("submit", "echo", "--in", "1h")
        shown = engines("tasks", "show", later["task_id"])
        assert (shown["status"], "run_at" in shown) == ("queued", True)
        assert engines("dead-letters", "list", "--task-type", "echo", "--waiting")["items"] == []
        redriven = engines("dead-letters", "redrive", "--all", "--rate", "1000")
        assert (redriven["state"], redriven["matched"]) == ("done", 0)
        assert engines("dead-letters", "redrive", "--status")["id"] == redriven["id"]
