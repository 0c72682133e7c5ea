"""The load script users run must pass on a small machine; its timing thresholds are the benchmark's business, not ours."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from running_system import System

ROOT = Path(__file__).resolve().parents[2]


def test_every_answer_of_the_load_script_is_200(fleet: System, tmp_path: Path) -> None:
    """A short ramp to 100 users on POST /route-task: 100 % status 200."""
    summary = tmp_path / "summary.json"
    k6 = Path(sys.executable).with_name("k6")
    command = [str(k6), "run", "--no-usage-report", "--quiet", f"--summary-export={summary}"]
    stages = ["-e", f"BASE_URL={fleet.url}", "-e", "RAMP=2s", "-e", "HOLD=2s", "-e", "DOWN=1s"]
    script = ROOT / "benchmarks" / "k6" / "route_task.js"
    done = subprocess.run([*command, *stages, str(script)], capture_output=True, text=True, timeout=90, check=False)
    assert summary.exists(), done.stderr
    metrics = json.loads(summary.read_text())["metrics"]
    assert metrics["http_reqs"]["count"] > 100
    assert metrics["checks"]["fails"] == 0, done.stdout
