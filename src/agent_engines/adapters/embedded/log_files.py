"""Output of child processes in files that stay small for ever."""

from __future__ import annotations

from pathlib import Path

from agent_engines.domain.errors import EmbeddedServerError

from .private_files import private_directory

LIMIT_BYTES = 4 * 1024 * 1024
_REASON_BYTES = 64 * 1024
# PostgreSQL and initdb, Valkey, NATS, and what the system says when the disk is full.
_ERROR_SIGNS = ("FATAL:", "PANIC:", "ERROR:", "error:", "FATAL CONFIG", "[ERR]", "[FTL]", "No space left")


class LogFiles:
    """The files `<name>.log` of one directory; what is over the limit moves to `<name>.log.1`, which replaces the last."""

    def __init__(self, directory: Path, *, limit: int = LIMIT_BYTES) -> None:
        self._directory = directory
        self._limit = limit

    def prepare(self) -> None:
        """Create the directory and trim what an earlier run left. Raises EmbeddedServerError."""
        private_directory(self._directory)
        self.trim()

    def path(self, name: str) -> Path:
        """The file for a process; `:` and `/` in its name become `-`."""
        return self._directory / f"{name.replace(':', '-').replace('/', '-')}.log"

    def trim(self) -> list[Path]:
        """Move the newest half-limit of each file that is too large aside and empty it; returns those files.

        The writers append, so they go on at the new end. Lines written during the copy may be lost.
        """
        trimmed: list[Path] = []
        try:
            for path in self._directory.glob("*.log"):
                size = path.stat().st_size
                if size > self._limit:
                    self._move_aside(path, size)
                    trimmed.append(path)
        except OSError as error:
            raise EmbeddedServerError(f"cannot trim the logs in {self._directory}: {error}") from error
        return trimmed

    def reason(self, name: str, offset: int = 0) -> str:
        """Why a process ended, by what it wrote after `offset`: its first error, else its last line, else nothing."""
        try:
            with self.path(name).open("rb") as file:
                file.seek(offset)
                lines = file.read(_REASON_BYTES).decode(errors="replace").strip().splitlines()
        except OSError:
            return ""
        # What comes after the first error is mostly its consequence.
        telling = [line for line in lines if any(sign in line for sign in _ERROR_SIGNS)]
        return (telling[0] if telling else lines[-1] if lines else "").strip()

    def size(self, name: str) -> int:
        try:
            return self.path(name).stat().st_size
        except OSError:
            return 0

    def _move_aside(self, path: Path, size: int) -> None:
        with path.open("r+b") as file:
            file.seek(size - self._limit // 2)
            path.with_name(f"{path.name}.1").write_bytes(file.read())
            file.truncate(0)
