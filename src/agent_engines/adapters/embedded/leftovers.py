"""Processes of an earlier run that outlived it: remembered by number and identity, stopped before we start our own."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import msgspec

from agent_engines.ports.telemetry import Log

from .private_files import write_private
from .process_identity import identity

POLL_SECONDS = 0.02
GRACE_SECONDS = 10.0


class Remembered(msgspec.Struct, frozen=True):
    pid: int
    identity: str
    stop_signal: int


async def stop_process(pid: int, known: str, stop_signal: int, *, grace: float = GRACE_SECONDS) -> None:
    """Stop a process that is not our child, if it still is the one with identity `known`; by force after `grace`."""
    for number in (stop_signal, signal.SIGKILL):
        try:
            if identity(pid) != known:
                return
            os.kill(pid, number)
        except ProcessLookupError:
            return
        try:
            async with asyncio.timeout(grace):
                # Not a child of ours: nothing to wait on but its disappearance.
                while identity(pid) == known:
                    await asyncio.sleep(POLL_SECONDS)
                return
        except TimeoutError:
            continue


class PidBook:
    """The living processes of one supervisor, in a file that survives it."""

    def __init__(self, path: Path, log: Log) -> None:
        self._path = path
        self._log = log
        self._entries: dict[str, Remembered] = {}

    def remember(self, name: str, pid: int, stop_signal: int) -> None:
        known = identity(pid)
        if known is not None:
            self._entries[name] = Remembered(pid, known, stop_signal)
            self._write()

    def forget(self, name: str) -> None:
        if self._entries.pop(name, None) is not None:
            self._write()

    async def stop_leftovers(self) -> None:
        """Stop what an earlier supervisor of this directory left running. A reused number is never touched."""
        try:
            left = msgspec.json.decode(self._path.read_bytes(), type=dict[str, Remembered])
        except FileNotFoundError:
            return
        except msgspec.DecodeError as error:
            self._log.warning("The list of earlier processes is damaged", path=str(self._path), error=str(error))
            return
        alive = {name: entry for name, entry in left.items() if identity(entry.pid) == entry.identity}
        for name, entry in alive.items():
            self._log.warning("A process of an earlier run is stopped", process=name, pid=entry.pid)
        await asyncio.gather(*(stop_process(entry.pid, entry.identity, entry.stop_signal) for entry in alive.values()))
        self._write()

    def _write(self) -> None:
        write_private(self._path, msgspec.json.encode(self._entries), lasting=False)
