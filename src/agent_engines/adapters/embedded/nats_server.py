"""The embedded NATS server with JetStream."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from .child import Command
from .free_ports import LOOPBACK, PortBook
from .private_files import private_directory, write_private
from .server import USER, Place, converse

MAX_PAYLOAD = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class NatsOptions:
    """`sync_always`: nothing is acknowledged before it is on the disk. `store_bytes`: most it keeps; 0: as it likes."""

    sync_always: bool = False
    store_bytes: int = 0


class NatsServer:
    """Streams are flushed to disk every second: what was accepted before that is also in the ledger (ADR 0001)."""

    name = "nats"
    port_names = ("nats", "nats_monitor")

    def __init__(
        self, binary: Path, place: Place, *, ports: PortBook, password: str, options: NatsOptions | None = None
    ) -> None:
        self._binary = binary
        self._place = place
        self._ports = ports
        self._password = password
        self._options = options or NatsOptions()
        self._directory = place.root / "nats"

    @property
    def url(self) -> str:
        return f"nats://{USER}:{self._password}@{LOOPBACK}:{self._ports['nats']}"

    @property
    def monitor_url(self) -> str:
        return f"http://{LOOPBACK}:{self._ports['nats_monitor']}"

    async def prepare(self) -> None:
        private_directory(self._directory)

    async def clean(self) -> None:
        # A file and not arguments: every account of the machine can read the arguments.
        write_private(self._directory / "nats.conf", self._settings().encode(), lasting=False)

    def command(self) -> Command:
        return Command(
            argv=(str(self._binary), "-c", str(self._directory / "nats.conf")),
            env={"HOME": str(self._directory), "TZ": "UTC"},
            cwd=self._directory,
            log=self._place.logs / "nats.log",
        )

    async def ready(self, pid: int) -> bool:
        request = b"GET /healthz?js-enabled-only=true HTTP/1.0\r\nHost: localhost\r\n\r\n"
        answer = await converse(self._ports["nats_monitor"], request, b"}")
        # The monitor listens before the clients' port does.
        return b'"ok"' in answer and (await converse(self._ports["nats"], b"", b"\r\n")).startswith(b"INFO ")

    def _settings(self) -> str:
        store = json.dumps(str(self._directory / "store"))
        sync = "always" if self._options.sync_always else "1s"
        room = f", max_file_store: {self._options.store_bytes}" if self._options.store_bytes else ""
        return f"""
server_name: "ae-embedded"
listen: "{LOOPBACK}:{self._ports["nats"]}"
http: "{LOOPBACK}:{self._ports["nats_monitor"]}"
max_payload: {MAX_PAYLOAD}
ping_interval: "5s"
authorization {{ user: "{USER}", password: "{self._password}" }}
jetstream {{ store_dir: {store}, sync_interval: "{sync}", max_memory_store: 256MB{room} }}
"""
