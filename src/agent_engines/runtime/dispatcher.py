"""The dispatcher: validate, decide, accept durably and publish; the answer to "why did my task go there".

request -> Task -> Decision ─┬─> ledger (group commit) ─┬─> Acceptance
                             └─> bus (agent's queue)   ─┘
with an idempotency key: ledger first, the bus only when the task is new
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from msgspec.structs import force_setattr

from agent_engines.domain.agents import AGENT_ID
from agent_engines.domain.budgets import NOTHING, Spend, capped_attempts
from agent_engines.domain.capability import Capabilities
from agent_engines.domain.decisions import Decision, DecisionContext
from agent_engines.domain.errors import (
    AgentEnginesError,
    InvalidRequest,
    QueueFull,
    Unavailable,
)
from agent_engines.domain.hints import checked_hints
from agent_engines.domain.messages import SubmitResult, TaskMessage
from agent_engines.domain.retry_budget import RetryBudget
from agent_engines.domain.tasks import Task, TaskRequest
from agent_engines.domain.validation import DEFAULT_LIMITS, Limits, check_name, hash_body, named_task
from agent_engines.ports.connections import Connections
from agent_engines.ports.ledger import Entry, Known, Ledger, StoredTask

from .admission import Admission
from .answers import COMMITTED, JOURNAL, accepted, refusal
from .batching import Batcher
from .decider import Decider, decision_of
from .dispatches import Dispatches
from .drafts import DEFAULT_ATTEMPTS, Draft, Said, Submission, Taken, Turn, fresh_key, ledger_words
from .fleet import Fleet
from .group_commit import GroupCommit
from .hedging import Hedging
from .journal import TaskJournal
from .repeats import Repeats, repeated
from .task_text import TaskTexts
from .tenants import TenantBooks

CERTAIN = (QueueFull, InvalidRequest)
"""Refusals of the bus after which the task is not on it; every other error leaves that open."""
CROWD = 64
"""Acceptances that wait before a second commit is begun beside the one under way."""
TURN = 100
"""Requests of one submission that are drafted before others get a turn: a few milliseconds."""


Stored = asyncio.Future[list[Said]] | Unavailable
"""What the ledger will say to a turn's drafts; while it is known to be away, that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchOptions:
    """How the dispatcher works. `origin`: the name outcomes of this router's own submissions come back under.

    `capabilities`: marks dispatches, so that nobody else can report on them; `texts`: payload fields to learn from.
    """

    origin: str
    capabilities: Capabilities
    limits: Limits = DEFAULT_LIMITS
    lanes: int = 2
    max_batch: int = 500
    texts: TaskTexts = field(default_factory=TaskTexts)


class Dispatcher:
    """Accepts tasks and sends them to agents. `close` waits until everything taken has its answer."""

    def __init__(
        self,
        connections: Connections,
        ledger: Ledger,
        fleet: Fleet,
        *,
        decider: Decider,
        new_id: Callable[[], str],
        options: DispatchOptions,
    ) -> None:
        self._fleet = fleet
        self._ledger = ledger
        self._bus = connections.bus
        self._clock = connections.clock
        self._telemetry = connections.telemetry
        self._decider = decider
        self._new_id = new_id
        self._options = options
        self.journal: TaskJournal | None = None
        self.admission: Admission | None = None
        self.books: TenantBooks | None = None
        self.hedging: Hedging | None = None
        self.dispatches = Dispatches(options.capabilities)
        self.retry_budget = RetryBudget()
        self._log = connections.telemetry.log("intelligence")
        self._repeats = Repeats(ledger.tasks, self.dispatches, self._publish, clock=self._clock, log=self._log)
        self._accepting: Batcher[Entry, Known | None] = Batcher(
            GroupCommit(ledger.tasks, self._log), lanes=options.lanes, max_batch=options.max_batch, crowd=CROWD
        )
        self._logging: Batcher[Decision, None] = Batcher(self._record, max_batch=options.max_batch)

    async def submit(
        self,
        requests: Sequence[TaskRequest],
        *,
        origin: str | None = None,
        traceparent: str | None = None,
        fresh: bool = False,
    ) -> list[SubmitResult]:
        """One result for each request, in order; a request that is refused does not disturb the others.

        `fresh`: nobody has used their idempotency keys before.
        """
        home = self._options.origin if origin is None else checked_origin(origin)
        submission = Submission([None] * len(requests), [])
        turns: list[tuple[list[Draft], Stored]] = []
        for begin in range(0, len(requests), TURN):
            if begin:
                # Thousands of decisions in a row would keep heartbeats and other callers waiting.
                await asyncio.sleep(0)
            turn = self._turn(home, traceparent, fresh=fresh)
            drafts = self._drafts(requests[begin : begin + TURN], begin, turn, submission)
            if drafts:
                entries = [Entry(draft.task, draft.decision) for draft in drafts]
                turns.append((drafts, turn.away or self._accepting.put_all(entries)))
        drafts = [draft for drafts, _ in turns for draft in drafts]
        self.retry_budget.ordinary(self._clock.monotonic(), len(drafts))
        for draft, outcome in zip(drafts, await self._send(drafts, turns), strict=True):
            submission.results[draft.place] = outcome
        for place, answer in await self._repeats.answers(submission.untaken):
            submission.results[place] = answer
        return [result for result in submission.results if result is not None]

    async def recommend(self, context: DecisionContext) -> Decision:
        """Decide and record; nothing is dispatched. Raises NoEligibleAgent, InvalidRequest, Unavailable."""
        check_name("task_type", context.task_type, 128)
        check_name("request_id", context.request_id, 255)
        checked_hints(context.strategy, context.features, context.embedding)
        self._decider.check(context.strategy)
        self._refuse_without_ledger()
        decision = self.decide(context)
        await self._logging.put(decision)
        return decision

    def _refuse_without_ledger(self) -> None:
        """Raises Unavailable at once while the ledger is known to be away: in its queue the answer would take seconds."""
        refusal = self._ledger.refusal()
        if refusal is not None:
            raise refusal

    def decide(self, context: DecisionContext, *, avoid: str | None = None) -> Decision:
        """Choose an agent; `avoid` is taken only when nobody else can. Raises NoEligibleAgent, InvalidRequest."""
        return self._decider.decide(context, avoid=avoid)

    def context(self, task: Task, request_id: str, spent: Spend = NOTHING) -> DecisionContext:
        """What a strategy may know about a task. Raises InvalidRequest when it asks for a strategy nobody knows."""
        if task.hints is not None:
            self._decider.check(task.hints.strategy)
        price = None if self.books is None else self.books.price(task.terms.tenant)
        return self._options.texts.context(task, request_id, spent=spent, price=price)

    async def send_again(self, stored: StoredTask, *, avoid: str | None = None) -> Decision:
        """Publish the next dispatch of a claimed task. Raises NoEligibleAgent, QueueFull, Unavailable."""
        task = stored.task
        # The first dispatch of a planned task makes the decision its request is known by.
        request_id = task.request_id if stored.generation == 1 else f"{task.request_id}:{stored.generation}"
        decision = self.decide(self.context(task, request_id, await self._spent(stored)), avoid=avoid)
        attempts = task.max_attempts or self._fleet.max_attempts(decision.selected_agent, task.task_type)
        message = self.dispatches.message(
            task,
            decision,
            capped_attempts(attempts or stored.max_attempts, task.terms.budget),
            self._clock.now(),
            generation=stored.generation,
            attempt=stored.attempt,
        )
        await self._bus.tasks.publish_task(message)
        self._sent(task, decision.selected_agent)
        return decision

    def check(self, strategy: str | None) -> None:
        """Raise InvalidRequest for a strategy nobody knows."""
        self._decider.check(strategy)

    def keep_books(self, books: TenantBooks) -> None:
        """From now on count what tenants spend, and refuse what they cannot pay."""
        self.books = self._decider.books = books
        self.dispatches.weight_of = books.weight

    @property
    def accepting(self) -> Batcher[Entry, Known | None]:
        """What waits for the ledger's commit."""
        return self._accepting

    @property
    def options(self) -> DispatchOptions:
        return self._options

    async def close(self) -> None:
        """Refuse new submissions and wait for those under way."""
        await self._accepting.close()
        await self._logging.close()

    def _turn(self, origin: str, traceparent: str | None, *, fresh: bool) -> Turn:
        clock = self._clock
        return Turn(origin, traceparent, fresh, clock.now(), clock.monotonic(), self._ledger.refusal())

    async def _spent(self, stored: StoredTask) -> Spend:
        """What earlier attempts used up, where that matters. Raises Unavailable."""
        bounded = stored.task.terms.budget is not None and stored.attempt > 1
        return await self._ledger.tenants.task_spent(stored.task.task_id) if bounded else NOTHING

    def _sent(self, task: Task, agent: str, *, charged: bool = True) -> None:
        self._fleet.sent(agent, task.task_id)
        if self.books is not None and charged:
            self.books.sent(task.terms.tenant, task.task_id, self._fleet.price(agent))

    def _drafts(self, requests: Sequence[TaskRequest], begin: int, turn: Turn, submission: Submission) -> list[Draft]:
        """Validate, choose, explain, write the messages: all of a turn pass one stage before the next one begins.

        A task that goes through all stages by itself finds the code of each out of the processor's caches (ADR 0041).
        """
        tasks = self._tasks(requests, begin, turn, submission)
        taken = self._taken(tasks, turn, submission)
        decisions = [decision_of(one.choice) for one in taken]
        messages = [self._message(one.task, decision, turn) for one, decision in zip(taken, decisions, strict=True)]
        return [
            self._draft(one, decision, message, turn)
            for one, decision, message in zip(taken, decisions, messages, strict=True)
        ]

    def _tasks(
        self, requests: Sequence[TaskRequest], begin: int, turn: Turn, submission: Submission
    ) -> list[tuple[int, Task]]:
        """Those that can be tasks, each with its place in the submission."""
        tasks: list[tuple[int, Task]] = []
        named = partial(
            named_task,
            now=turn.now,
            origin=turn.origin,
            new_id=self._new_id,
            traceparent=turn.traceparent,
            limits=self._options.limits,
        )
        for place, request in enumerate(requests, begin):
            try:
                tasks.append((place, named(request)))
            except AgentEnginesError as error:
                submission.refuse(place, error)
        for _, task in tasks:
            hash_body(task)
        return tasks

    def _taken(self, tasks: Sequence[tuple[int, Task]], turn: Turn, submission: Submission) -> list[Taken]:
        """Those that may come in and that somebody can do."""
        taken: list[Taken] = []
        for place, task in tasks:
            try:
                self._admit(task, turn, len(taken))
                choice = self._decider.choose(self.context(task, task.request_id))
            except AgentEnginesError as error:
                submission.refuse(place, error, task)
                continue
            # Counted before it is sent: the next choice of the same submission must see it.
            charged = self.books is not None and not self.books.holds(task.task_id)
            self._sent(task, choice.agent, charged=charged)
            taken.append(Taken(place, task, choice, charged))
        return taken

    def _admit(self, task: Task, turn: Turn, beside: int) -> None:
        """The ledger has room for it `beside` so many others, or the journal stands in. Raises QueueFull, Unavailable."""
        if self.admission is not None:
            tenant = task.terms.tenant
            self.admission.check(task.priority, tenant, self.dispatches.weight_of(tenant))
        if turn.away is None:
            self._accepting.check(beside)
        elif self.journal is None or not self.journal.open:
            raise turn.away

    def _message(self, task: Task, decision: Decision, turn: Turn) -> TaskMessage:
        """The task's first dispatch."""
        if task.max_attempts is None:
            attempts = self._fleet.max_attempts(decision.selected_agent, task.task_type) or DEFAULT_ATTEMPTS
            # Nobody else has seen the task yet, and only the chosen agent could tell the number.
            force_setattr(task, "max_attempts", attempts)
        attempts = capped_attempts(task.max_attempts or DEFAULT_ATTEMPTS, task.terms.budget)
        return self.dispatches.message(task, decision, attempts, turn.now)

    def _draft(self, taken: Taken, decision: Decision, message: TaskMessage, turn: Turn) -> Draft:
        task = taken.task
        key = task.idempotency_key
        # While the ledger is away its word comes later than the repetition of a submission might.
        after_ledger = key is not None and not (turn.fresh and turn.away is None and fresh_key(key, turn.now))
        watched = None if self.hedging is None else self.hedging.watch(task, decision, message.max_attempts)
        return Draft(taken.place, task, decision, message, turn.began, after_ledger, watched, taken.charged)

    async def _send(
        self, drafts: Sequence[Draft], turns: Sequence[tuple[Sequence[Draft], Stored]]
    ) -> list[SubmitResult]:
        """Publish while the ledger commits; both must succeed. Tasks with a key wait for the ledger's word first."""
        plain = [draft for draft in drafts if not draft.after_ledger]
        published = iter(await self._publish([draft.message for draft in plain]))
        errors = [None if draft.after_ledger else next(published) for draft in drafts]
        known: list[Known | AgentEnginesError | None] = []
        for drafted, stored in turns:
            answers = [stored] * len(drafted) if isinstance(stored, Unavailable) else await stored
            known += ledger_words(drafted, answers)
        journaled = set[int]() if self.journal is None else await self.journal.stand_in(drafts, known, errors)
        if len(plain) < len(drafts):
            keyed = [at for at, draft in enumerate(drafts) if draft.after_ledger and at not in journaled]
            new = [at for at in keyed if known[at] is None]
            # Whoever wrote the others may have died before they were sent; the bus drops a copy of what it has.
            again = {at: copy for at in keyed if (copy := self._repeats.copy(drafts[at].task, known[at])) is not None}
            sent = await self._publish([*(drafts[at].message for at in new), *again.values()])
            for at, error in zip([*new, *again], sent, strict=True):
                errors[at] = error
        outcomes = list(zip(drafts, known, errors, strict=True))
        gone = [draft.task.task_id for draft, said, error in outcomes if isinstance(error, CERTAIN) and said is None]
        if gone:
            await self._withdraw(gone)
        return [
            self._result(draft, said, error, JOURNAL if at in journaled else COMMITTED)
            for at, (draft, said, error) in enumerate(outcomes)
        ]

    async def _publish(self, messages: Sequence[TaskMessage]) -> list[AgentEnginesError | None]:
        """One entry for each: None when it is durable."""
        if not messages:
            return []
        try:
            found = await self._bus.tasks.publish_tasks(messages)
        except AgentEnginesError as error:
            return [error] * len(messages)
        return [self._known_error(error) for error in found]

    def _known_error(self, error: Exception | None) -> AgentEnginesError | None:
        if error is None or isinstance(error, AgentEnginesError):
            return error
        self._log.error("A task could not be published", error=repr(error))
        return Unavailable("the bus could not take the task")

    def _result(
        self,
        draft: Draft,
        known: Known | AgentEnginesError | None,
        error: AgentEnginesError | None,
        durability: str = COMMITTED,
    ) -> SubmitResult:
        trouble = error or known
        # A journaled task with a key goes to its agent when the ledger has said that the key is new.
        if trouble is not None or (durability == JOURNAL and draft.after_ledger):
            self._fleet.unsent(draft.decision.selected_agent, draft.task.task_id)
            if self.books is not None and draft.charged:
                self.books.settled(draft.task.task_id)
        if known is not None and isinstance(known, Known):
            return repeated(draft.task, known, error, durability)
        if isinstance(trouble, AgentEnginesError):
            self._telemetry.decided(
                draft.decision.strategy, "queue_full" if isinstance(trouble, QueueFull) else "unavailable"
            )
            return SubmitResult(refused=refusal(trouble))
        task, decision = draft.task, draft.decision
        if draft.watched is not None:
            draft.watched.armed = durability == COMMITTED
        self._log.info(
            "Task routed successfully",
            task_id=task.task_id,
            task_type=task.task_type,
            selected_agent=decision.selected_agent,
            confidence=decision.confidence,
            duration_ms=(self._clock.monotonic() - draft.began) * 1000.0,
        )
        return SubmitResult(accepted=accepted(task.task_id, decision, durability=durability))

    async def _withdraw(self, task_ids: Sequence[str]) -> None:
        try:
            await self._ledger.tasks.withdraw(task_ids)
        except Unavailable as error:
            # The callers are refused all the same; the reconciler will find the rows and run the tasks once more often.
            self._log.warning("Refused tasks could not be withdrawn", tasks=len(task_ids), error=str(error))

    async def _record(self, decisions: Sequence[Decision]) -> list[None]:
        await self._ledger.decisions.log(decisions)
        return [None] * len(decisions)


def checked_origin(origin: str) -> str:
    """Outcomes come back on a subject with this name. Raises InvalidRequest."""
    if AGENT_ID.fullmatch(origin):
        return origin
    raise InvalidRequest("origin must have 1 to 64 letters, digits, '-' or '_'", field="origin")
