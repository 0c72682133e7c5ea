"""A spool in files: one for each replica, locked while it lives, appended and fsynced in a thread beside the event loop.

A file is a row of frames: magic, length, CRC-32 (12 bytes, big-endian), then a JSON array of Spooled. The first frame
that is cut short or does not match its checksum ends the file: it was being written when the process died.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import struct
import threading
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from agent_engines.domain.agents import validated_agent_id
from agent_engines.domain.errors import Unavailable
from agent_engines.ports.spool import MAX_BYTES, MAX_REPORTS, Spooled

MAGIC = b"AES1"
HEAD = struct.Struct(">4sII")
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(tuple[Spooled, ...]).decode

Answer = TypeVar("Answer")


class FileSpool:
    """Implements ports.spool.Spool in `directory`, which is made when it is first needed. Raises InvalidRequest."""

    def __init__(
        self, directory: Path, agent: str, *, max_reports: int = MAX_REPORTS, max_bytes: int = MAX_BYTES
    ) -> None:
        self._directory = directory
        self._agent = validated_agent_id(agent)
        self._max_reports = max_reports
        self._max_bytes = max_bytes
        self._file: _LockedFile | None = None
        self._reports = 0
        self._bytes = 0

    async def keep(self, group: Sequence[Spooled]) -> bool:
        frame = _frame(group)
        if self._reports + len(group) > self._max_reports or self._bytes + len(frame) > self._max_bytes:
            return False
        await _aside(lambda: self._append(frame))
        self._reports += len(group)
        self._bytes += len(frame)
        return True

    async def clear(self) -> None:
        file, self._file = self._file, None
        self._reports = self._bytes = 0
        if file is not None:
            await _aside(file.remove)

    async def orphans(self) -> list[FileOrphan]:
        return await _aside(self._find_orphans)

    async def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            await _aside(file.close)

    def _append(self, frame: bytes) -> None:
        if self._file is None:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = _LockedFile.new(self._directory, self._agent)
        self._file.append(frame)

    def _find_orphans(self) -> list[FileOrphan]:
        found: list[FileOrphan] = []
        for path in sorted(self._directory.glob(f"{self._agent}.*.spool")):
            file = _LockedFile.of_the_dead(path)
            if file is not None:
                found.append(FileOrphan(file))
        return found


class FileOrphan:
    """Implements ports.spool.Orphan."""

    def __init__(self, file: _LockedFile) -> None:
        self._file = file

    async def read(self) -> tuple[Spooled, ...] | None:
        return await _aside(self._file.next_group)

    async def remove(self) -> None:
        await _aside(self._file.remove)

    async def leave(self) -> None:
        await _aside(self._file.close)


class _LockedFile:
    """An open file that is ours: the system lets go of the lock when we die, however that happens."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self._end = 0
        self._at = 0

    @classmethod
    def new(cls, directory: Path, agent: str) -> _LockedFile:
        """Raises OSError."""
        while True:
            path = directory / f"{agent}.{secrets.token_hex(6)}.spool"
            file = cls._locked(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
            if file is not None:
                # A new name is only durable when its directory is.
                folder = os.open(directory, os.O_RDONLY)
                try:
                    os.fsync(folder)
                finally:
                    os.close(folder)
                return file

    @classmethod
    def of_the_dead(cls, path: Path) -> _LockedFile | None:
        """None while its owner lives, or when somebody else was faster."""
        try:
            return cls._locked(path, os.O_RDWR)
        except FileNotFoundError:
            return None

    @classmethod
    def _locked(cls, path: Path, flags: int) -> _LockedFile | None:
        descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it before us may have removed it: a lock on a file without a name keeps nobody away.
            if os.fstat(descriptor).st_nlink > 0:
                return cls(path, descriptor)
        except BlockingIOError:
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    def append(self, frame: bytes) -> None:
        """Durable when it returns; after an OSError the file ends where it did before."""
        written = 0
        try:
            while written < len(frame):
                written += os.pwrite(self._descriptor, frame[written:], self._end + written)
            os.fsync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, self._end)
            raise
        self._end += len(frame)

    def next_group(self) -> tuple[Spooled, ...] | None:
        head = os.pread(self._descriptor, HEAD.size, self._at)
        if len(head) < HEAD.size:
            return None
        magic, length, checksum = HEAD.unpack(head)
        if magic != MAGIC or self._at + HEAD.size + length > os.fstat(self._descriptor).st_size:
            return None
        body = os.pread(self._descriptor, length, self._at + HEAD.size)
        if zlib.crc32(body) != checksum:
            return None
        self._at += HEAD.size + length
        try:
            return _decode(body)
        except msgspec.MsgspecError as error:
            raise Unavailable(f"the spool {self._path} was written by a newer release: {error}") from error

    def remove(self) -> None:
        if self._descriptor >= 0:
            self._path.unlink(missing_ok=True)
            self.close()

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def _frame(group: Sequence[Spooled]) -> bytes:
    body = _encode(list(group))
    return HEAD.pack(MAGIC, len(body), zlib.crc32(body)) + body


async def _aside(work: Callable[[], Answer]) -> Answer:
    """Run in a thread of its own: a disk may stand still, and neither the loop nor the end of the process waits for it.

    Raises Unavailable in place of OSError.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Answer] = loop.create_future()

    def settle(answer: Answer | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(answer)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    def run() -> None:
        answer: Answer | None = None
        problem: BaseException | None = None
        try:
            answer = work()
        except BaseException as error:
            problem = error
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, answer, problem)

    threading.Thread(target=run, name="spool", daemon=True).start()
    try:
        return await future
    except OSError as error:
        raise Unavailable(f"the spool cannot be used: {error.strerror or error}") from error
