"""The load model: who is slow, silent or broken is avoided, and found again when that has passed."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_engines.learning.baselines import RULES, Baseline
from agent_engines.learning.hedges import BUDGET, BURST, TRIAL, Hedges
from agent_engines.learning.kernel import weigh
from agent_engines.learning.load import Loads, Sent
from agent_engines.learning.suspicion import Base, Suspicion


def loads(slots: float = 4.0, routers: int = 1) -> Loads:
    made = Loads(routers)
    for name in "abcd":
        made.slots(made.row(name), slots)
    return made


def completion(model: Loads, work: float, now: float) -> Any:
    """Seconds until one more task would be done at each of the four, as a decision takes them."""
    none, places, room = np.zeros(4), np.arange(4), np.empty((3, 4))
    fleet = (none, slice(0, 4), places, np.ones(4, dtype=np.intp), None)
    weigh((none, none), fleet, model.at(now), (*model.terms(work), *(0.0,) * 6), np.zeros(4), places, room)
    return room[0]


def sent(row: int, at: float) -> Sent:
    return Sent(row, 0.9, 0.9, at, 1.0)


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 50), st.floats(0.1, 5)), max_size=40))
def test_more_work_in_flight_never_finishes_sooner(reports: list[tuple[int, float, float]]) -> None:
    model = loads()
    for number, (row, in_flight, slow) in enumerate(reports):
        model.reported(row, in_flight, float(number))
        model.succeeded(row, slow, 1.0, float(number))
    before = completion(model, 1.0, 100.0).copy()
    model.sent("x", sent(0, 100.0))
    after = completion(model, 1.0, 100.0)
    assert after[0] >= before[0]
    assert (after[1:] == before[1:]).all()
    assert model.back("x", 0) is not None
    assert completion(model, 1.0, 100.0)[0] == pytest.approx(before[0])


def test_other_routers_are_expected_to_send_as_much_as_this_one() -> None:
    alone, one_of_three = loads(), loads(routers=3)
    for model in (alone, one_of_three):
        model.sent("x", sent(0, 0.0))
    assert alone.flight(np.array([0]))[0] == 1.0
    assert one_of_three.flight(np.array([0]))[0] == 3.0


def test_one_error_is_enough_where_errors_are_rare_and_not_where_they_are_common() -> None:
    rare, common = Base(), Base()
    for number in range(3000):
        rare.told(failed=False)
        common.told(failed=number % 5 == 0)
    odds: list[float] = []
    for base in (rare, common):
        suspicion = Suspicion()
        suspicion.failed(base, 0.0)
        odds.append(suspicion.odds(0.0))
    assert odds[0] > 2.0
    assert odds[1] < 0.1


def test_suspicion_fades_with_time_and_faster_after_a_short_breakdown() -> None:
    short, long = Suspicion(), Suspicion()
    short.failed(Base(), 0.0)
    for at in range(60):
        long.failed(Base(), float(at))
    assert short.odds(0.0) > short.odds(30.0) > short.odds(300.0)
    assert long.odds(59.0 + 100.0) > short.odds(100.0)


def test_a_task_that_was_sent_before_the_error_clears_nobody() -> None:
    model = loads()
    model.sent("old", sent(0, 0.0))
    model.failed(0, 5.0)
    suspected = completion(model, 1.0, 5.0)[0]
    model.succeeded(0, 1.0, 1.0, 6.0, sent_at=0.0)
    assert completion(model, 1.0, 6.0)[0] == pytest.approx(suspected, rel=0.4)
    model.succeeded(0, 1.0, 1.0, 8.0, sent_at=7.0)
    model.succeeded(0, 1.0, 1.0, 8.0, sent_at=7.5)
    assert completion(model, 1.0, 8.0)[0] < suspected / 3


def test_one_trial_at_a_time_goes_to_a_suspect() -> None:
    model = loads()
    model.failed(0, 0.0)
    before = completion(model, 1.0, 30.0)[0]
    model.sent("trial", sent(0, 30.0))
    assert completion(model, 1.0, 31.0)[0] > 20 * before


def test_a_replica_whose_reports_stop_is_avoided_until_it_speaks_again() -> None:
    model = loads()
    for second in range(20):
        for row in range(4):
            if row != 2 or second < 10:
                model.reported(row, 1.0, float(second))
    times = completion(model, 1.0, 19.0)
    assert times[2] > times[0] + 5.0
    model.reported(2, 1.0, 19.5)
    assert completion(model, 1.0, 19.5)[2] == pytest.approx(times[0])


def test_when_all_reports_stop_nobody_is_blamed() -> None:
    model = loads()
    for row in range(4):
        model.reported(row, 1.0, 0.0)
    model.reported(0, 1.0, 60.0)
    times = completion(model, 1.0, 60.0)
    assert times.max() == pytest.approx(times.min())


def test_what_was_slow_for_a_while_is_tried_again() -> None:
    model = loads()
    for number in range(100):
        model.succeeded(1, 1.0, 1.0, float(number))
    for number in range(10):
        model.succeeded(1, 6.0, 1.0, 100.0 + number)
    slow = float(model.slowness(np.array([1]))[0])
    for number in range(60):
        model.reported(1, 0.0, 110.0 + number)
    assert slow > 3.0
    assert float(model.slowness(np.array([1]))[0]) < 2.0


@pytest.mark.parametrize("name", sorted(RULES))
def test_every_rule_reports_how_likely_its_choice_was(name: str) -> None:
    """Over many seeds the mean of 1 / propensity is the number of replicas that can be chosen at all."""
    candidates = [{"agent": f"r{n}", "cost": 0.1 * (n % 2), "slots": 4} for n in range(6)]
    counts: Counter[str] = Counter()
    told: dict[str, float] = {}
    tries = 3000
    for seed in range(tries):
        policy = Baseline(name, seed=seed)
        for n, flight in enumerate([1.0, 1.0, 3.0, 5.0, 5.0, 9.0]):
            policy.on_report(f"r{n}", {"rif": flight}, 0.0)
        agent, _, propensity = policy.choose({"task_id": "x", "now": 0.0}, candidates)
        counts[agent] += 1
        assert told.setdefault(agent, propensity) == propensity
    assert sum(told.values()) == pytest.approx(1.0)
    for agent, propensity in told.items():
        error = (propensity * (1.0 - propensity) / tries) ** 0.5
        assert counts[agent] / tries == pytest.approx(propensity, abs=4.5 * error + 1e-12)


@given(st.lists(st.booleans(), max_size=400))
def test_hedges_never_exceed_their_share(wanted: list[bool]) -> None:
    hedges, spent = Hedges(), 0
    for decisions, want in enumerate(wanted, 1):
        hedges.decided()
        if want and hedges.after(1.0) is not None:
            hedges.spent()
            spent += 1
        assert spent <= BUDGET * decisions + BURST


def raced(seed: int, *, share: float, races: int, hedges: Hedges | None = None) -> Hedges:
    """Races of which the second leg wins `share`."""
    rng, hedges = np.random.default_rng(seed), hedges or Hedges()
    for _ in range(races):
        hedges.raced(won=bool(rng.random() < share))
    return hedges


@pytest.mark.parametrize("seed", range(20))
def test_hedging_stops_where_second_legs_do_not_win_but_for_trials(seed: int) -> None:
    hedges = raced(seed, share=0.1, races=60)
    assert not hedges.worthwhile
    sent = 0
    for _ in range(10_000):
        hedges.decided()
        if hedges.after(1.0) is not None:
            hedges.spent()
            sent += 1
    assert sent == pytest.approx(TRIAL * 10_000, abs=1)


@pytest.mark.parametrize("seed", range(20))
def test_hedging_goes_on_where_second_legs_win_and_comes_back_when_they_do_again(seed: int) -> None:
    assert raced(seed, share=0.7, races=60).worthwhile
    assert raced(seed, share=0.9, races=20, hedges=raced(seed, share=0.1, races=60)).worthwhile


def test_a_first_leg_that_outlasts_its_wait_makes_the_next_ones_longer() -> None:
    """Nobody tells how long a loser would have taken: without this the waits would shrink with every hedge that wins."""
    hedges = Hedges()
    before = hedges.after(1.0)
    hedges.outlasted()
    after = hedges.after(1.0)
    assert before is not None
    assert after is not None
    assert after > before


def test_a_hedge_waits_for_the_tail_of_what_was_seen() -> None:
    rng = np.random.default_rng(1)
    hedges = Hedges()
    for ratio in rng.exponential(1.0, 5000):
        hedges.told(2.0 * float(ratio), 2.0)
    after = hedges.after(2.0)
    assert after is not None
    assert 2.0 * 3.0 < after < 2.0 * 7.0  # the 99th percentile of the ratio is 4.6


def test_utilisation_is_an_average_and_not_a_burst() -> None:
    model = loads()
    for second in range(60):
        for row in range(4):
            model.reported(row, 1.0, float(second))
    assert model.utilisation() == pytest.approx(0.25, abs=0.05)
    for row in range(4):
        model.reported(row, 40.0, 60.0 + row / 10)
    assert model.utilisation() < 0.4
