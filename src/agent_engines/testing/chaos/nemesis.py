"""What does the harm: signals to processes by name, or whatever command the owner of a cluster gives."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
from collections import Counter
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any, Protocol

from agent_engines.domain.errors import AgentEnginesError

PATIENCE_SECONDS = 60.0
"""How long a process may be away before a nemesis complains."""
POLL_SECONDS = 0.02


class Running(Protocol):
    """What a fault run needs of a system: where it is (see `endpoints.json`), and the folder its agents write to."""

    @property
    def data_dir(self) -> Path: ...

    @property
    def endpoints(self) -> dict[str, Any]: ...

    @property
    def url(self) -> str: ...


class Nemesis:
    """Does harm to processes by name and counts it."""

    def __init__(self, system: Running, rng: Random) -> None:
        self._system = system
        self._rng = rng
        self.faults: Counter[str] = Counter()

    def named(self, prefix: str) -> list[str]:
        """Processes of that name, or whose name begins with it and a colon."""
        pids: dict[str, int] = self._system.endpoints["pids"]
        return sorted(name for name in pids if name == prefix or name.startswith(f"{prefix}:"))

    async def signal(self, name: str, number: signal.Signals) -> int:
        """Returns the pid that was hit; waits for the process when it is down just now."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                pid = self._system.endpoints["pids"].get(name)
                if pid is not None:
                    with suppress(ProcessLookupError):
                        os.kill(pid, number)
                        self.faults[f"{number.name} {name}"] += 1
                        return pid
                await asyncio.sleep(POLL_SECONDS)

    async def kill(self, name: str) -> None:
        """kill -9, and back again under another pid when this returns."""
        pid = await self.signal(name, signal.SIGKILL)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while self._system.endpoints["pids"].get(name, pid) == pid:
                await asyncio.sleep(POLL_SECONDS)

    async def kill_some(self, names: list[str], times: int, pause: tuple[float, float]) -> None:
        """A random one of `names`, `times` times, with pauses before and between."""
        for _ in range(times):
            await asyncio.sleep(self._rng.uniform(*pause))
            await self.kill(self._rng.choice(names))
        await asyncio.sleep(self._rng.uniform(*pause))

    async def stand_still(self, name: str, seconds: float) -> int:
        """SIGSTOP a process with its children for a while, then SIGCONT. Returns the pid."""
        pid = await self.signal(name, signal.SIGSTOP)
        family = [pid, *children(pid)]
        for one in family:
            with suppress(ProcessLookupError):
                os.kill(one, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            for one in family:
                with suppress(ProcessLookupError):
                    os.kill(one, signal.SIGCONT)
        return pid


class CommandNemesis(Nemesis):
    """Kills by a shell command of the owner's, `{name}` being agent, intelligence, nats, postgres or redis."""

    def __init__(self, system: Running, rng: Random, command: str) -> None:
        super().__init__(system, rng)
        self._command = command

    def named(self, prefix: str) -> list[str]:
        return [prefix]

    async def kill(self, name: str) -> None:
        """Raises AgentEnginesError when the command fails: then nothing was tested."""
        command = self._command.replace("{name}", shlex.quote(name))
        process = await asyncio.create_subprocess_shell(
            command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await process.communicate()
        if process.returncode:
            raise AgentEnginesError(
                f"`{command}` ended with {process.returncode}: {said.decode(errors='replace')[-200:]}"
            )
        self.faults[f"command {name}"] += 1


def children(pid: int) -> list[int]:
    """Process ids of the children (Linux); PostgreSQL's backends are sessions of their own. Empty where /proc is not."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(child) for child in text.split()]
