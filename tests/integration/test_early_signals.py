"""An engine's process ends with 0 when it is told to stop, however early."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SLOW = """
import time

print("importing", flush=True)
time.sleep(60)
"""
"""In place of the first large module the command line imports."""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_that_is_still_importing_ends_with_zero(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "typer.py").write_text(SLOW)
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    command = [sys.executable, "-m", "agent_engines.cli", "run", "intelligence"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"importing\n"
        process.send_signal(number)
        assert process.wait(30) == 0
