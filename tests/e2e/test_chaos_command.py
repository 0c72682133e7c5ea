"""`engines chaos`, as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from running_system import System, system

pytestmark = pytest.mark.timeout(300)


def chaos(*arguments: str, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "agent_engines.cli", "chaos", "--json", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def test_it_harms_an_installation_of_its_own_and_reports_each_scenario() -> None:
    done = chaos("--scenario", "agents", "--scenario", "duplicates", "--tasks", "120", "--faults", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    agents, duplicates = (json.loads(line) for line in done.stdout.splitlines())
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


def test_a_system_without_its_agent_is_told_what_is_missing(fleet: System) -> None:
    done = fleet.engines("chaos", "--data-dir", str(fleet.data_dir), "--scenario", "storm")
    assert done.returncode == 2
    assert "agent_engines.testing.chaos.engine:engine" in done.stderr


def test_a_scenario_nobody_knows_is_wrong_usage() -> None:
    done = chaos("--scenario", "earthquake")
    assert done.returncode == 2
    assert "'earthquake'" in done.stderr


def test_told_to_end_it_leaves_nothing_behind(tmp_path: Path) -> None:
    """SIGTERM in the middle of a scenario: its installation is stopped, its folder is gone."""
    command = [sys.executable, "-m", "agent_engines.cli", "chaos", "--scenario", "storm", "--tasks", "100000"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    while "storm" not in process.stderr.readline():
        assert process.poll() is None
    (folder,) = tmp_path.glob("ae-chaos-*")
    pids = json.loads((folder / "endpoints.json").read_text())["pids"]
    process.terminate()
    assert process.wait(timeout=120) == 130
    process.stderr.close()
    assert not folder.exists()
    assert [name for name, pid in pids.items() if Path(f"/proc/{pid}").exists()] == []
