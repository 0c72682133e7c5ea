"""Bytes and message ids on the bus: what every bus adapter writes and reads the same way."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence

import msgspec

from agent_engines.domain.errors import InvalidRequest, TooLarge
from agent_engines.domain.journal import JournalEntry
from agent_engines.domain.messages import Progress, Report, ReportBatch, TaskMessage

DUPLICATE_WINDOW_SECONDS = 120.0
"""How long a bus remembers message ids (the server's default, promised by ports/bus.py)."""

UNDECODABLE = (msgspec.MsgspecError, ValueError, RecursionError)
"""What decoding foreign bytes may raise."""

# Bound methods rather than functions: these run once for each task, and a Python frame would cost as much as they do.
encode: Callable[[msgspec.Struct], bytes] = msgspec.json.Encoder().encode

decode_task: Callable[[bytes], TaskMessage] = msgspec.json.Decoder(TaskMessage).decode
"""Raises one of UNDECODABLE."""

decode_progress: Callable[[bytes], Progress] = msgspec.json.Decoder(Progress).decode
"""Raises one of UNDECODABLE."""

decode_entry: Callable[[bytes], JournalEntry] = msgspec.json.Decoder(JournalEntry).decode
"""Raises one of UNDECODABLE."""

_decode_batch: Callable[[bytes], ReportBatch] = msgspec.json.Decoder(ReportBatch).decode

_BATCH_HEAD = b'{"v":1,"reports":['
_BATCH_TAIL = b"]}"


def decode_reports(raw: bytes) -> tuple[Report, ...]:
    """Raises one of UNDECODABLE."""
    return _decode_batch(raw).reports


def task_id(message: TaskMessage) -> str:
    """Message id of a dispatch: repeating it is harmless, a new generation is a new message."""
    return f"{message.task_id}:{message.generation}"


def valid_task_id(value: str) -> str:
    """Raises InvalidRequest: an id with dots, spaces or wildcards would name other subjects of the bus."""
    if value.isascii() and value.replace("-", "").replace("_", "").isalnum():
        return value
    raise InvalidRequest(f"{value!r} is not a task id", field="task_id")


def report_messages(reports: Sequence[Report], limit: int) -> Iterator[tuple[str, bytes]]:
    """(message id, bytes) of as few batches as keep each under `limit` bytes; one larger report travels alone.

    The id is a digest of the reports' epochs, so the same batch sent again is recognised as the same message. And of
    their capabilities: whoever forges a report must not make the bus take the true one for its copy.
    """
    parts: list[bytes] = []
    ids: list[str] = []
    size = 0
    for report in reports:
        part = encode(report)
        if parts and size + len(part) > limit:
            yield _digest(ids), _joined(parts)
            parts, ids, size = [], [], 0
        parts.append(part)
        epoch = f"{report.task_id}:{report.generation}:{report.attempt}:{report.delivery}:{report.kind.value}"
        judge = f":{report.judge.source}" if report.judge is not None else ""
        ids.append(f"{epoch}:{report.agent}:{report.capability}{judge}")
        size += len(part) + 1
    if parts:
        yield _digest(ids), _joined(parts)


def check_size(raw: bytes, limit: int) -> None:
    """Raises TooLarge: the server would cut the connection of whoever sends more than it takes."""
    if len(raw) > limit:
        raise TooLarge(f"the message has {len(raw)} bytes, the bus takes {limit}")


def _joined(parts: list[bytes]) -> bytes:
    return _BATCH_HEAD + b",".join(parts) + _BATCH_TAIL


def _digest(ids: list[str]) -> str:
    return hashlib.blake2b("|".join(ids).encode(), digest_size=16).hexdigest()
