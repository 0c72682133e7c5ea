"""Affinity at the router: where tasks with a key go, on a new fleet, beside breakers and while trials are due."""

from __future__ import annotations

import pytest

from agent_engines.domain.affinity import ranked
from agent_engines.domain.decisions import Decision, DecisionContext
from agent_engines.domain.messages import ReportKind
from agent_engines.domain.tasks import TaskError, TaskRequest, TaskStatus
from agent_engines.domain.terms import Affinity, AffinityMode
from agent_engines.runtime.outcomes import Outcome
from agent_engines.runtime.strategies import StrategyChoice
from routing_house import RoutingHouse, settle

ADAPTIVE = StrategyChoice(default="adaptive")
KEY = Affinity(key="session-42")
FIRST, SECOND, *OTHERS = ranked(KEY.key, "abcd")


def ended(agent: str, task_id: str, status: TaskStatus) -> Outcome:
    error = None if status is TaskStatus.SUCCESS else TaskError("Timeout", "too slow", retryable=True)
    return Outcome(kind=ReportKind.FINAL, task_id=task_id, task_type="echo", agent=agent, status=status, error=error)


async def fleet(house: RoutingHouse) -> None:
    for agent in "abcd":
        await house.beat(agent)


async def sent(house: RoutingHouse, affinity: Affinity | None = KEY) -> Decision:
    accepted = await house.submit(affinity=affinity)
    await settle()
    return await house.ledger.decisions.decision(accepted.request_id)


async def broken(house: RoutingHouse, agent: str) -> None:
    """It did well and fails now, until its breaker is open."""
    house.fleet.learned([ended(agent, f"g{number}", TaskStatus.SUCCESS) for number in range(60)])
    house.fleet.learned([ended(agent, f"f{number}", TaskStatus.DEAD_LETTER) for number in range(3)])
    await settle()
    assert house.fleet.agent(agent).breaker == "open"


@pytest.mark.parametrize("strategy", ["adaptive", "random"])
async def test_a_key_meets_its_agent_although_nothing_is_known_of_it_yet_and_others_did_well(strategy: str) -> None:
    async with RoutingHouse(choice=StrategyChoice(default=strategy)) as house:
        await fleet(house)
        house.fleet.learned([ended(SECOND, f"g{number}", TaskStatus.SUCCESS) for number in range(60)])
        decision = await sent(house)
        assert (decision.selected_agent, decision.propensity) == (FIRST, 1.0)
        assert f"Affinity: {FIRST} is the key's agent and was preferred." in decision.reasoning


async def test_a_key_whose_agent_did_much_worse_goes_where_the_strategy_wants() -> None:
    async with RoutingHouse(choice=StrategyChoice(default="load_aware")) as house:
        await fleet(house)
        house.fleet.learned([ended(SECOND, f"g{number}", TaskStatus.SUCCESS) for number in range(60)])
        for number in range(60):
            status = TaskStatus.SUCCESS if number % 3 else TaskStatus.DEAD_LETTER
            house.fleet.learned([ended(FIRST, f"x{number}", status)])
        assert house.fleet.agent(FIRST).breaker == "closed"
        decision = await sent(house)
        assert f"Affinity: {FIRST} is the key's agent and was not preferred: worth 0." in decision.reasoning
        assert "at most, the best 0." in decision.reasoning


async def half_open(house: RoutingHouse, agent: str) -> None:
    """The open time of its breaker is over, and this router holds the trial."""
    await house.clock.advance(61.0)
    await fleet(house)
    house.dispatcher.decide(DecisionContext(request_id="question", task_type="echo"))
    await settle()
    assert house.fleet.agent(agent).breaker == "half-open"


async def test_a_task_of_a_key_is_the_trial_of_its_own_agent_and_those_behind_it_go_to_the_next() -> None:
    async with RoutingHouse(choice=ADAPTIVE) as house:
        await fleet(house)
        await broken(house, FIRST)
        assert (await sent(house)).selected_agent == SECOND, "while it is open the key goes to the next in its order"
        await half_open(house, FIRST)
        trial = await sent(house)
        assert (trial.selected_agent, trial.propensity) == (FIRST, 1.0)
        assert "was preferred" in trial.reasoning
        assert (await sent(house)).selected_agent == SECOND, "one trial at a time"
        assert trial.task_id is not None
        house.fleet.learned([ended(FIRST, trial.task_id, TaskStatus.SUCCESS)])
        assert house.fleet.agent(FIRST).breaker == "closed"
        assert (await sent(house)).selected_agent == FIRST


async def test_a_key_whose_own_agent_is_well_is_no_trial_of_another() -> None:
    async with RoutingHouse(choice=ADAPTIVE) as house:
        await fleet(house)
        await broken(house, OTHERS[0])
        await half_open(house, OTHERS[0])
        assert {(await sent(house)).selected_agent for _ in range(5)} == {FIRST}
        assert (await sent(house, None)).selected_agent == OTHERS[0], "a task without a key is its trial"


async def test_a_hard_key_is_refused_while_its_agent_is_out_and_is_its_trial_afterwards() -> None:
    hard = Affinity(key=KEY.key, mode=AffinityMode.HARD)
    async with RoutingHouse(choice=ADAPTIVE) as house:
        await fleet(house)
        await broken(house, FIRST)
        (result,) = await house.dispatcher.submit([TaskRequest(task_type="echo", affinity=hard)])
        assert result.refused is not None
        assert f"belongs to agent {FIRST}, which cannot take the task: breaker open" in result.refused.detail
        await half_open(house, FIRST)
        assert (await sent(house, hard)).selected_agent == FIRST
