"""Broadcasts: what was recorded, as messages of the bus. Signals: what is lost is asked for, or does without.

`recorded.<origin>`: reports with their results, at once, for whoever waits for these tasks
`outcomes.<router>`: outcomes, for everybody who learns from all of them (outcome_feed.py)
`feedback.<router>`: of these the judgements once more, for whoever needs no others
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from agent_engines.domain import subjects
from agent_engines.domain.agents import AGENT_ID
from agent_engines.domain.errors import Unavailable
from agent_engines.domain.messages import VERSION, Report, ReportKind
from agent_engines.domain.tasks import NO_PAYLOAD
from agent_engines.ports.bus import Bus

from .outcomes import Outcome, outcome_of

Seal = Callable[[bytes], str]
"""A router's mark on bytes; see Capabilities.seal."""
NOBODY = "-"
"""Origin of reports whose submitter left no usable name, and router of what nobody's recorder has recorded."""


async def broadcast(bus: Bus, origin: str, report: Report) -> None:
    """Tell everybody what was recorded beside the recorder. Nobody learns from it: it carries no router's mark."""
    await tell_waiters(bus, origin, [report])
    await tell_learners(bus, NOBODY, [outcome_of(report)], None)


async def tell_waiters(bus: Bus, origin: str, reports: Sequence[Report]) -> None:
    # An origin comes from outside and becomes part of a subject.
    name = origin if AGENT_ID.fullmatch(origin) else NOBODY
    await _send(bus, subjects.recorded(name), batches(reports, bus.max_message_bytes))


async def tell_learners(bus: Bus, router: str, outcomes: Sequence[Outcome], seal: Seal | None) -> None:
    """`seal` marks what came through the gate: only that teaches (runtime/strategies.py)."""
    await _send(bus, subjects.outcomes(router), batches(outcomes, bus.max_message_bytes, seal))
    judgements = [outcome for outcome in outcomes if outcome.kind is ReportKind.FEEDBACK]
    if judgements:
        await _send(bus, subjects.feedback(router), batches(judgements, bus.max_message_bytes, seal))


def batches(told: Sequence[Report] | Sequence[Outcome], limit: int, seal: Seal | None = None) -> list[bytes]:
    """JSON of ReportBatch in as few messages as stay within `limit` bytes; what is too large alone travels without its longest part."""
    data = _message(told, seal)
    if len(data) <= limit:
        return [data]
    if len(told) == 1:
        return [_message([_shortened(told[0])], seal)]
    middle = len(told) // 2
    return batches(told[:middle], limit, seal) + batches(told[middle:], limit, seal)


def _shortened(told: Report | Outcome) -> Report | Outcome:
    if isinstance(told, Report):
        return msgspec.structs.replace(told, result=NO_PAYLOAD)
    return msgspec.structs.replace(told, error=None)


def _message(told: Sequence[Report | Outcome], seal: Seal | None) -> bytes:
    data = msgspec.json.encode(told)
    mark = seal(data).encode() if seal is not None else b""
    return b'{"v":%d,"seal":"%b","reports":%b}' % (VERSION, mark, data)


async def _send(bus: Bus, subject: str, messages: Sequence[bytes]) -> None:
    for data in messages:
        try:
            await bus.signals.send(subject, data)
        except Unavailable:
            return
