"""What processes cost, read from /proc: processor time and memory of a process and everything below it (Linux)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

MIB = 1024 * 1024
TICKS = os.sysconf("SC_CLK_TCK")


def family(*roots: int) -> list[int]:
    """The process ids of `roots` and everything below them, each once."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int(_stat(int(entry.name))[1])
            except OSError:
                continue
            parents.setdefault(parent, []).append(int(entry.name))
    found: dict[int, None] = {}
    queue = list(roots)
    while queue:
        pid = queue.pop()
        if pid not in found:
            found[pid] = None
            queue += parents.get(pid, [])
    return list(found)


def cpu(pid: int) -> float:
    """Seconds of user and system time so far, with those of children that have ended and were waited for."""
    return sum(int(field) for field in _stat(pid)[11:15]) / TICKS


def cpu_of(pids: Iterable[int]) -> float:
    """The same for all of them; those that are gone are in their parents' account."""
    total = 0.0
    for pid in pids:
        try:
            total += cpu(pid)
        except OSError:
            continue
    return total


def memory(pid: int) -> tuple[float, float]:
    """(proportional, resident) MiB: shared pages are divided among those that share them in the first."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in rollup if line.startswith(("Pss:", "Rss:"))}
    return sizes["Pss"] / MIB, sizes["Rss"] / MIB


def proportional(pids: Iterable[int]) -> float:
    """MiB of all of them together; what ends meanwhile counts nothing."""
    total = 0.0
    for pid in pids:
        try:
            total += memory(pid)[0]
        except (OSError, KeyError):
            # Gone, or a zombie, which has no memory.
            continue
    return total


def name(pid: int) -> str:
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().replace("\0", " ").strip().split()
    return " ".join(word.rsplit("/", 1)[-1] for word in words[:5])


def birth(pid: int) -> str | None:
    """When it began, in the kernel's ticks: with it a process id names one process only. None when it is gone."""
    try:
        return _stat(pid)[19]
    except OSError:
        return None


def alive(pid: int) -> bool:
    """A zombie is not."""
    try:
        return _stat(pid)[0] != "Z"
    except OSError:
        return False


def _stat(pid: int) -> list[str]:
    # The command's name may hold blanks and brackets; the fields after it are counted from the state.
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
