"""manifest.json: what a backup is, written last, so that a directory without one is no backup."""

from __future__ import annotations

from pathlib import Path

import msgspec

from agent_engines.adapters.embedded.private_files import write_private
from agent_engines.domain.errors import BackupFailed

MANIFEST = "manifest.json"
DUMP = "ledger.dump"
FORMAT = 1
"""Raised when an older program could misread a backup. Unknown fields alone are no reason: they are ignored."""


class Bus(msgspec.Struct, frozen=True, kw_only=True):
    """What was only on the bus just before the snapshot. `journal`: accepted tasks, `reports`: messages with outcomes."""

    journal: int
    reports: int


class BackupFile(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    size: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """`tables`: rows of each table in the dump's own snapshot. `open_tasks`: without an outcome. `bus` None: it was not asked.

    `modes`: agents an operator drained or quarantined, None in backups that do not tell. Versions: `program` ours, `server` and `client` PostgreSQL's.
    """

    format: int = FORMAT
    created_at: str
    program: str
    schema: str
    server: str
    client: str
    tables: dict[str, int]
    open_tasks: int
    modes: dict[str, str] | None = None
    bus: Bus | None = None
    files: list[BackupFile]

    def write(self, directory: Path) -> None:
        """Raises EmbeddedServerError when it cannot be written."""
        write_private(directory / MANIFEST, msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n")

    @classmethod
    def read(cls, directory: Path) -> Manifest:
        """Raises BackupFailed."""
        path = directory / MANIFEST
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            what = (
                "is not there: name a directory that `engines backup` made"
                if not directory.exists()
                else f"has no {MANIFEST}: it is no backup, or not a whole one"
            )
            raise BackupFailed(f"{directory} {what}") from None
        except OSError as error:
            raise BackupFailed(f"cannot read {path}: {error.strerror or error}") from error
        try:
            written = msgspec.json.decode(content, type=_Format).format
            if written > FORMAT:
                raise BackupFailed(
                    f"{path} is of format {written}, this program reads up to {FORMAT}: "
                    "use the version of agent-engines that made the backup, or a newer one"
                )
            return msgspec.json.decode(content, type=cls)
        except msgspec.MsgspecError as error:
            raise BackupFailed(f"{path} is damaged: {error}; use another backup") from error


class _Format(msgspec.Struct):
    format: int
