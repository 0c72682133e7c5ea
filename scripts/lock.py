"""Pin every dependency with its hash: requirements/run.lock (users, demo) and requirements/dev.lock (tests, lint).

Files of this form work with uv and with plain pip, on every platform and Python we support, and name no index, so
each machine's own configuration decides where packages come from (docs/adr/0002).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = {"run.lock": ("embedded", "demo"), "dev.lock": ("embedded", "demo", "test", "lint")}


def lock(name: str, extras: tuple[str, ...]) -> None:
    """Write one lock file. Raises CalledProcessError when the resolver finds no solution."""
    target = ROOT / "requirements" / name
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11"]
    command += ["--generate-hashes", "--no-emit-index-url", "--no-annotate", "--no-header"]
    command += [f"--extra={extra}" for extra in extras]
    # The run lock constrains the dev lock, so that tests run on exactly what users get.
    if name != "run.lock":
        command += ["--constraint", str(ROOT / "requirements" / "run.lock")]
    command += ["pyproject.toml", "--output-file", str(target)]
    subprocess.run(command, cwd=ROOT, check=True)


if __name__ == "__main__":
    for file, extras in LOCKS.items():
        lock(file, extras)
