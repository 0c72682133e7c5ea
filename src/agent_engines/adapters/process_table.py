"""The processes of an installation: what each uses just now, from /proc, or from `ps` where there is none."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

PROC = Path("/proc")
PS_SECONDS = 5.0
MOST = 500


def processes(named: Mapping[str, int], supervisor: int | None) -> list[dict[str, Any]]:
    """The named ones, the supervisor and all their descendants. Commands are as the system shows them: mask them."""
    names = {pid: name for name, pid in named.items()} | ({supervisor: "supervisor"} if supervisor else {})
    if not (PROC / "self" / "stat").exists():
        return _by_ps(names)
    parents = {pid: stat[1] for pid in _pids() if (stat := _stat(pid))}
    wanted = set(names)
    grown = True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in wanted} - wanted
        wanted |= more
        grown = bool(more)
    return [_described(pid, names.get(pid, ""), parents.get(pid)) for pid in sorted(wanted)[:MOST]]


def _pids() -> Iterable[int]:
    return (int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit())


def _stat(pid: int) -> tuple[str, int, float, float, int] | None:
    """State, parent, CPU seconds, start in seconds after boot, threads."""
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    # The name in brackets may hold anything, brackets too.
    fields = text.rpartition(")")[2].split()
    ticks = os.sysconf("SC_CLK_TCK")
    cpu = (int(fields[11]) + int(fields[12])) / ticks
    return fields[0], int(fields[1]), cpu, int(fields[19]) / ticks, int(fields[17])


def _described(pid: int, name: str, parent: int | None) -> dict[str, Any]:
    stat = _stat(pid)
    if stat is None:
        return {"name": name, "pid": pid, "state": "gone"}
    state, _, cpu, start, threads = stat
    age = float((PROC / "uptime").read_text().split()[0]) - start
    return {
        "name": name,
        "pid": pid,
        "parent": parent,
        "state": state,
        "cpu_seconds": round(cpu, 2),
        "cpu_share_of_its_life": round(cpu / age, 4) if age > 0 else None,
        "age_seconds": round(age, 1),
        "memory": _memory(pid),
        "threads": threads,
        "open_files": _open_files(pid),
        "command": _command(pid),
    }


def _memory(pid: int) -> dict[str, str]:
    lines = _read(pid, "status").splitlines()
    kept = ("VmRSS", "VmHWM", "VmSwap")
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines) if name in kept}


def _open_files(pid: int) -> int | str:
    try:
        return sum(1 for _ in (PROC / str(pid) / "fd").iterdir())
    except OSError as error:
        return f"could not be read: {error.strerror}"


def _command(pid: int) -> str:
    return _read(pid, "cmdline").replace("\0", " ").strip()


def _read(pid: int, what: str) -> str:
    try:
        return (PROC / str(pid) / what).read_text(errors="replace")
    except OSError:
        return ""


def _by_ps(names: Mapping[int, str]) -> list[dict[str, Any]]:
    columns = ("pid", "ppid", "stat", "pcpu", "rss", "etime", "command")
    command = ["ps", "-o", ",".join(columns), "-p", ",".join(map(str, names))]
    told = subprocess.run(command, capture_output=True, text=True, timeout=PS_SECONDS, check=False).stdout
    rows = [line.split(None, len(columns) - 1) for line in told.splitlines()[1:]]
    return [{"name": names.get(int(row[0]), ""), **dict(zip(columns, row, strict=False))} for row in rows]
