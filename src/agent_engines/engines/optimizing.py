"""The optimizing engine: what would other policies have earned on the same tasks? It reads, estimates and tells.

It promotes nothing: an operator does that at a router (runtime/promotions.py), which asks here first. What was promoted
and does measurably worse is rolled back from here (policy_guard.py). Decisions come from the ledger, newest included, in pages; only a compact row of each is
kept, and when nothing new has ended the estimates stay as they are. A decision that has not ended is read again until it
has; one whose work was judged since is read again too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from agent_engines.domain import subjects
from agent_engines.domain.errors import ConfigurationError, NotFound, Unavailable
from agent_engines.domain.messages import ReportKind
from agent_engines.ports.bus import Subscription
from agent_engines.ports.connections import Connections
from agent_engines.ports.ledger import Ledger, LoggedDecision
from agent_engines.ports.telemetry import Log
from agent_engines.runtime.agent_config import AgentConfig
from agent_engines.runtime.background import Background
from agent_engines.runtime.engine import Engine
from agent_engines.runtime.policy_board import PolicyBoard
from agent_engines.runtime.shipped_strategies import PolicyMaker

from .fitting import fitting
from .outcomes import MOST_ROWS, OutcomeLog, judge_policies
from .own_target import PolicyFailed
from .policy_guard import PolicyGuard
from .replay import ReplayAnswer, ReplayQuestion, replay

HISTORY_SECONDS = 24 * 3600.0
FIRST_SPANS = (600.0, 3600.0, 6 * 3600.0, HISTORY_SECONDS)
"""The first round tries to go back this far, further each time, as long as all of it can be read in one round."""
ROUND_SECONDS = 30.0
FRESH_SECONDS = 2.0
PATIENCE_SECONDS = 1.5
"""A question waits this long for a round under way, then gets the last answer."""
PAGE = 1_000
MOST_PAGES = 20
"""Read in one round; a busier system is sampled: the rest of the backlog is skipped up to the last minute."""
CATCH_UP_SECONDS = 60.0
PENDING_SECONDS = 3600.0
"""How long the end of a decision is waited for: longer than a task that hangs and is tried again; later ends are counted as
`unended`."""
MOST_JUDGED = 20_000
OVERLAP_SECONDS = 0.001
LATE_SECONDS = 5.0
"""Decisions are committed in groups, so one made earlier may appear later than one made now."""
MOST_REPLAYED = 20_000
TUNING_NOTE = (
    "Policies change when an operator promotes one or rolls it back, and when the guard rolls back a promoted one that does "
    "measurably worse than what was logged before it; nothing else is tuned."
)


class Told(msgspec.Struct, frozen=True):
    """What counts here of a report."""

    kind: ReportKind
    task_id: str


class ToldBatch(msgspec.Struct, frozen=True):
    reports: list[Told]


class OptimizingEngine(Engine):
    """Answers three questions over the bus, all as JSON objects; times are epoch seconds. `policies`: of one's own, by name.

    `ask.optimizing.policies`:
    {"active": version of the policy that was promoted or rolled back to, else that of the newest decision | null,
     "promoted": its strategy | null (nothing is), "guard": {"rows", "mean", "expected", "bound"} | null (guardrail.py), "routers": [{"router", "turn", "policy", "version", "problem"}] once
     anything was promoted, "generated_at": t, "window_seconds": 86400.0,
     "rows": decisions with an outcome, "refused": rows without a usable propensity,
     "deterministic": rows in which no chance took part: only "logged" is estimated from them,
     "waiting": decisions that have not ended yet, "unended": decisions left out because they did not end within an hour,
     "policies": [{"policy": "logged" | "uniform" | "always:<agent>", "task_type": null (all) | str, "method": "snips",
                   "value": 0..1 | null, "standard_error", "interval": [low, high] | null, "effective_sample_size",
                   "rows", "eligible_share", "mean_cost": | null, "warnings": [sentence]}]}
    and "left_out": how many rows of very many did not fit into one message of the bus.
    `value` is the mean reward: quality when the handler told it, else 1 for success and 0 for failure. "always:<agent>"
    does what was logged where that agent was no candidate; `eligible_share` says how often it was one.

    `ask.optimizing.replay` {"policy", "since"}: see engines/replay.py.

    `ask.optimizing.tuning`: {"changes": [PolicyChange, the newest first], "note": sentence, "generated_at": t}
    """

    def __init__(
        self, config: AgentConfig | str = "optimizing", *, policies: Mapping[str, PolicyMaker] | None = None
    ) -> None:
        super().__init__(config, agent_type="optimizing")
        self._own = dict(policies or {})
        self._board: PolicyBoard | None = None
        self._guard: PolicyGuard | None = None
        self.outcomes = OutcomeLog()
        self._outside: Connections | None = None
        self._background: Background | None = None
        self._subscriptions: list[Subscription] = []
        self._round: asyncio.Task[None] | None = None
        self._batches = msgspec.json.Decoder(ToldBatch)
        self._since: float | None = None
        self._judged: dict[str, None] = {}
        """Tasks somebody judged since the last round."""
        self._active: tuple[float, str] | None = None
        self._policies: list[dict[str, Any]] = []
        self._estimated_at = 0.0
        self._finished = float("-inf")

    def judges(self, policies: Mapping[str, PolicyMaker]) -> None:
        """Replay these of one's own too, by name."""
        self._own.update(policies)

    async def on_start(self, connections: Connections) -> None:
        """Raises ConfigurationError without a ledger."""
        if connections.ledger is None:
            raise ConfigurationError(["the optimizing engine reads decisions and needs POSTGRES_URL"])
        self._outside = connections
        self._background = Background(self._log)
        listen = connections.bus.signals.listen
        self._subscriptions = [
            await listen(subjects.FEEDBACK, self._judged_since),
            await listen(subjects.ask("optimizing", "policies"), self._answer_policies, queue="optimizing"),
            await listen(subjects.ask("optimizing", "tuning"), self._answer_tuning, queue="optimizing"),
            await listen(subjects.ask("optimizing", "replay"), self._answer_replay, queue="optimizing"),
        ]
        self._board = PolicyBoard(connections.bus.settings, connections.clock, self._log)
        self._board.start(self._background, lambda: None)
        self._guard = PolicyGuard(self._board, connections.clock, self._log)
        self._background.keep("optimizing-rounds", self._rounds, pause=ROUND_SECONDS)

    async def on_stop(self) -> None:
        for subscription in self._subscriptions:
            await subscription.close()
        self._subscriptions = []
        if self._background is not None:
            await self._background.stop()

    async def refresh(self) -> None:
        """One round: read what is new, estimate again if anything was. Raises Unavailable (ledger away)."""
        now = self._connected.clock.now()
        fresh = await self._read(now)
        expired = self.outcomes.expire(now - HISTORY_SECONDS)
        if fresh or expired:
            # Away from the event loop: a full log times hundreds of agents is seconds of arithmetic.
            self._policies = await asyncio.to_thread(judge_policies, self.outcomes.rows)
            self._estimated_at = now
        if self._guard is not None:
            await self._guard.look(self.outcomes)
        self._finished = self._connected.clock.monotonic()

    def policies(self) -> dict[str, Any]:
        """The document of `ask.optimizing.policies`."""
        board = self._followed
        changes = board.word.changes
        seen = None if self._active is None else self._active[1]
        return {
            "active": (changes[-1].version if changes else "") or seen,
            "promoted": board.word.active,
            "guard": None if self._guard is None else self._guard.comparison,
            "routers": board.standings,
            "generated_at": self._estimated_at,
            "window_seconds": HISTORY_SECONDS,
            "rows": len(self.outcomes),
            "refused": self.outcomes.refused,
            "deterministic": self.outcomes.deterministic,
            "waiting": len(self.outcomes.waiting),
            "unended": self.outcomes.unended,
            "policies": self._policies,
        }

    async def _read(self, now: float) -> int:
        """Take what has ended or was judged since the last round; how many outcomes that was."""
        if self._since is not None:
            # Who was waited for before this round: what a page has just said need not be asked again.
            waiting = self.outcomes.waiting
            fresh, self._since, _ = await self._read_from(self._since, now, self.outcomes)
            fresh += await self._read_again(waiting)
            self.outcomes.give_up(now - PENDING_SECONDS)
            return fresh
        fresh = 0
        for span in FIRST_SPANS:
            outcomes = OutcomeLog()
            count, since, complete = await self._read_from(now - span, now, outcomes)
            if complete or self._since is None:
                fresh, self._since, self.outcomes = count, since, outcomes
            if not complete:
                break
        self.outcomes.give_up(now - PENDING_SECONDS)
        return fresh

    async def _read_from(self, since: float, now: float, outcomes: OutcomeLog) -> tuple[int, float, bool]:
        """Pages from `since` on, oldest first: (outcomes taken, where to go on next time, whether that was all)."""
        fresh, size = 0, PAGE
        for _ in range(MOST_PAGES):
            page = await self._ledger.decisions.outlines(since, size)
            fresh += self._take(page, outcomes)
            last = page[-1].decision.created_at if page else since
            if len(page) < size:
                return fresh, min(last, now - LATE_SECONDS) - OVERLAP_SECONDS, True
            # More decisions than a page may share one moment; a page that moved nothing on is read again, longer.
            size = PAGE if last > since + 2 * OVERLAP_SECONDS else min(size * 2, MOST_ROWS)
            since = last - OVERLAP_SECONDS
        return fresh, max(since, now - CATCH_UP_SECONDS), False

    def _take(self, page: list[LoggedDecision], outcomes: OutcomeLog) -> int:
        """How many outcomes were new."""
        added = 0
        for logged in page:
            made = logged.decision.created_at
            if self._active is None or made > self._active[0]:
                self._active = (made, logged.decision.policy_version)
            added += outcomes.add(logged)
        return added

    async def _read_again(self, waiting: Sequence[str]) -> int:
        """Those whose end is waited for, and those that were judged meanwhile: how many rows that changed."""
        judged, self._judged = self._judged, {}
        wanted = [*waiting, *(self.outcomes.of_tasks(judged) if judged else ())]
        changed = 0
        try:
            for place in range(0, len(wanted), PAGE):
                found = await self._ledger.decisions.outlines_of(wanted[place : place + PAGE])
                changed += sum(self.outcomes.again(logged) for logged in found)
        except Unavailable:
            self._judged = judged | self._judged
            raise
        return changed

    async def _judged_since(self, subject: str, data: bytes) -> None:
        """Remember whose work was judged; all other outcomes are found by reading."""
        try:
            batch = self._batches.decode(data)
        except msgspec.MsgspecError as error:
            self._log.warning("Reports could not be read", subject=subject, error=str(error))
            return
        for report in batch.reports:
            if report.kind is ReportKind.FEEDBACK and len(self._judged) < MOST_JUDGED:
                self._judged[report.task_id] = None

    @property
    def _connected(self) -> Connections:
        if self._outside is None:
            raise RuntimeError("the optimizing engine has not been started")
        return self._outside

    @property
    def _followed(self) -> PolicyBoard:
        if self._board is None:
            raise RuntimeError("the optimizing engine has not been started")
        return self._board

    @property
    def _ledger(self) -> Ledger:
        ledger = self._connected.ledger
        assert ledger is not None
        return ledger

    @property
    def _log(self) -> Log:
        return self._connected.telemetry.log("optimizing")

    async def _rounds(self) -> None:
        while True:
            await self._shared_round()
            await self._connected.clock.sleep(ROUND_SECONDS)

    async def _shared_round(self) -> None:
        """Whoever comes while a round is under way waits for that one; a caller that leaves does not end it."""
        if self._round is None or self._round.done():
            assert self._background is not None
            self._round = self._background.spawn("optimizing-round", self._guarded_round())
        await asyncio.shield(self._round)

    async def _guarded_round(self) -> None:
        try:
            await self.refresh()
        except Unavailable as error:
            self._log.warning("Decisions could not be read; estimates stay as they are", error=error.detail)

    async def _answer_policies(self, subject: str, data: bytes) -> bytes:
        if self._connected.clock.monotonic() - self._finished >= FRESH_SECONDS:
            try:
                await asyncio.wait_for(self._shared_round(), PATIENCE_SECONDS)
            except TimeoutError:
                self._log.debug("A round takes longer than a question may wait")
        return fitting(self.policies(), "policies", lambda row: row["rows"], self._connected.bus.max_message_bytes)

    async def _answer_replay(self, subject: str, data: bytes) -> bytes:
        question = msgspec.json.decode(data, type=ReplayQuestion)
        now = self._connected.clock.now()
        logged = await self._ledger.decisions.history(_since(question, now), MOST_REPLAYED)
        try:
            document = await asyncio.to_thread(replay, logged, question.policy, own=self._own)
        except NotFound as error:
            return msgspec.json.encode(ReplayAnswer(unknown=str(error)))
        except PolicyFailed as error:
            return msgspec.json.encode(ReplayAnswer(failed=str(error)))
        return msgspec.json.encode(ReplayAnswer(document=document))

    async def _answer_tuning(self, subject: str, data: bytes) -> bytes:
        changes = self._followed.word.changes[::-1]
        return msgspec.json.encode(
            {"changes": changes, "note": TUNING_NOTE, "generated_at": self._connected.clock.now()}
        )


def _since(question: ReplayQuestion, now: float) -> float:
    return now - HISTORY_SECONDS if question.since is None else question.since
