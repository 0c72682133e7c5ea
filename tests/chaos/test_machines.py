"""R18: the state machines of the pure rules, ten thousand examples each; prints one JSON line for each file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROPERTIES = Path(__file__).resolve().parents[1] / "properties"
MACHINES = ("test_priority_queue", "test_breaker", "test_lease", "test_ledger_machine", "test_idempotency_machine")
EXAMPLES = int(os.environ.get("MACHINE_EXAMPLES", "10000"))


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", MACHINES)
def test_ten_thousand_examples_break_no_rule(name: str) -> None:
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", str(PROPERTIES / f"{name}.py"), "-q", "-o", "addopts=", "-o", "timeout=3500"],
        env={**os.environ, "MACHINE_EXAMPLES": str(EXAMPLES)},
        capture_output=True,
        text=True,
        check=False,
    )
    line = {"test": f"R18-{name}", "examples": EXAMPLES, "seconds": round(time.monotonic() - began, 1)}
    print(f"\n{json.dumps({**line, 'verdict': 'FAIL' if done.returncode else 'pass'})}")
    assert done.returncode == 0, done.stdout[-4000:]
