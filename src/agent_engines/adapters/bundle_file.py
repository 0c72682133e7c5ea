"""One compressed archive, written aside and put in its place whole: for its owner only, over nothing that is there."""

from __future__ import annotations

import io
import os
import secrets
import tarfile
from collections.abc import Mapping
from pathlib import Path

from agent_engines.domain.errors import InvalidRequest


def require_free(path: Path) -> None:
    """Raises InvalidRequest when something is there, or the folder is not."""
    if os.path.lexists(path):
        raise InvalidRequest(f"{path} is there already: give another name with --out, or move it away", field="out")
    if not path.parent.is_dir():
        raise InvalidRequest(
            f"the folder {path.parent} is not there: make it, or give another name with --out", field="out"
        )


def write_bundle(path: Path, files: Mapping[str, bytes], *, folder: str, moment: float) -> int:
    """Write all files under `folder`; the size in bytes. Raises InvalidRequest when the name was taken meanwhile, OSError."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            with tarfile.open(fileobj=file, mode="w:gz", compresslevel=6) as archive:
                for name, content in files.items():
                    entry = tarfile.TarInfo(f"{folder}/{name}")
                    entry.size, entry.mtime, entry.mode = len(content), int(moment), 0o600
                    archive.addfile(entry, io.BytesIO(content))
            file.flush()
            os.fsync(file.fileno())
        _put(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    return path.stat().st_size


def _put(draft: Path, path: Path) -> None:
    try:
        # A link refuses a name that is taken; a rename would replace what is there.
        os.link(draft, path)
    except FileExistsError:
        raise InvalidRequest(f"{path} is there already: give another name with --out", field="out") from None
    except OSError:
        # A file system without links.
        require_free(path)
        draft.rename(path)
