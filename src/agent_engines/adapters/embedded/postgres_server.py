"""The embedded PostgreSQL."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import signal
from pathlib import Path

from agent_engines.domain.errors import EmbeddedServerError

from .accounts import Account
from .binaries import PostgresBinaries
from .child import Child, Command
from .free_ports import LOOPBACK, PortBook
from .log_files import LogFiles
from .postgres_home import home_of_data, programs_for
from .postmaster_file import PostmasterFile
from .private_files import write_private
from .server import USER, Place

DATABASE = "agent_engines"
INITDB_SECONDS = 120.0

# One machine, a few engines: little memory, few helper processes, few wake-ups when idle.
SETTINGS = {
    "listen_addresses": LOOPBACK,
    # Paths of sockets are limited to about 107 bytes, data directories are not.
    "unix_socket_directories": "",
    "max_connections": "60",
    "shared_buffers": "64MB",
    "max_wal_size": "1GB",
    "checkpoint_timeout": "15min",
    "jit": "off",
    "io_method": "sync",
    "max_wal_senders": "0",
    "wal_level": "minimal",
    "max_logical_replication_workers": "0",
    "max_worker_processes": "2",
    "max_parallel_workers_per_gather": "0",
    "bgwriter_lru_maxpages": "0",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "log_destination": "stderr",
    "logging_collector": "off",
}
# The settings that make a commit last through a power loss, said aloud; an ephemeral place has nothing to last.
DURABLE = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}
EPHEMERAL = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "on"}


class PostgresServer:
    """TCP on loopback with SCRAM passwords; the data belongs to the account it runs as."""

    name = "postgres"
    port_names = ("postgres",)

    def __init__(
        self,
        binaries: PostgresBinaries,
        place: Place,
        *,
        ports: PortBook,
        password: str,
        account: Account | None,
        password_is_new: bool = False,
    ) -> None:
        self._binaries = binaries
        self._place = place
        self._ports = ports
        self._password = password
        self._account = account
        self._password_is_new = password_is_new
        self._home = place.root / "postgres"
        self._settings = {**SETTINGS, **(EPHEMERAL if place.ephemeral else DURABLE)}

    @property
    def url(self) -> str:
        return f"postgresql://{USER}:{self._password}@{LOOPBACK}:{self._ports['postgres']}/{DATABASE}"

    async def prepare(self) -> None:
        self._home = home_of_data(self._place, self._account)
        self._binaries = programs_for(self._binaries, self._account)
        version = self._data / "PG_VERSION"
        if not version.exists():
            await self._initialise()
            return
        self._refuse_other_major(version.read_text().strip())
        if self._password_is_new:
            await self.clean()
            await self._run_sql(self._data, f"ALTER ROLE {USER} PASSWORD '{self._password}'")

    async def clean(self) -> None:
        await PostmasterFile(self._data, self._cluster).clear()

    def command(self) -> Command:
        settings = {**self._settings, "cluster_name": self._cluster}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        port = str(self._ports["postgres"])
        argv = (str(self._binaries.program("postgres")), "-D", str(self._data), "-p", port, *options)
        # SIGINT is PostgreSQL's "fast": end all sessions, write a checkpoint, leave.
        return self._command(argv, stop_signal=signal.SIGINT)

    async def ready(self, pid: int) -> bool:
        return PostmasterFile(self._data, self._cluster).says_ready(pid)

    @property
    def _cluster(self) -> str:
        # PostgreSQL puts it into the title of each of its processes: they are found by it.
        return f"ae-{hashlib.sha256(str(self._data).encode()).hexdigest()[:16]}"

    @property
    def _data(self) -> Path:
        return self._home / "data"

    def _refuse_other_major(self, found: str) -> None:
        if found != str(self._binaries.major):
            raise EmbeddedServerError(
                f"the data in {self._data} was written by PostgreSQL {found}, but {self._binaries.major} is installed; "
                "`engines backup --out B --data-dir D` with the old installation, then `engines restore --from B` into a "
                "new --data-dir with this one"
            )

    async def _initialise(self) -> None:
        # Made aside and moved in one step: a directory named `data` is always a whole one.
        draft, password_file = self._home / "data.new", self._home / "password.new"
        shutil.rmtree(draft, ignore_errors=True)
        password_file.unlink(missing_ok=True)
        try:
            draft.mkdir(mode=0o700)
            write_private(password_file, self._password.encode())
            if self._account is not None:
                for path in (draft, password_file):
                    os.chown(path, self._account.uid, self._account.gid)
            program = str(self._binaries.program("initdb"))
            options = ["-E", "UTF8", "--locale=C", "-U", USER, "--auth=scram-sha-256", f"--pwfile={password_file}"]
            if self._place.ephemeral:
                options.append("--no-sync")
            await self._run_once(self._command((program, "-D", str(draft), *options)))
            await self._run_sql(draft, f"CREATE DATABASE {DATABASE}")
            draft.rename(self._data)
        except OSError as error:
            raise EmbeddedServerError(f"cannot create PostgreSQL's data in {self._home}: {error}") from error
        finally:
            password_file.unlink(missing_ok=True)

    async def _run_sql(self, data: Path, statement: str) -> None:
        """One statement through the server's single-user mode, which needs neither a port nor a password."""
        script = self._place.root / "postgres.sql"
        write_private(script, f"{statement}\n".encode())
        options = ("-D", str(data), "-c", "log_statement=none", "-c", "log_min_error_statement=panic")
        argv = (str(self._binaries.program("postgres")), "--single", "-j", *options, "postgres")
        try:
            await self._run_once(self._command(argv, stdin=script))
        finally:
            script.unlink()

    async def _run_once(self, command: Command) -> None:
        log = LogFiles(self._place.logs)
        start = log.size(self.name)
        child = Child.spawn(command)
        try:
            async with asyncio.timeout(INITDB_SECONDS):
                code = await child.wait()
        except TimeoutError:
            code = -signal.SIGKILL
        finally:
            await child.stop(grace=1.0)
        if code != 0:
            program = Path(command.argv[0]).name
            reason = log.reason(self.name, start) or f"{program} ended with code {code}"
            raise EmbeddedServerError(f"PostgreSQL could not be set up in {self._home}: {reason}")

    def _command(
        self, argv: tuple[str, ...], *, stop_signal: signal.Signals = signal.SIGTERM, stdin: Path | None = None
    ) -> Command:
        return Command(
            argv=argv,
            # The account's own home may be closed to it, and PostgreSQL's tools look there.
            env={"HOME": str(self._home), "PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
            cwd=self._home,
            log=self._place.logs / "postgres.log",
            account=self._account,
            stop_signal=stop_signal,
            orphan_signal=stop_signal,
            stdin=stdin,
        )
