"""A submission under way: what was decided about it, and what the ledger will say."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from agent_engines.domain.decisions import Decision
from agent_engines.domain.errors import AgentEnginesError, Unavailable
from agent_engines.domain.messages import TaskMessage
from agent_engines.domain.task_names import moment_of
from agent_engines.domain.tasks import Task
from agent_engines.ports.ledger import Known

from .hedging import Watched

DEFAULT_ATTEMPTS = 3
"""Where neither the task nor its agent says how often it may be tried."""
SAME_WRITE_SECONDS = 1e-4
"""The ledger keeps microseconds: a decision with our request id and our time is our own, written by a repeated call."""


FRESH_SECONDS = 50.0
"""A key may be called fresh for so long around its moment. Whoever used it before did so at most twice as long ago, which
is less than a bus remembers message ids (wire.DUPLICATE_WINDOW_SECONDS): of the two dispatches it keeps the first."""


def fresh_key(key: str, now: float) -> bool:
    """Whether a key that is called fresh may be believed; `now`: epoch seconds."""
    moment = moment_of(key)
    return moment is not None and abs(now - moment) < FRESH_SECONDS


class Draft(NamedTuple):
    """A submission under way. `place`: its position among the requests; `stored`: what the ledger will say.

    `after_ledger`: its key may be known already, so it is sent when the ledger has said that it is new.
    """

    place: int
    task: Task
    decision: Decision
    message: TaskMessage
    stored: asyncio.Future[Known | None]
    began: float
    after_ledger: bool
    watched: Watched | None = None
    """It may be hedged when it takes long."""
    charged: bool = False
    """Its price was put down as under way for it; not for a repeat of what is under way already."""


async def ledger_word(draft: Draft) -> Known | AgentEnginesError | None:
    """What the ledger said: None for a new task, also when it was this very write that came through before."""
    try:
        known = await draft.stored
    except AgentEnginesError as error:
        return error
    if known is None or known.decision is None:
        return known
    same = known.decision.request_id == draft.decision.request_id
    return None if same and abs(known.decision.created_at - draft.decision.created_at) < SAME_WRITE_SECONDS else known


def failed(error: Unavailable) -> asyncio.Future[Known | None]:
    """The ledger's answer while it is known to be away."""
    future: asyncio.Future[Known | None] = asyncio.get_running_loop().create_future()
    future.set_exception(error)
    # A submission that is cancelled must not leave an "exception was never retrieved" line.
    future.exception()
    return future
