"""Where everything of one running installation is found: the content of `endpoints.json`."""

from __future__ import annotations

from pathlib import Path

import msgspec

from agent_engines.domain.errors import EmbeddedServerError, NotFound

from .private_files import write_private


class Endpoints(msgspec.Struct, frozen=True, kw_only=True):
    """URLs carry credentials and work with psql, redis-cli and NATS clients. `pids`: process name to process id."""

    nats_url: str
    postgres_url: str
    redis_url: str
    http_url: str | None = None
    nats_monitor_url: str | None = None
    pids: dict[str, int] = {}
    supervisor_pid: int | None = None

    def write(self, path: Path) -> None:
        """Replace the file in one step, readable by its owner only. Raises EmbeddedServerError."""
        write_private(path, msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n", lasting=False)

    @classmethod
    def read(cls, path: Path) -> Endpoints:
        """Raises NotFound when nothing runs there, EmbeddedServerError when the file is not what we write."""
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except FileNotFoundError:
            raise NotFound(f"nothing runs in {path.parent}: {path.name} is not there") from None
        except (OSError, msgspec.DecodeError) as error:
            raise EmbeddedServerError(f"cannot read {path}: {error}") from error
