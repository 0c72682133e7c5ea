"""Tell one process from a later one that was given the same number."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_PROC = Path("/proc")


def identity(pid: int) -> str | None:
    """The same text for as long as this process lives, another for any other; None when it is dead or a zombie."""
    if sys.platform != "linux":
        return _identity_by_ps(pid)
    try:
        status = (_PROC / str(pid) / "stat").read_text()
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    # The name in parentheses may hold blanks; fields after it: state is the 3rd, start time the 22nd (proc(5)).
    fields = status.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else f"{boot}:{fields[19]}"


def command_lines() -> dict[int, list[str]]:
    """The arguments, or the title it gave itself, of every process; empty where the system has no /proc."""
    found: dict[int, list[str]] = {}
    for entry in _PROC.glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes()
        except OSError:
            # It ended meanwhile.
            continue
        found[int(entry.name)] = line.decode(errors="replace").rstrip("\0").split("\0")
    return found


def _identity_by_ps(pid: int) -> str | None:
    answer = subprocess.run(
        ["/bin/ps", "-o", "state=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False, timeout=10
    ).stdout.strip()
    return None if not answer or answer.startswith("Z") else answer.partition(" ")[2].strip()
