"""At most one process believes that it leads: under pauses, slow and lost messages, and keys that end."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule
from machine_settings import machine

from agent_engines.domain.lease import HOLD_SHARE, Lease

TTL = 10.0
NAMES = st.integers(0, 2)
SECONDS = st.floats(0.0, 12.0)


@dataclass
class Store:
    """A key with a revision and an end, as the bus's settings keep it."""

    now: float = 0.0
    owner: int | None = None
    revision: int = 0
    ends_at: float = 0.0

    def advance(self, seconds: float) -> None:
        self.now += seconds
        if self.owner is not None and self.now >= self.ends_at:
            self.owner = None

    def write(self, owner: int, expected: int) -> int | None:
        current = 0 if self.owner is None else self.revision
        if expected != current:
            return None
        self.revision += 1
        self.owner, self.ends_at = owner, self.now + TTL
        return self.revision

    def delete(self, expected: int) -> None:
        if self.owner is not None and expected == self.revision:
            self.owner = None


@dataclass
class Request:
    """A write on its way: `asked_at` by the clock of who asked."""

    who: int
    asked_at: float
    expected: int
    life: int
    arrived: bool = False
    answer: int | None = None
    told: bool = False


@dataclass
class Candidate:
    lease: Lease = field(default_factory=lambda: Lease(TTL))
    offset: float = 0.0
    life: int = 0


class Election(RuleBasedStateMachine):
    """Three candidates whose clocks run alike but from different starts; every message may take any time or be lost."""

    requests = Bundle("requests")

    @initialize(offsets=st.lists(st.floats(0.0, 1000.0), min_size=3, max_size=3))
    def begin(self, offsets: list[float]) -> None:
        self.store = Store()
        self.candidates = [Candidate(offset=offset) for offset in offsets]
        self.tokens: list[int] = []

    def clock(self, who: int) -> float:
        return self.store.now + self.candidates[who].offset

    @rule(seconds=SECONDS)
    def time_passes(self, seconds: float) -> None:
        self.store.advance(seconds)

    @rule(who=NAMES)
    def looks(self, who: int) -> None:
        """What a candidate without a revision does first."""
        lease = self.candidates[who].lease
        if lease.revision is None and self.store.owner == who:
            lease.found_ours(self.store.revision)

    @rule(target=requests, who=NAMES)
    def asks(self, who: int) -> Request:
        one = self.candidates[who]
        return Request(who, self.clock(who), one.lease.revision or 0, one.life)

    @rule(request=requests)
    def arrives(self, request: Request) -> None:
        if not request.arrived:
            request.arrived = True
            request.answer = self.store.write(request.who, request.expected)

    @rule(request=requests)
    def is_answered(self, request: Request) -> None:
        one = self.candidates[request.who]
        if not request.arrived or request.told or request.life != one.life:
            return
        request.told = True
        if request.answer is None:
            one.lease.refused()
        else:
            one.lease.granted(request.asked_at, request.answer)

    @rule(who=NAMES)
    def asks_and_is_answered_at_once(self, who: int) -> None:
        request = self.asks(who)
        self.arrives(request)
        self.is_answered(request)

    @rule(who=NAMES)
    def stops(self, who: int) -> None:
        one = self.candidates[who]
        revision = one.lease.give_up()
        one.life += 1
        if revision is not None:
            self.store.delete(revision)

    @invariant()
    def at_most_one_leads(self) -> None:
        leaders = [who for who in range(3) if self.candidates[who].lease.holds(self.clock(who))]
        assert len(leaders) <= 1
        for who in leaders:
            assert self.store.owner == who, "whoever believes that it leads has the key"


Election.TestCase.settings = machine(steps=40)
test_at_most_one_candidate_leads = Election.TestCase


def test_a_leader_that_is_not_answered_stops_before_the_key_ends() -> None:
    lease = Lease(TTL)
    lease.granted(asked_at=100.0, revision=1)
    assert lease.holds(100.0 + TTL * HOLD_SHARE - 0.001)
    assert not lease.holds(100.0 + TTL * HOLD_SHARE)


def test_two_refreshes_may_be_lost() -> None:
    lease = Lease(TTL)
    lease.granted(asked_at=0.0, revision=1)
    assert lease.holds(2 * lease.refresh_seconds)


def test_a_key_found_under_our_name_counts_only_after_its_refresh() -> None:
    lease = Lease(TTL)
    lease.found_ours(7)
    assert not lease.holds(0.0)
    assert lease.revision == 7
    lease.granted(asked_at=0.0, revision=8)
    assert lease.holds(0.0)
    assert lease.give_up() == 8
    assert not lease.holds(0.0)
    assert lease.give_up() is None
