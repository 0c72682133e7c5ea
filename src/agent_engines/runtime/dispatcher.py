"""The dispatcher: validate, decide, accept durably and publish; the answer to "why did my task go there".

request -> Task -> Decision ─┬─> ledger (group commit) ─┬─> Acceptance
                             └─> bus (agent's queue)   ─┘
with an idempotency key: ledger first, the bus only when the task is new
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from msgspec.structs import force_setattr

from agent_engines.domain.agents import AGENT_ID
from agent_engines.domain.budgets import NOTHING, Spend, capped_attempts
from agent_engines.domain.capability import Capabilities
from agent_engines.domain.decisions import Decision, DecisionContext
from agent_engines.domain.errors import (
    AgentEnginesError,
    BudgetSpent,
    BudgetTooSmall,
    InvalidRequest,
    NoEligibleAgent,
    QueueFull,
    Unavailable,
)
from agent_engines.domain.hints import checked_hints
from agent_engines.domain.messages import SubmitResult, TaskMessage
from agent_engines.domain.retry_budget import RetryBudget
from agent_engines.domain.tasks import Task, TaskRequest
from agent_engines.domain.validation import DEFAULT_LIMITS, Limits, check_name, to_task
from agent_engines.ports.connections import Connections
from agent_engines.ports.ledger import Entry, Known, Ledger, StoredTask

from .admission import Admission
from .answers import COMMITTED, JOURNAL, accepted, refusal
from .batching import Batcher
from .decider import Decider
from .dispatches import Dispatches
from .drafts import DEFAULT_ATTEMPTS, Draft, Said, Turn, fresh_key, ledger_words
from .fleet import Fleet
from .hedging import Hedging
from .journal import TaskJournal
from .repeats import Repeats, repeated
from .task_text import TaskTexts
from .tenants import TenantBooks

FOR_NOW = (NoEligibleAgent, BudgetSpent, BudgetTooSmall)
"""Refusals that say nothing about a task accepted before: a repeated submission gets its first answer."""
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
            self._accept, lanes=options.lanes, max_batch=options.max_batch, crowd=CROWD
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
        results: list[SubmitResult | None] = [None] * len(requests)
        turns: list[tuple[list[Draft], Stored]] = []
        untaken: list[tuple[int, Task]] = []
        for begin in range(0, len(requests), TURN):
            if begin:
                # Thousands of decisions in a row would keep heartbeats and other callers waiting.
                await asyncio.sleep(0)
            turn = self._turn(home, traceparent, fresh=fresh)
            drafts: list[Draft] = []
            for place, request in enumerate(requests[begin : begin + TURN], begin):
                try:
                    drafts.append(self._draft(place, request, turn, len(drafts)))
                except AgentEnginesError as error:
                    results[place] = SubmitResult(refused=refusal(error))
                    if isinstance(error, FOR_NOW) and request.idempotency_key is not None:
                        untaken.append((place, self._task(request, turn)))
            if drafts:
                entries = [Entry(draft.task, draft.decision) for draft in drafts]
                turns.append((drafts, turn.away or self._accepting.put_all(entries)))
        drafts = [draft for drafts, _ in turns for draft in drafts]
        self.retry_budget.ordinary(self._clock.monotonic(), len(drafts))
        for draft, outcome in zip(drafts, await self._send(drafts, turns), strict=True):
            results[draft.place] = outcome
        for place, answer in await self._repeats.answers(untaken):
            results[place] = answer
        return [result for result in results if result is not None]

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

    def _task(self, request: TaskRequest, turn: Turn) -> Task:
        """Raises InvalidRequest, TooLarge."""
        return to_task(
            request,
            now=turn.now,
            origin=turn.origin,
            new_id=self._new_id,
            traceparent=turn.traceparent,
            limits=self._options.limits,
        )

    async def _spent(self, stored: StoredTask) -> Spend:
        """What earlier attempts used up, where that matters. Raises Unavailable."""
        bounded = stored.task.terms.budget is not None and stored.attempt > 1
        return await self._ledger.tenants.task_spent(stored.task.task_id) if bounded else NOTHING

    def _sent(self, task: Task, agent: str, *, charged: bool = True) -> None:
        self._fleet.sent(agent, task.task_id)
        if self.books is not None and charged:
            self.books.sent(task.terms.tenant, task.task_id, self._fleet.price(agent))

    def _draft(self, place: int, request: TaskRequest, turn: Turn, beside: int) -> Draft:
        """Validate and decide; the ledger has room for it `beside` so many others. Raises every AgentEnginesError of those."""
        task = self._task(request, turn)
        terms = task.terms
        if self.admission is not None:
            self.admission.check(task.priority, terms.tenant, self.dispatches.weight_of(terms.tenant))
        away = turn.away
        if away is not None and (self.journal is None or not self.journal.open):
            raise away
        decision = self.decide(self.context(task, task.request_id))
        agent = decision.selected_agent
        if task.max_attempts is None:
            attempts = self._fleet.max_attempts(agent, task.task_type) or DEFAULT_ATTEMPTS
            # Nobody else has seen the task yet, and only the chosen agent could tell the number.
            force_setattr(task, "max_attempts", attempts)
        attempts = capped_attempts(task.max_attempts or DEFAULT_ATTEMPTS, terms.budget)
        message = self.dispatches.message(task, decision, attempts, turn.now)
        if away is None:
            self._accepting.check(beside)
        # Counted before it is sent: the next decision of the same submission must see it.
        charged = self.books is not None and not self.books.holds(task.task_id)
        self._sent(task, agent, charged=charged)
        key = task.idempotency_key
        # While the ledger is away its word comes later than the repetition of a submission might.
        after_ledger = key is not None and not (turn.fresh and away is None and fresh_key(key, turn.now))
        watched = None if self.hedging is None else self.hedging.watch(task, decision, attempts)
        return Draft(place, task, decision, message, turn.began, after_ledger, watched, charged)

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

    async def _accept(self, entries: Sequence[Entry]) -> list[Known | BaseException | None]:
        """Group commit. Of two entries with one task id the first is written, the second learns of it."""
        first: dict[str, Entry] = {}
        for entry in entries:
            first.setdefault(entry.task.task_id, entry)
        again = [entry for entry in entries if first[entry.task.task_id] is not entry]
        try:
            known = {found.task_id: found for found in await self._ledger.tasks.accept(list(first.values()))}
            # Asked by itself, so that the ledger knows: the first one must not be withdrawn any more.
            told = {found.task_id: found for found in await self._ledger.tasks.accept(again)} if again else {}
        except Unavailable:
            raise
        except Exception as error:
            if len(entries) == 1:
                raise
            # One entry the ledger cannot take must not refuse the hundreds that travel with it.
            self._log.error("A batch was refused by the ledger and is tried one by one", error=repr(error))
            return [await self._accept_alone(entry) for entry in entries]
        return [(known if first[entry.task.task_id] is entry else told).get(entry.task.task_id) for entry in entries]

    async def _accept_alone(self, entry: Entry) -> Known | BaseException | None:
        try:
            found = await self._ledger.tasks.accept([entry])
        except AgentEnginesError as error:
            return error
        except Exception as error:
            self._log.error("The ledger refused a task", task_id=entry.task.task_id, error=repr(error))
            return InvalidRequest(f"the ledger cannot store this task: {error}")
        return found[0] if found else None

    async def _record(self, decisions: Sequence[Decision]) -> list[None]:
        await self._ledger.decisions.log(decisions)
        return [None] * len(decisions)


def checked_origin(origin: str) -> str:
    """Outcomes come back on a subject with this name. Raises InvalidRequest."""
    if AGENT_ID.fullmatch(origin):
        return origin
    raise InvalidRequest("origin must have 1 to 64 letters, digits, '-' or '_'", field="origin")
