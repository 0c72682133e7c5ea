"""Each peer's own environment, made on demand from its requirements."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PYTHON_PACKAGES = HERE / "requirements"
INSTALL_SECONDS = 300.0


class NotInstallable(Exception):
    """The environment of a system cannot be made; the message says why."""


@dataclass(frozen=True, slots=True)
class Environment:
    """A Python that has a system's packages, and what to add to its environment variables."""

    python: Path
    variables: Mapping[str, str] = field(default_factory=dict)

    def run_variables(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **self.variables}


def known_systems() -> list[str]:
    """The names of the modules in `systems`, ours first."""
    names = sorted(path.stem for path in (HERE / "systems").glob("*.py") if not path.stem.startswith("_"))
    return sorted(names, key=lambda name: not name.startswith("ours"))


def environment(name: str, home: Path) -> Environment:
    """That of the system `name`, below `home`; made anew when its requirements have changed. Raises NotInstallable."""
    requirements = PYTHON_PACKAGES / f"{name}.txt"
    if not requirements.exists():
        return Environment(Path(sys.executable))
    node = PYTHON_PACKAGES / f"{name}.npm.txt"
    wanted = requirements.read_bytes() + (node.read_bytes() if node.exists() else b"") + sys.version.encode()
    mark = hashlib.sha256(wanted).hexdigest()
    folder = home.absolute() / name
    if not (folder / "made-for").exists() or (folder / "made-for").read_text() != mark:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _must(sys.executable, "-m", "venv", "--without-pip", str(folder))
        python = str(folder / "bin" / "python")
        _must(sys.executable, "-m", "uv", "pip", "install", "-q", "--python", python, "-r", str(requirements))
        if node.exists():
            _must(
                "npm",
                "install",
                "--silent",
                "--ignore-scripts",
                "--prefix",
                str(folder / "npm"),
                *node.read_text().split(),
            )
        (folder / "made-for").write_text(mark)
    return Environment(folder / "bin" / "python", {"BENCH_NODE_BIN": str(folder / "npm" / "node_modules" / ".bin")})


def _must(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotInstallable(f"{command[0]}: {error}") from error
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()
        raise NotInstallable(f"{Path(command[0]).name} ended with {done.returncode}: {said[-1][:200]}")
