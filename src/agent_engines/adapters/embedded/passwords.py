"""The servers' passwords: made once for each data directory, readable by its owner only."""

from __future__ import annotations

import secrets
from pathlib import Path

import msgspec

from agent_engines.domain.errors import EmbeddedServerError

from .private_files import write_private


class Passwords(msgspec.Struct, frozen=True):
    """Hexadecimal, so that they need no quoting in any URL, setting or statement."""

    nats: str
    postgres: str
    redis: str

    @classmethod
    def make(cls) -> Passwords:
        return cls(*(secrets.token_hex(16) for _ in range(3)))

    @classmethod
    def keep(cls, path: Path) -> tuple[Passwords, bool]:
        """Those in `path`, or new ones written there; and whether they are new. Raises EmbeddedServerError."""
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls), False
        except FileNotFoundError:
            passwords = cls.make()
            write_private(path, msgspec.json.encode(passwords))
            return passwords, True
        except (OSError, msgspec.DecodeError) as error:
            raise EmbeddedServerError(f"cannot read {path}: {error}; remove it to get new passwords") from error
