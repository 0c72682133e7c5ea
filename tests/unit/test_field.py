"""A field is worked out once, also while some are left out: in an incident a decision must not cost more than before."""

from __future__ import annotations

import pytest

from agent_engines.domain.decisions import DecisionContext
from agent_engines.domain.messages import ReportKind
from agent_engines.domain.tasks import TaskStatus
from agent_engines.learning import adaptive
from agent_engines.runtime.field import MOST_PARTS, Field
from agent_engines.runtime.outcomes import Outcome
from agent_engines.runtime.strategies import StrategyChoice
from routing_house import RoutingHouse

AGENTS = tuple("abcdefgh")


async def field_of(house: RoutingHouse) -> Field:
    for name in AGENTS:
        await house.beat(name, idempotent=True)
    return house.fleet.roster("echo", {}).field


async def test_a_part_is_made_of_the_same_objects_and_remembered() -> None:
    async with RoutingHouse() as house:
        field = await field_of(house)
        part = field.without(["c", "a"])
        assert part.agents == tuple("bdefgh")
        assert part is field.without({"a", "c"})
        assert all(
            one is field.mappings[AGENTS.index(name)] for name, one in zip(part.agents, part.mappings, strict=True)
        )
        assert ("b" in part, "a" in part, part.member("h").name) == (True, False, "h")
        assert field.only(["h", "b"]).agents == ("b", "h")


async def test_remembered_parts_are_bounded() -> None:
    async with RoutingHouse() as house:
        field = await field_of(house)
        for number in range(3 * MOST_PARTS):
            field.without({name for place, name in enumerate(AGENTS) if number >> place & 1})
        assert len(field._parts) <= MOST_PARTS


async def test_candidates_are_arranged_once_although_breakers_are_open_retries_avoid_and_hedges_ask_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arranged: list[int] = []
    real = adaptive.arranged

    def counted(candidates: object, *rest: object) -> object:
        arranged.append(len(candidates))  # type: ignore[arg-type]
        return real(candidates, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(adaptive, "arranged", counted)
    async with RoutingHouse(choice=StrategyChoice(default="adaptive")) as house:
        await field_of(house)
        house.fleet.learned([_failure(number) for number in range(3)])
        assert house.fleet.agent("a").breaker == "open"
        decider = house.dispatcher._decider
        for number in range(50):
            context = DecisionContext(request_id=f"r{number}", task_type="echo", deadline=house.clock.now() + 100.0)
            assert decider.decide(context).selected_agent != "a"
            assert decider.decide(context, avoid="b").selected_agent not in "ab"
            assert decider.second(context, "c").selected_agent not in "ac"
    assert arranged == [7, 6, 6]


def _failure(number: int) -> Outcome:
    fields = {"kind": ReportKind.FINAL, "task_type": "echo", "status": TaskStatus.DEAD_LETTER}
    return Outcome(task_id=f"f{number}", agent="a", **fields)  # type: ignore[arg-type]
