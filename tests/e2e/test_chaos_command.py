"""`engines chaos`, as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent_engines.cli import main
from running_system import system

pytestmark = pytest.mark.timeout(300)


def test_it_harms_an_installation_of_its_own_reports_each_scenario_and_leaves_nothing_when_told_to_end(
    tmp_path: Path,
) -> None:
    """SIGTERM in the middle of the third scenario: what has ended is told, its installation is stopped, its folder is gone."""
    scenarios = [word for name in ("agents", "duplicates", "storm") for word in ("--scenario", name)]
    process = subprocess.Popen(
        [sys.executable, "-m", "agent_engines.cli", "chaos", "--json", *scenarios, "--tasks", "120", "--faults", "1"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    while "storm" not in process.stderr.readline():
        assert process.poll() is None
    (folder,) = tmp_path.glob("ae-chaos-*")
    pids = json.loads((folder / "endpoints.json").read_text())["pids"]
    process.terminate()
    told, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert not folder.exists()
    assert [name for name, pid in pids.items() if Path(f"/proc/{pid}").exists()] == []
    agents, duplicates = (json.loads(line) for line in told.splitlines())
    assert (agents["scenario"], agents["verdict"], duplicates["verdict"]) == ("agents", "pass", "pass")
    assert agents["accepted"] == agents["recorded"] >= 120
    assert agents["lost"] == agents["duplicated"] == 0
    assert sum(agents["faults"].values()) == 1
    assert agents["versions"]["nats"].startswith("2.")
    assert duplicates["answers"]["409"] >= 2


def test_it_harms_what_runs_in_a_folder_and_leaves_other_agents_alone(tmp_path: Path) -> None:
    engines = [
        "--engine",
        "agent_engines.testing.chaos.engine:engine",
        "--engine",
        "agent_engines.engines.echo:echo_engine",
    ]
    with system(tmp_path, "--ephemeral", *engines, environment={"ENGINES_LEASE_SECONDS": "5"}) as running:
        others = {name: pid for name, pid in running.endpoints["pids"].items() if name != "agent:chaos:1"}
        done = running.engines(
            "chaos",
            "--json",
            "--data-dir",
            str(tmp_path),
            "--scenario",
            "agents",
            "--tasks",
            "60",
            "--faults",
            "1",
            timeout=240,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert json.loads(done.stdout)["verdict"] == "pass"
        assert others == {name: pid for name, pid in running.endpoints["pids"].items() if name != "agent:chaos:1"}


def test_a_scenario_nobody_knows_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chaos", "--json", "--scenario", "earthquake"]) == 2
    assert "'earthquake'" in capsys.readouterr().err
