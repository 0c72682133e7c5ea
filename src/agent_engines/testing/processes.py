"""CPU time of processes and of everything below them, read from /proc (Linux; elsewhere nothing is seen)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(roots: Iterable[int]) -> float:
    """User and system time of these processes and all below them, those that ended included."""
    return sum(_ticks(pid) for pid in _family(roots, _children())) / TICKS


def cpu_by_name(pids: Mapping[str, int]) -> dict[str, float]:
    """The same for each by its name; without those that are not there."""
    children = _children() if pids else {}
    seen = {name: pid for name, pid in pids.items() if _stat(pid)}
    return {name: sum(_ticks(one) for one in _family([pid], children)) / TICKS for name, pid in seen.items()}


def _children() -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for entry in os.scandir(PROC) if PROC.is_dir() else ():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            found.setdefault(int(fields[1]), []).append(int(entry.name))
    return found


def _family(roots: Iterable[int], children: Mapping[int, list[int]]) -> set[int]:
    found: set[int] = set()
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting.extend(children.get(pid, ()))
    return found


def _ticks(pid: int) -> int:
    fields = _stat(pid)
    # utime, stime, and the same of children that were waited for.
    return sum(int(field) for field in fields[11:15]) if fields else 0


def _stat(pid: int) -> list[str]:
    """Fields from the state on (proc(5): field 3); empty when it is gone."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
