"""Files and directories nobody else may read, written so that a crash leaves the old content or the new one."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from agent_engines.domain.errors import EmbeddedServerError


def private_directory(path: Path, mode: int = 0o700) -> Path:
    """Create `path` with `mode` unless it exists; one that exists keeps its mode. Raises EmbeddedServerError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_dir():
            path.mkdir(mode=mode)
            path.chmod(mode)
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(13, os.strerror(13))
    except OSError as error:
        raise EmbeddedServerError(
            f"cannot use the directory {path}: {error.strerror or error}; choose a writable one with --data-dir"
        ) from error
    return path


def data_directory(path: Path) -> Path:
    """Create the directory of one installation; all that is secret in it is closed by itself. Raises EmbeddedServerError."""
    # Under root, PostgreSQL's own account must be able to pass through it, not to list it.
    return private_directory(path, 0o711 if os.geteuid() == 0 else 0o700)


def write_private(path: Path, content: bytes, *, lasting: bool = True) -> None:
    """Replace `path` in one step, mode 0600; `lasting`: also through a power loss. Raises EmbeddedServerError."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if lasting:
                os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise EmbeddedServerError(f"cannot write {path}: {error.strerror or error}") from error
