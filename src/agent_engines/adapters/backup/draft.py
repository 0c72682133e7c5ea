"""A directory made aside and renamed in one step: what has the name is whole, whenever we die."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from agent_engines.domain.errors import BackupFailed

MARK = ".partial-"


@contextmanager
def draft_of(target: Path) -> Generator[Path]:
    """A new private directory beside `target` that takes its name when the block ends well, and else goes.

    `target` may be an empty directory. Raises BackupFailed when it is anything else that exists, or cannot be made.
    """
    target = target.absolute()
    refuse_existing(target)
    draft = target.with_name(f".{target.name}{MARK}{secrets.token_hex(4)}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(target)
        draft.mkdir(mode=0o700)
        lock = os.open(draft, os.O_RDONLY)
    except OSError as error:
        raise BackupFailed(f"cannot make {target}: {error.strerror or error}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield draft
        os.fsync(lock)
        _name(draft, target)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    finally:
        os.close(lock)


def refuse_existing(target: Path) -> None:
    """Raises BackupFailed unless `target` is free: absent, or an empty directory."""
    try:
        free = not target.is_symlink() and (not target.exists() or not any(target.iterdir()))
    except OSError:
        free = False
    if not free:
        raise BackupFailed(f"{target} is already there and is never overwritten: choose another --out")


def _name(draft: Path, target: Path) -> None:
    try:
        # Onto an empty directory this is one step too; onto one that was filled meanwhile it fails.
        draft.rename(target)
        parent = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)
    except OSError as error:
        raise BackupFailed(f"cannot make {target}: {error.strerror or error}") from error


def _remove_abandoned(target: Path) -> None:
    """Drafts of this name whose makers were killed: the lock of a living one is held."""
    for left in target.parent.glob(f".{target.name}{MARK}*"):
        descriptor = os.open(left, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left, ignore_errors=True)
        except BlockingIOError:
            continue
        finally:
            os.close(descriptor)
