"""The door in a router: what closes it, for whom, and what opens it again."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from agent_engines.adapters.memory.bus import MemoryBus
from agent_engines.adapters.memory.clock import ManualClock
from agent_engines.adapters.memory.ledger import MemoryLedger
from agent_engines.adapters.memory.telemetry import NullTelemetry
from agent_engines.domain.errors import QueueFull, Unavailable
from agent_engines.domain.journal import LogState
from agent_engines.domain.tasks import TaskRequest
from agent_engines.runtime.admission import CALM_SECONDS, Admission, trimmed
from routing_house import RoutingHouse
from switched_ledger import SwitchedLedger

LOW, NORMAL, HIGH = 5, 3, 1


@dataclass
class Line:
    """What waits for a commit: the door's view of a Batcher."""

    waiting: int = 0
    settled: int = 0

    def __len__(self) -> int:
        return self.waiting


class Door:
    """An admission whose looks the test takes by hand."""

    def __init__(self) -> None:
        clock = ManualClock()
        self.line = Line()
        self.ledger = SwitchedLedger(MemoryLedger(clock))
        self.telemetry = NullTelemetry()
        self.admission = Admission(
            MemoryBus(clock=clock), self.ledger.port(), self.line, clock=clock, telemetry=self.telemetry
        )

    def seconds(self, count: int, *, served: int) -> None:
        """That many seconds, in each of which `served` items were committed."""
        for _ in range(count):
            self.line.settled += served
            self.admission.look(1.0, self.line.waiting)

    def log(self, *, settled: int, last: int, seconds: float = 1.0, bytes: int = 0, bound: int = 0) -> None:
        state = LogState(first=1, last=last, settled=settled, bytes=bytes, bound=bound)
        self.admission.note_reports(state, seconds)
        self.admission.look(0.25, self.line.waiting)

    def refused(self, priority: int) -> Unavailable | None:
        try:
            self.admission.check(priority)
        except Unavailable as error:
            return error
        return None


@pytest.mark.parametrize(
    ("waiting", "closed"),
    [(400, []), (1_100, [LOW]), (1_600, [LOW, NORMAL]), (2_100, [LOW, NORMAL, HIGH])],
    ids=["open", "half", "three-quarters", "full"],
)
def test_the_door_closes_for_the_least_urgent_first(waiting: int, closed: list[int]) -> None:
    door = Door()
    door.line.waiting = waiting
    door.seconds(3, served=1_000)
    refused = {priority: door.refused(priority) for priority in (LOW, NORMAL, HIGH)}
    assert [priority for priority, error in refused.items() if error is not None] == closed
    for error in refused.values():
        assert error is None or (isinstance(error, QueueFull) and 1.0 <= error.retry_after <= 30.0)


def test_nobody_is_refused_before_a_rate_is_known() -> None:
    door = Door()
    door.line.waiting = 100_000
    door.admission.look(0.25, 100_000)
    assert door.refused(LOW) is None


def test_the_time_to_come_back_is_worked_out_from_how_fast_the_line_moves() -> None:
    door = Door()
    door.line.waiting = 2_000
    door.seconds(3, served=100)
    error = door.refused(HIGH)
    assert error is not None
    assert error.retry_after == pytest.approx(18.0)


def test_a_record_that_lags_closes_the_door_and_catching_up_opens_it() -> None:
    door = Door()
    door.log(settled=0, last=0)
    for second in range(1, 4):
        door.log(settled=100 * second, last=4_000)
    assert isinstance(door.refused(HIGH), QueueFull)
    assert not door.admission.calm
    for second in range(4, 42):
        door.log(settled=min(4_000, 100 * second), last=4_000)
    assert door.refused(LOW) is None
    assert door.admission.calm


def test_a_ledger_that_is_away_does_not_close_the_door_until_the_log_is_full() -> None:
    """What is accepted meanwhile goes to the journal; the record cannot move, and says nothing about how fast it can."""
    door = Door()
    door.ledger.away = door.ledger.known = True
    for second in range(1, 60):
        door.log(settled=0, last=1_000 * second, bytes=10 * second, bound=10_000)
    assert door.refused(LOW) is None
    assert not door.admission.calm
    door.log(settled=0, last=60_000, bytes=9_500, bound=10_000)
    error = door.refused(HIGH)
    assert error is not None
    assert not isinstance(error, QueueFull)


def test_a_ledger_that_is_back_is_measured_afresh() -> None:
    door = Door()
    door.ledger.away = door.ledger.known = True
    for _ in range(5):
        door.log(settled=0, last=50_000)
    door.ledger.away = False
    door.log(settled=0, last=50_000)
    assert door.refused(LOW) is None
    assert not door.admission.calm
    for second in range(1, 5):
        door.log(settled=10_000 * second, last=50_000)
    assert door.refused(LOW) is None
    assert door.admission.calm


def after_an_outage() -> Door:
    """50,000 reports wait, and 400 of them are recorded a second: two minutes."""
    door = Door()
    door.ledger.away = door.ledger.known = True
    door.log(settled=0, last=50_000)
    door.ledger.away = False
    door.log(settled=0, last=50_000)
    return door


def test_what_an_outage_left_closes_no_door_while_it_shrinks() -> None:
    door = after_an_outage()
    for second in range(1, 120):
        door.log(settled=400 * second, last=50_000 + 100 * second)
        assert door.refused(LOW) is None, second
        assert door.admission.calm == (50_000 - 300 * second <= CALM_SECONDS * 400), second


def test_what_an_outage_left_closes_the_door_when_it_grows() -> None:
    door = after_an_outage()
    for second in range(1, 20):
        door.log(settled=400 * second, last=50_000 + 1_000 * second)
    assert isinstance(door.refused(HIGH), QueueFull)
    for second in range(20, 160):
        door.log(settled=400 * second, last=69_000)
    assert door.refused(LOW) is None


async def test_a_refused_submission_leaves_nothing_behind() -> None:
    async with RoutingHouse() as house:
        await house.beat("worker")
        admission = Admission(house.bus, house.ledger, Line(5_000), clock=house.clock, telemetry=house.telemetry)
        house.dispatcher.admission = admission
        for _ in range(3):
            admission.look(1.0, 5_000)
        (result,) = await house.dispatcher.submit([TaskRequest(task_type="echo", payload=1)])
        assert result.refused is not None
        assert (result.refused.kind, result.refused.retry_after) == ("QueueFull", 30.0)
        assert house.ledger.tables.tasks == {}
        assert await house.bus.tasks.backlog("worker") == 0


class FullLog:
    """A log over its watermark; keeps what it was told to forget."""

    def __init__(self, settled: int) -> None:
        self.settled = settled
        self.first = 1

    async def state(self) -> LogState:
        held = 1_000 - self.first + 1
        return LogState(first=self.first, last=1_000, settled=self.settled, bytes=held * 8, bound=10_000)

    async def trim(self, before: int) -> None:
        self.first = before


@pytest.mark.parametrize(("settled", "first"), [(0, 1), (100, 101), (1_000, 376)])
async def test_a_log_is_trimmed_down_to_what_is_not_settled(settled: int, first: int) -> None:
    log = FullLog(settled)
    state = await trimmed(log)  # type: ignore[arg-type]
    assert state.first == log.first == first
