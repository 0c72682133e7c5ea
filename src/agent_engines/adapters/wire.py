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

_encode_reports: Callable[[Sequence[Report]], bytes] = msgspec.json.Encoder().encode


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
    """(message id, bytes) of one batch, or of its halves where it is over `limit` bytes; one larger report travels alone.

    The id is a digest of the bytes, so the same batch sent again is recognised as the same message. It covers the
    capabilities: whoever forges a report must not make the bus take the true one for its copy.
    """
    raw = b'{"v":1,"reports":%b}' % _encode_reports(reports)
    if len(raw) > limit and len(reports) > 1:
        half = len(reports) // 2
        yield from report_messages(reports[:half], limit)
        yield from report_messages(reports[half:], limit)
    elif reports:
        yield hashlib.blake2b(raw, digest_size=16).hexdigest(), raw


def check_size(raw: bytes, limit: int) -> None:
    """Raises TooLarge: the server would cut the connection of whoever sends more than it takes."""
    if len(raw) > limit:
        raise TooLarge(f"the message has {len(raw)} bytes, the bus takes {limit}")
