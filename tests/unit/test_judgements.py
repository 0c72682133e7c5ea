"""Judgements: what feedback teaches, by the router that leads and by no other."""

from __future__ import annotations

import msgspec
import pytest

from agent_engines.domain.messages import ReportKind
from agent_engines.domain.tasks import TaskStatus
from agent_engines.learning.lesson import Lesson
from agent_engines.learning.task_features import task_vector
from agent_engines.runtime.judgements import Judgements
from agent_engines.runtime.outcomes import Outcome
from agent_engines.runtime.strategies import StrategyChoice
from routing_house import RoutingHouse, until


def judged(task_id: str, quality: float, agent: str = "a") -> Outcome:
    return Outcome(
        kind=ReportKind.FEEDBACK,
        task_id=task_id,
        task_type="echo",
        agent=agent,
        status=TaskStatus.SUCCESS,
        quality=quality,
    )


def judgements(house: RoutingHouse, taught: list[Lesson], *, leads: bool = True) -> Judgements:
    log = house.telemetry.log("intelligence")
    return Judgements(house.ledger, teach=taught.append, leads=lambda: leads, log=log)


async def submitted(house: RoutingHouse) -> str:
    await house.beat("a", metadata={"kind": "small"})
    return (await house.submit(features=[1.0, 2.0])).task_id


async def test_a_judgement_teaches_about_the_kind_with_the_features_of_its_decision() -> None:
    async with RoutingHouse() as house:
        task_id, taught = await submitted(house), list[Lesson]()
        desk = judgements(house, taught)
        desk.recorded([judged(task_id, 0.25)])
        await until(lambda: bool(taught))
        await desk.stop()
        view = await house.ledger.reader.task(task_id)
        context = (await house.ledger.decisions.decision(view.request_id)).context
        assert context is not None
        expected = task_vector([1.0, 2.0], None, payload_bytes=context.payload_bytes, requirements={})
        assert expected is not None
        assert taught == [
            Lesson(kind="small", task_type="echo", quality=0.25, features=tuple(expected.tolist())),
        ]


@pytest.mark.parametrize(
    ("leads", "agent", "kind"),
    [(False, "a", ReportKind.FEEDBACK), (True, "b", ReportKind.FEEDBACK), (True, "a", ReportKind.FINAL)],
    ids=["another-router-leads", "about-another-agent", "an-outcome"],
)
async def test_nothing_else_teaches(leads: bool, agent: str, kind: ReportKind) -> None:
    async with RoutingHouse() as house:
        task_id, taught = await submitted(house), list[Lesson]()
        desk = judgements(house, taught, leads=leads)
        other = judgements(house, taught)
        outcome = judged(task_id, 0.25, agent)
        desk.recorded([msgspec.structs.replace(outcome, kind=kind)])
        # The second one has its lesson: the first, asked before, has had its time.
        other.recorded([judged(task_id, 1.0)])
        await until(lambda: bool(taught))
        await desk.stop()
        await other.stop()
        assert [lesson.quality for lesson in taught] == [1.0]


async def test_a_strategy_does_not_take_a_judgement_for_an_outcome() -> None:
    async with RoutingHouse(choice=StrategyChoice(default="adaptive")) as house:
        task_id = await submitted(house)
        house.strategies.learned([judged(task_id, 0.0)], house.clock.now(), lambda task_type: None)
        assert house.lessons == []
        [message] = await house.queued("a")
        final = house.report(message)
        outcome = Outcome(
            kind=final.kind, task_id=task_id, task_type="echo", agent=final.agent, status=TaskStatus.SUCCESS
        )
        house.strategies.learned([outcome], house.clock.now(), lambda task_type: None)
        assert [lesson.quality for lesson in house.lessons] == [1.0]
