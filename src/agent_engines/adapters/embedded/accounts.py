"""Who a server runs as: PostgreSQL refuses root, so under root it gets an account without privileges."""

from __future__ import annotations

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

from agent_engines.domain.errors import EmbeddedServerError


@dataclass(frozen=True, slots=True)
class Account:
    """An operating system account that already exists; none is ever created."""

    name: str
    uid: int
    gid: int

    def may(self, path: Path, bits: int) -> bool:
        """Whether `path` itself grants `bits` (octal digit, as 5 for read and enter) by its mode."""
        try:
            status = path.stat()
        except OSError:
            return False
        if status.st_uid == self.uid:
            granted = status.st_mode >> 6
        elif status.st_gid == self.gid:
            granted = status.st_mode >> 3
        else:
            granted = stat.S_IMODE(status.st_mode)
        return granted & bits == bits

    def reaches(self, directory: Path) -> bool:
        """Whether this account can walk down to `directory` and enter it."""
        return all(self.may(step, 1) for step in (directory, *directory.resolve().parents))


def account_for_postgres() -> Account | None:
    """None when we are not root (PostgreSQL then runs as ourselves), else `nobody`. Raises EmbeddedServerError."""
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        raise EmbeddedServerError(
            "PostgreSQL refuses to run as root and this system has no account 'nobody'; start as an ordinary user"
        ) from None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
