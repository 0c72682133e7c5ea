"""One supervisor for each data directory."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from agent_engines.domain.errors import EmbeddedServerError


class DataInUse(EmbeddedServerError):
    """Another process holds the lock of this data directory."""


class DataLock:
    """Held from `take` to `release`; the system releases it when we die, however that happens."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        return self._descriptor is not None

    def take(self) -> None:
        """Raises DataInUse naming the process that holds it, EmbeddedServerError."""
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise EmbeddedServerError(f"cannot open {self._path}: {error.strerror or error}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise DataInUse(
                f"{self._path.parent} is already in use by process {holder}; stop it or choose another --data-dir"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """May be called twice. The file stays: removing it would let two processes hold two locks of one name."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
