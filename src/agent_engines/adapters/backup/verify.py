"""Verifying a backup without a server: every fault is told, not only the first."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

from agent_engines.domain.errors import BackupFailed

from .make import described
from .manifest import DUMP, BackupFile, Manifest
from .programs import find_programs, major_of, run

CONTRACT = ("agents", "task_results", "decision_history")
"""Tables every backup has, whatever made it."""
_DATA = re.compile(r"^\d+; \d+ \d+ TABLE DATA \S+ (\S+) ", re.MULTILINE)


async def verify_backup(directory: Path) -> tuple[Manifest | None, list[str]]:
    """The manifest when it can be read, and one line for each fault; none: a restore will find everything it needs."""
    try:
        manifest = Manifest.read(directory)
    except BackupFailed as error:
        return None, [str(error)]
    faults = _wrong_lists(manifest)
    damaged = [fault for file in manifest.files for fault in await asyncio.to_thread(_compare, directory, file)]
    faults += damaged
    if not damaged and any(file.name == DUMP for file in manifest.files):
        faults += await _wrong_dump(manifest, directory / DUMP)
    return manifest, faults


def _wrong_lists(manifest: Manifest) -> list[str]:
    faults = [f"the manifest names no table {name}" for name in CONTRACT if name not in manifest.tables]
    if all(file.name != DUMP for file in manifest.files):
        faults.append(f"the manifest names no file {DUMP}")
    # A name with a path in it would be read from elsewhere.
    strange = [file.name for file in manifest.files if Path(file.name).name != file.name or file.name in ("", "..")]
    return faults + [f"{name!r} is no name of a file" for name in strange]


def _compare(directory: Path, expected: BackupFile) -> list[str]:
    path = directory / Path(expected.name).name
    try:
        size = path.stat().st_size
        if size != expected.size:
            return [f"{path.name} has {size} bytes, the manifest says {expected.size}"]
        if described(path).sha256 != expected.sha256:
            return [f"{path.name} is not what was written: its SHA-256 is another"]
    except FileNotFoundError:
        return [f"{path.name} is missing"]
    except OSError as error:
        return [f"{path.name} cannot be read: {error.strerror or error}"]
    return []


async def _wrong_dump(manifest: Manifest, dump: Path) -> list[str]:
    try:
        programs = find_programs(major_of(manifest.client), "the backup")
        listed = await run((programs.program("pg_restore"), "--list", str(dump)), {"PATH": os.defpath, "LC_ALL": "C"})
    except BackupFailed as error:
        return [f"{dump.name} cannot be listed: {error}"]
    inside = set(_DATA.findall(listed.decode(errors="replace")))
    return [f"{dump.name} has no data of the table {name}" for name in sorted(manifest.tables) if name not in inside]
