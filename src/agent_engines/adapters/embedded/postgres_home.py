"""Where PostgreSQL's files live when it runs as another account: somewhere that account can walk to.

Nobody's permissions are changed: what is in a closed directory is copied (programs) or kept elsewhere (data).
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from agent_engines.domain.errors import EmbeddedServerError

from .accounts import Account
from .binaries import PostgresBinaries
from .private_files import private_directory, write_private
from .server import Place

# /var/tmp only where /var/lib cannot be written: some systems empty it of what was not used for a month.
DATA_BASES = (Path("/var/lib/agent-engines"), Path("/var/tmp/agent-engines"))  # noqa: S108  owner and mode are checked
PROGRAM_BASES = (Path("/var/cache/agent-engines"), Path("/var/tmp/agent-engines"))  # noqa: S108


def home_of_data(place: Place, account: Account | None, *, bases: Sequence[Path] = DATA_BASES) -> Path:
    """The directory that holds PostgreSQL's data: inside `place`, or where `postgres.home` says. Raises EmbeddedServerError."""
    record = place.root / "postgres.home"
    if record.exists():
        home = Path(record.read_text().strip())
        if not home.is_dir():
            raise EmbeddedServerError(
                f"PostgreSQL's data of {place.root} was in {home}, which is gone; put it back, or remove {record} "
                "to start empty"
            )
        return home
    if account is None:
        return private_directory(place.root / "postgres")
    if account.reaches(place.root):
        # Others may pass through it, not list it; the data inside belongs to the account, mode 0700.
        return private_directory(place.root / "postgres", 0o711)
    if place.ephemeral:
        bases = (Path(tempfile.gettempdir()) / "agent-engines", *bases)
    base = _trusted_base(bases, account)
    home = private_directory(base / f"{place.root.name or 'data'}-{secrets.token_hex(4)}", 0o711)
    (home / "belongs-to").write_text(f"{place.root}\n")
    write_private(record, f"{home}\n".encode())
    return home


def remove_home(place: Place) -> None:
    """Delete data that is kept outside of an ephemeral place."""
    record = place.root / "postgres.home"
    if record.exists():
        shutil.rmtree(record.read_text().strip(), ignore_errors=True)


def programs_for(
    binaries: PostgresBinaries, account: Account | None, *, bases: Sequence[Path] = PROGRAM_BASES
) -> PostgresBinaries:
    """The same programs where `account` can run them: as installed, or in a copy made once. Raises EmbeddedServerError."""
    if account is None or _can_run(binaries.root, account):
        return binaries
    postgres = binaries.program("postgres")
    status = postgres.stat()
    fingerprint = hashlib.sha256(f"{postgres}:{status.st_size}:{status.st_mtime_ns}".encode()).hexdigest()[:12]
    copy = _trusted_base(bases, account) / f"postgres-{binaries.version}-{fingerprint}"
    root = copy / binaries.root.parent.name / binaries.root.name
    if not copy.exists():
        _copy_programs(binaries.root, copy)
    if not _can_run(root, account):
        raise EmbeddedServerError(
            f"account {account.name} cannot run PostgreSQL from {copy}; remove it and start again"
        )
    return PostgresBinaries(root, binaries.version)


def _can_run(root: Path, account: Account) -> bool:
    if not account.reaches(root):
        return False
    libraries = _libraries_beside(root.parent)
    trees = (root / "bin", root / "lib", root / "share", *libraries)
    return all(account.may(path, 5 if path.is_dir() else 4) for tree in trees for path in (tree, *tree.rglob("*")))


def _libraries_beside(package: Path) -> list[Path]:
    """Where wheels carry shared libraries; the programs find them by their relative place."""
    return [path for path in (package.parent / f"{package.name}.libs", package / ".dylibs") if path.is_dir()]


def _copy_programs(root: Path, copy: Path) -> None:
    package = root.parent
    draft = Path(tempfile.mkdtemp(prefix=f".{copy.name}-", dir=copy.parent))
    try:
        for source in (root, *_libraries_beside(package)):
            shutil.copytree(source, draft / source.relative_to(package.parent), symlinks=True)
        for path in (draft, *draft.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        draft.rename(copy)
    except OSError as error:
        # Another process of ours may have put the same copy there first.
        shutil.rmtree(draft, ignore_errors=True)
        if not copy.exists():
            raise EmbeddedServerError(f"cannot copy PostgreSQL to {copy}: {error.strerror or error}") from error


def _trusted_base(bases: Iterable[Path], account: Account) -> Path:
    """The first of `bases` that is ours alone to write and that `account` can enter."""
    reasons: list[str] = []
    for base in bases:
        try:
            private_directory(base, 0o711)
        except EmbeddedServerError as error:
            reasons.append(str(error))
            continue
        status = base.lstat()
        # In a directory that everyone may write, someone else could have made it first.
        if base.is_symlink() or status.st_uid != os.geteuid() or status.st_mode & 0o022:
            reasons.append(f"{base} is not ours alone")
        elif not account.reaches(base):
            reasons.append(f"{account.name} cannot enter {base}")
        else:
            return base
    raise EmbeddedServerError(f"no place for PostgreSQL's files: {'; '.join(reasons)}; start as an ordinary user")
