"""pg_dump, pg_restore and psql: those of the embedded PostgreSQL, else those on PATH; run so that they end with us."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agent_engines.adapters.embedded.binaries import find_postgres
from agent_engines.adapters.embedded.child import die_with_parent
from agent_engines.domain.errors import BackupFailed, EmbeddedServerError

NEEDED = ("pg_dump", "pg_restore", "psql")
STOP_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Programs:
    """The client programs of one PostgreSQL, all in one directory."""

    directory: Path
    version: str

    @property
    def major(self) -> int:
        return major_of(self.version)

    def program(self, name: str) -> str:
        return str(self.directory / name)


def major_of(version: str) -> int:
    """18 of "18.4", 17 of "17beta1"; 0 when there is no number."""
    digits = version.lstrip()
    end = next((index for index, char in enumerate(digits) if not char.isdigit()), len(digits))
    return int(digits[:end] or 0)


def find_programs(least: int, what: str) -> Programs:
    """Client programs of PostgreSQL `least` or newer; `what` is that old and needs them. Raises BackupFailed.

    An older pg_dump refuses a newer server, an older pg_restore a newer dump.
    """
    found = list(_candidates())
    for programs in found:
        if programs.major >= least:
            return programs
    if not found:
        raise BackupFailed(
            "pg_dump, pg_restore and psql are needed and not here: pip install 'agent-engines[embedded]', "
            "or put PostgreSQL's client programs on PATH"
        )
    best = max(found, key=lambda programs: programs.major)
    raise BackupFailed(
        f"{what} is of PostgreSQL {least}, the programs in {best.directory} are of {best.major} and cannot read it: "
        f"put the client programs of PostgreSQL {least} or newer on PATH"
    )


def _candidates() -> Iterator[Programs]:
    try:
        carrier = find_postgres()
        yield Programs(carrier.root / "bin", carrier.version)
    except EmbeddedServerError:
        # Not installed, or not for this system: then what the system has.
        pass
    on_path = shutil.which("pg_dump")
    if on_path is None:
        return
    directory = Path(on_path).parent
    if all((directory / name).is_file() for name in NEEDED):
        version = _version(on_path)
        if version:
            yield Programs(directory, version)


def _version(program: str) -> str:
    """Of `pg_dump (PostgreSQL) 15.18 (Debian ...)`: 15.18."""
    try:
        answer = subprocess.run([program, "--version"], capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.stdout.partition(") ")[2].split(" ")[0].strip()


async def spawn(argv: Sequence[str], env: Mapping[str, str], **streams: int) -> asyncio.subprocess.Process:
    """Start one of them in a session of its own: a Ctrl-C is ours to answer. Raises BackupFailed."""
    try:
        return await asyncio.create_subprocess_exec(
            *argv,
            env=dict(env),
            stdin=streams.get("stdin", asyncio.subprocess.DEVNULL),
            stdout=streams.get("stdout", asyncio.subprocess.DEVNULL),
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            umask=0o077,
            preexec_fn=die_with_parent(signal.SIGTERM),
        )
    except OSError as error:
        raise BackupFailed(f"cannot start {argv[0]}: {error.strerror or error}") from error


async def run(argv: Sequence[str], env: Mapping[str, str]) -> bytes:
    """What it wrote to standard output. Raises BackupFailed with its own reason."""
    process = await spawn(argv, env, stdout=asyncio.subprocess.PIPE)
    try:
        output, complaint = await process.communicate()
    finally:
        await end(process)
    if process.returncode:
        raise BackupFailed(f"{Path(argv[0]).name}: {reason(complaint, process.returncode)}")
    return output


async def end(process: asyncio.subprocess.Process) -> None:
    """Leave nothing behind, whatever happened. May be called twice."""
    for stop in (process.terminate, process.kill):
        if process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            stop()
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), STOP_SECONDS)


def reason(complaint: bytes, code: int | None) -> str:
    """The first error in what a program wrote; what comes after it is mostly its consequence."""
    lines = [line.strip() for line in complaint.decode(errors="replace").splitlines() if line.strip()]
    telling = [line for line in lines if "error:" in line.lower() or "fatal:" in line.lower()]
    text = (telling or lines or [f"it ended with code {code}"])[0]
    return text.removeprefix("pg_dump: ").removeprefix("pg_restore: ").removeprefix("psql: ").removeprefix("error: ")
