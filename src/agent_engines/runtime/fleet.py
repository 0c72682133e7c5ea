"""The fleet: the current picture of the agents, from heartbeats, operators' decisions and recorded outcomes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from random import Random
from typing import Any

import msgspec

from agent_engines.domain import subjects
from agent_engines.domain.agents import AgentMode, AgentProfile
from agent_engines.domain.breaker import BreakerRule, BreakerState
from agent_engines.domain.budgets import NOTHING, Spend
from agent_engines.domain.decisions import Rejection
from agent_engines.domain.eligibility import inability, screen
from agent_engines.domain.errors import InvalidRequest, NotFound, Unavailable
from agent_engines.domain.estimates import Track
from agent_engines.domain.messages import Heartbeat, ReportKind
from agent_engines.domain.tasks import TaskStatus
from agent_engines.ports.bus import Bus, Subscription
from agent_engines.ports.clock import Clock
from agent_engines.ports.ledger import AgentDirectory, TaskKind
from agent_engines.ports.service import AgentView
from agent_engines.ports.telemetry import Telemetry

from .agent_modes import AgentModes
from .background import Background
from .field import Field
from .fleet_member import FAILED, Member
from .outcomes import Outcome
from .shared_breakers import SharedBreakers

SWEEP_SECONDS = 0.5
SEEN_SECONDS = 10.0
BACKLOG_SECONDS = 2.0
FORGET_SECONDS = 3600.0
"""A lost agent stays visible this long."""
ROSTERS = 1024
"""Requirement sets remembered; callers choose them, so they are bounded."""

_decode_beat = msgspec.json.Decoder(Heartbeat).decode
_encode_sorted = msgspec.json.Encoder(order="deterministic").encode


class Roster(msgspec.Struct, frozen=True):
    """Who may do one kind of task, valid until the fleet changes."""

    members: tuple[Member, ...]
    rejected: tuple[Rejection, ...]
    known: int
    shaky: tuple[Member, ...]
    """Those whose breaker is not closed."""
    field: Field
    """The members as strategies read them."""
    able: tuple[str, ...] = ()
    """Names of all that could do it, whatever their state: what affinity keys are spread over."""


class Fleet:
    """Start it, ask `roster`; tell it `learned` outcomes. Agents become choosable once the ledger knows them."""

    def __init__(
        self,
        bus: Bus,
        directory: AgentDirectory,
        *,
        clock: Clock,
        telemetry: Telemetry,
        rule: BreakerRule,
        rng: Random,
        router: str = "",
    ) -> None:
        self._bus = bus
        self._directory = directory
        self._clock = clock
        self._telemetry = telemetry
        self._log = telemetry.log("intelligence")
        self.router = router
        self._breakers = SharedBreakers(bus.settings, clock, self._log, rule=rule, rng=rng, by=router)
        self._background = Background(self._log)
        self._members: dict[str, Member] = {}
        self._modes = AgentModes(bus, directory, clock, self._log, self._mode_changed)
        self._usual: dict[str, Track] = {}
        self._rosters: dict[tuple[str, bytes], Roster] = {}
        self._unregistered: dict[str, AgentProfile] = {}
        self._to_register = asyncio.Event()
        self._changed = asyncio.Event()
        self._heard: set[str] = set()
        self._listening: Subscription | None = None
        self._hello_at = 0.0
        self.on_load: Callable[[str, int, float], None] = _nobody_listens
        """Hears how many tasks an agent has whenever that changes: (agent, tasks, epoch seconds)."""

    async def start(self) -> None:
        """Listen and ask everybody to introduce themselves."""
        self._listening = await self._bus.signals.listen(subjects.HEARTBEATS, self._on_heartbeat)
        self._background.keep("fleet-modes", self._modes.follow)
        self._breakers.start(self._background, self._breaker_told)
        self._background.keep("fleet-register", self._register)
        self._background.keep("fleet-sweep", self._sweep)
        self._background.keep("fleet-seen", self._tell_seen)
        self._background.keep("fleet-backlog", self._look_at_backlogs)
        await self._hello()

    async def stop(self) -> None:
        if self._listening is not None:
            await self._listening.close()
            self._listening = None
        await self._background.stop()

    def roster(self, task_type: str, requirements: Mapping[str, Any]) -> Roster:
        """Who may do this now, and why the others may not. Raises InvalidRequest (requirements)."""
        key = (task_type, _encode_sorted(requirements) if requirements else b"")
        roster = self._rosters.get(key)
        if roster is None:
            if len(self._rosters) >= ROSTERS:
                self._rosters.clear()
            roster = self._rosters[key] = self._compose(task_type, requirements)
        return roster

    def takes(self, kind: TaskKind, *, among: Collection[str] | None = None) -> bool:
        """Whether somebody may do this now; `among`: one of these."""
        try:
            members = self.roster(kind.task_type, kind.requirements).members
        except InvalidRequest:
            return False
        return any(among is None or member.name in among for member in members)

    def usual(self, task_type: str) -> Track | None:
        """How long a task type takes in the whole fleet; of it nothing else is kept."""
        return self._usual.get(task_type)

    def learned(self, outcomes: Iterable[Outcome]) -> None:
        """Take in what the recorder committed."""
        now = self._clock.monotonic()
        moved: dict[str, Member] = {}
        for outcome in outcomes:
            member = self._members.get(outcome.agent or "")
            if member is None:
                continue
            if member.learn(outcome, now):
                self._breaker_changed(member)
            moved[member.name] = member
            if outcome.kind is ReportKind.FINAL and outcome.task_type in member.attempts:
                self._learn_usual(outcome)
        for member in moved.values():
            self._tell_load(member)

    def sent(self, agent: str, task_id: str) -> None:
        """Count a dispatch of ours until its outcome is known."""
        member = self._members.get(agent)
        if member is not None:
            member.sent(task_id, self._clock.monotonic())
            self._tell_load(member)

    def unsent(self, agent: str, task_id: str) -> None:
        """Take back `sent`: the task was refused."""
        member = self._members.get(agent)
        if member is not None:
            member.unsent(task_id)
            self._tell_load(member)

    def price(self, agent: str) -> Spend:
        """What the agent declares for one task."""
        member = self._members.get(agent)
        return NOTHING if member is None else member.price

    def max_attempts(self, agent: str, task_type: str) -> int | None:
        """Attempts the agent's handler asks for."""
        member = self._members.get(agent)
        return None if member is None else member.attempts.get(task_type)

    def idempotent(self, agent: str, task_type: str) -> bool:
        """Whether the agent's handler says that a task of this type may run twice."""
        member = self._members.get(agent)
        return member is not None and task_type in member.idempotent

    def agents(self) -> list[AgentView]:
        now = self._clock.monotonic()
        return [self._members[name].view(now) for name in sorted(self._members)]

    def agent(self, name: str) -> AgentView:
        """Raises NotFound."""
        member = self._members.get(name)
        if member is None:
            raise NotFound(f"no agent named {name!r} was heard from")
        return member.view(self._clock.monotonic())

    async def set_mode(self, name: str, mode: AgentMode) -> AgentView:
        """Drain, quarantine or resume an agent, on every router. Raises NotFound, Unavailable."""
        self.agent(name)
        await self._modes.say(name, mode)
        return self.agent(name)

    @property
    def heard_from(self) -> int:
        """Agents that perform something and are not lost."""
        return sum(bool(member.attempts) and member.status != "lost" for member in self._members.values())

    @property
    def registered(self) -> set[str]:
        """Agents that were heard from and are in the ledger."""
        return {member.name for member in self._members.values() if member.registered}

    def silences(self) -> dict[str, float]:
        """Agents that perform something, each with the seconds since it was heard last."""
        now = self._clock.monotonic()
        return {member.name: now - member.heard_at for member in self._members.values() if member.attempts}

    @property
    def free_slots(self) -> int:
        """Slots of all agents that may be chosen now and have nothing to do."""
        able = [member for member in self._members.values() if member.attempts and member.status == "healthy"]
        return sum(max(0, member.slots - member.in_flight()) for member in able)

    @property
    def longest_timeout_seconds(self) -> float:
        """The longest time limit any agent's handler asks for; 0 when none does."""
        return max((member.longest_timeout for member in self._members.values()), default=0.0)

    @property
    def longest_drain_seconds(self) -> float:
        """Expected time until the busiest agent has done all that waits for it; 0 when nothing waits."""
        return max((m.drain_seconds for m in self._members.values() if m.saturated), default=0.0)

    async def wait_for_change(self) -> None:
        """Return after the next change of who may be chosen."""
        await self._changed.wait()

    def _compose(self, task_type: str, requirements: Mapping[str, Any]) -> Roster:
        members = [member for member in self._members.values() if member.attempts]
        offers = [member.offer() for member in members]
        screening = screen(task_type, requirements, offers)
        chosen = tuple(members[position] for position in screening.eligible)
        shaky = tuple(member for member in chosen if member.breaker_state is not BreakerState.CLOSED)
        able = tuple(offer.name for offer in offers if not inability(task_type, requirements, offer))
        return Roster(chosen, screening.rejected, len(members), shaky, Field(chosen), able)

    def _tell_load(self, member: Member) -> None:
        self.on_load(member.name, member.in_flight(), self._clock.now())

    def _invalidate(self) -> None:
        self._rosters.clear()
        self._changed.set()
        self._changed = asyncio.Event()

    async def _on_heartbeat(self, subject: str, data: bytes) -> None:
        try:
            beat = _decode_beat(data)
        except msgspec.MsgspecError as error:
            self._log.warning("A heartbeat could not be read", subject=subject, error=str(error))
            return
        member = self._members.get(beat.agent)
        if member is None:
            member = self._members[beat.agent] = Member(beat.agent, self._breakers.of(beat.agent))
            member.mode = self._modes.of(beat.agent)
            member.breaker_moved(self._clock.monotonic())
            self._telemetry.breaker(beat.agent, int(member.breaker_state))
        profile = member.profile
        changed = member.hear(beat, self._clock.monotonic(), self._clock.now())
        self._tell_load(member)
        self._heard.add(beat.agent)
        if not member.described:
            await self._hello()
            return
        if member.profile is not profile:
            self._unregistered[beat.agent] = member.profile
            self._to_register.set()
        if changed:
            self._invalidate()

    async def _hello(self) -> None:
        now = self._clock.monotonic()
        if self._hello_at and now - self._hello_at < 1.0:
            return
        self._hello_at = now
        await self._bus.signals.send(subjects.HELLO, b"{}")

    async def _register(self) -> None:
        while True:
            await self._to_register.wait()
            self._to_register.clear()
            profiles = list(self._unregistered.values())
            try:
                await self._modes.recall(await self._directory.register(profiles, self._clock.now()))
            except BaseException:
                self._to_register.set()
                raise
            for profile in profiles:
                if self._unregistered.get(profile.name) is profile:
                    del self._unregistered[profile.name]
                self._members[profile.name].registered = True
            self._log.info("Agents registered", agents=[profile.name for profile in profiles])
            self._invalidate()

    async def _sweep(self) -> None:
        while True:
            await self._clock.sleep(SWEEP_SECONDS)
            now = self._clock.monotonic()
            changed = False
            for member in list(self._members.values()):
                changed |= member.refresh(now)
                if member.breaker_moved(now):
                    self._breaker_changed(member)
                if member.status == "lost" and now - member.heard_at > FORGET_SECONDS:
                    del self._members[member.name]
                    self._breakers.forget(member.name)
                    self._telemetry.forget("circuit_breaker_state", agent_id=member.name)
                    changed = True
            if changed:
                self._invalidate()

    async def _tell_seen(self) -> None:
        while True:
            await self._clock.sleep(SEEN_SECONDS)
            names = sorted(name for name in self._heard if name in self._members and self._members[name].registered)
            self._heard.clear()
            if names:
                await self._directory.seen(names, self._clock.now())

    async def _look_at_backlogs(self) -> None:
        """Other routers send too: only the bus knows how much waits for an agent that has no free slot."""
        while True:
            await self._clock.sleep(BACKLOG_SECONDS)
            for member in [member for member in self._members.values() if member.saturated]:
                try:
                    member.backlog = await self._bus.tasks.backlog(member.name)
                except Unavailable as error:
                    self._log.debug("A backlog is unknown", agent=member.name, error=str(error))

    def _mode_changed(self, name: str, mode: AgentMode) -> None:
        member = self._members.get(name)
        if member is not None and member.mode is not mode:
            member.mode = mode
            self._log.info("An agent's mode changed", agent=name, mode=str(mode))
            self._invalidate()

    def _breaker_told(self, agent: str) -> None:
        """Another router changed this breaker."""
        member = self._members.get(agent)
        if member is not None and member.breaker_moved(self._clock.monotonic()):
            self._breaker_changed(member)

    def _breaker_changed(self, member: Member) -> None:
        self._telemetry.breaker(member.name, int(member.breaker_state))
        self._log.warning(
            "A breaker changed",
            agent=member.name,
            state=member.breaker_state.name.lower(),
            cause=member.breaker.cause,
        )
        self._invalidate()

    def _learn_usual(self, outcome: Outcome) -> None:
        if outcome.status is not TaskStatus.SUCCESS and outcome.status not in FAILED:
            return
        track = self._usual.get(outcome.task_type)
        if track is None:
            track = self._usual[outcome.task_type] = Track()
        track.time(outcome.execution_time_ms)


def _nobody_listens(agent: str, in_flight: int, epoch: float) -> None:
    """Until somebody asks to hear."""
