"""Strategies: chosen by name, checked at the seam, told what came of it; the record says what they saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest

from agent_engines.domain.agents import Load
from agent_engines.domain.decisions import DecisionContext
from agent_engines.domain.errors import ContractViolation, InvalidRequest, NoEligibleAgent
from agent_engines.domain.tasks import TaskRequest, TaskStatus
from agent_engines.runtime.shipped_strategies import SHIPPED
from agent_engines.runtime.strategies import StrategyChoice
from agent_engines.testing.evaluation import AdaptivePolicy, policy
from agent_engines.testing.policy_checks import check_policy
from routing_house import RoutingHouse, settle

ADAPTIVE = StrategyChoice(default="adaptive")


class Favourite:
    """Always the same agent, by a certain answer."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.heard: list[tuple[Mapping[str, Any], Mapping[str, Any]]] = []
        self.seen: list[Mapping[str, Any]] = []

    def choose(self, context: Mapping[str, Any], candidates: Sequence[Mapping[str, Any]]) -> tuple[str, float, float]:
        self.seen.extend(candidates)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def learn(self, decision: Mapping[str, Any], outcome: Mapping[str, Any]) -> None:
        self.heard.append((decision, outcome))


@pytest.mark.parametrize("name", SHIPPED)
async def test_every_shipped_strategy_decides_by_its_name(name: str) -> None:
    async with RoutingHouse(choice=ADAPTIVE) as house:
        for agent in "abc":
            await house.beat(agent, metadata={"cost_per_task": 0.01})
        for number in range(20):
            answer = await house.submit(payload=number, strategy=name)
            assert answer.strategy == name
            assert answer.selected_agent in {"a", "b", "c"}
            assert 0.0 < answer.propensity <= 1.0
            assert 0.0 < answer.confidence <= 1.0
            assert name in answer.reasoning
        assert house.telemetry.decisions[name, "success"] == 20


async def test_the_requests_word_goes_before_the_task_types_and_that_before_the_routers() -> None:
    choice = StrategyChoice(default="random", by_task_type={"ocr": "c3"})
    async with RoutingHouse(choice=choice) as house:
        await house.beat("a", ("echo", "ocr"))
        assert (await house.submit("echo")).strategy == "random"
        assert (await house.submit("ocr")).strategy == "c3"
        assert (await house.submit("ocr", strategy="cost_aware")).strategy == "cost_aware"


async def test_an_unknown_strategy_is_refused_by_name_with_those_there_are() -> None:
    async with RoutingHouse() as house:
        await house.beat("a")
        (result,) = await house.dispatcher.submit([TaskRequest(task_type="echo", strategy="magic")])
        assert result.refused is not None
        assert (result.refused.kind, result.refused.field) == ("InvalidRequest", "strategy")
        assert "adaptive" in result.refused.detail
        with pytest.raises(InvalidRequest, match="magic"):
            await house.dispatcher.recommend(DecisionContext(request_id="r", task_type="echo", strategy="magic"))


def test_a_router_is_not_made_with_a_strategy_that_is_not_there() -> None:
    with pytest.raises(InvalidRequest, match="magic"):
        RoutingHouse(choice=StrategyChoice(default="magic"))


@pytest.mark.parametrize(
    "answer",
    [
        RuntimeError("it broke"),
        None,
        ("a", 0.5),
        ("nobody", 0.5, 0.5),
        ("a", 0.5, 0.0),
        ("a", 0.5, 1.5),
        ("a", float("nan"), 0.5),
        ("a", "much", 0.5),
        (["a"], 0.5, 0.5),
    ],
)
async def test_a_policy_that_fails_or_answers_nonsense_is_replaced_and_the_task_still_goes(answer: Any) -> None:
    choice = StrategyChoice(default="mine", fallback="random")
    async with RoutingHouse(choice=choice, policies={"mine": lambda seed: Favourite(answer)}) as house:
        await house.beat("a")
        await house.beat("b")
        accepted = await house.submit()
        assert accepted.strategy == "random"
        assert house.telemetry.decisions["mine", "refused"] == 1
        assert house.telemetry.decisions["random", "success"] == 1
        assert "A strategy failed, the fallback decides" in house.telemetry.messages("error")
        decision = await house.ledger.decisions.decision(accepted.request_id)
        assert decision.fallback.startswith("mine failed: ")


async def test_a_policy_of_ones_own_chooses_and_hears_what_came_of_it() -> None:
    mine = Favourite(("b", 0.7, 0.25))
    async with RoutingHouse(choice=StrategyChoice(default="mine"), policies={"mine": lambda seed: mine}) as house:
        await house.beat("a")
        await house.beat("b", metadata={"cost_per_task": 0.5, "kind": "large"})
        accepted = await house.submit(features=[1.0, 2.0])
        assert (accepted.selected_agent, accepted.strategy) == ("b", "mine")
        assert (accepted.confidence, accepted.propensity) == (0.7, 0.25)
        assert [one["agent"] for one in mine.seen] == ["a", "b"]
        assert (mine.seen[1]["cls"], mine.seen[1]["cost"], mine.seen[1]["slots"]) == ("large", 0.5, 10)
        await house.recorder.start()
        (message,) = await house.queued("b")
        await house.bus.reports.publish_reports("b", [house.report(message, quality=0.4, cost=0.6)])
        await settle()
        ((decision, outcome),) = mine.heard
        assert (decision["agent"], decision["propensity"], decision["context"]["features"]) == ("b", 0.25, (1.0, 2.0))
        assert (outcome["success"], outcome["quality"], outcome["cost"]) == (True, 0.4, 0.6)


async def test_a_policy_that_cannot_learn_disturbs_nobody() -> None:
    mine = Favourite(("a", 0.7, 1.0))
    mine.learn = None  # type: ignore[assignment,method-assign]
    async with RoutingHouse(choice=StrategyChoice(default="mine"), policies={"mine": lambda seed: mine}) as house:
        await house.beat("a")
        accepted = await house.submit()
        await house.recorder.start()
        (message,) = await house.queued("a")
        await house.bus.reports.publish_reports("a", [house.report(message)])
        await settle()
        assert (await house.desk.task(accepted.task_id)).status is TaskStatus.SUCCESS
        assert house.telemetry.counts["routing_lessons_refused_total"] == 1


async def test_an_outcome_teaches_once_with_what_was_seen_and_predicted() -> None:
    async with RoutingHouse(choice=ADAPTIVE) as house:
        await house.beat("a", metadata={"kind": "small"})
        accepted = await house.submit(features=[0.5])
        decision = await house.ledger.decisions.decision(accepted.request_id)
        await house.recorder.start()
        (message,) = await house.queued("a")
        report = house.report(message, quality=0.8, cost=0.02)
        await house.bus.reports.publish_reports("a", [report])
        await settle()
        await house.bus.reports.publish_reports("a", [msgspec.structs.replace(report, delivery=2)])
        await settle()
        (lesson,) = house.lessons
        assert (lesson.kind, lesson.task_type, lesson.quality, lesson.cost) == ("small", "echo", 0.8, 0.02)
        assert lesson.id == accepted.task_id
        assert lesson.features is not None
        assert lesson.features[0] == 0.5
        assert lesson.confidence == decision.confidence


@pytest.mark.parametrize(
    ("status", "quality"), [(TaskStatus.DEAD_LETTER, 0.0), (TaskStatus.FAILED, 0.0), (TaskStatus.EXPIRED, None)]
)
async def test_failures_teach_and_what_says_nothing_of_the_agent_does_not(
    status: TaskStatus, quality: float | None
) -> None:
    async with RoutingHouse(choice=ADAPTIVE) as house:
        await house.beat("a")
        await house.submit()
        await house.recorder.start()
        (message,) = await house.queued("a")
        await house.bus.reports.publish_reports("a", [house.report(message, status)])
        await settle()
        assert [lesson.quality for lesson in house.lessons] == ([] if quality is None else [quality])


async def test_recommendations_and_tasks_of_others_teach_nothing() -> None:
    async with RoutingHouse(choice=ADAPTIVE) as house:
        await house.beat("a")
        await house.dispatcher.recommend(DecisionContext(request_id="r", task_type="echo"))
        await house.submit()
        (message,) = await house.queued("a")
        other = msgspec.structs.replace(message, task_id="somebody-elses")
        await house.recorder.start()
        signed = house.capabilities.sign("somebody-elses", 1, "a")
        await house.bus.reports.publish_reports("a", [house.report(other, capability=signed)])
        await settle()
        assert house.lessons == []


async def test_replicas_of_a_kind_share_what_is_learned_and_the_idle_one_is_taken() -> None:
    async with RoutingHouse(choice=ADAPTIVE) as house:
        await house.beat("busy", metadata={"kind": "small"}, load=Load(slots=2, running=2, queued=9))
        await house.beat("idle", metadata={"kind": "small"}, load=Load(slots=2))
        decision = house.dispatcher.decide(DecisionContext(request_id="r", task_type="echo"))
        assert (decision.selected_agent, decision.propensity) == ("idle", 1.0)
        assert [candidate.agent for candidate in decision.candidates] == ["idle"]
        assert set(decision.eligible) == {"busy", "idle"}
        assert decision.candidates[0].kind == "small"


async def test_probabilities_are_exact_also_when_they_are_drawn_from_again() -> None:
    async with RoutingHouse(choice=ADAPTIVE) as house:
        for agent in "abc":
            await house.beat(agent, metadata={"cost_per_task": 0.01})
        weights = dict.fromkeys("abc", 0.0)
        count, shared = 4000, 0
        before: list[float | None] = []
        for number in range(count):
            decision = house.dispatcher.decide(DecisionContext(request_id=f"r{number}", task_type="echo"))
            chosen = next(one for one in decision.candidates if one.agent == decision.selected_agent)
            assert chosen.probability == decision.propensity
            weights[decision.selected_agent] += 1.0 / decision.propensity
            told = [one.probability for one in decision.candidates]
            assert sum(one or 0.0 for one in told) == pytest.approx(1.0)
            shared += told == before
            before = told
        assert shared > count // 2, "bursts share what was weighed"
        for weight in weights.values():
            assert weight / count == pytest.approx(1.0, abs=0.15)


async def test_nothing_is_drawn_again_once_somebody_has_no_free_slot_or_a_lesson_came() -> None:
    async with RoutingHouse(choice=ADAPTIVE) as house:
        await house.beat("a", load=Load(slots=1))
        await house.beat("b", load=Load(slots=50))
        chosen = []
        for number in range(30):
            answer = await house.submit(payload=number)
            chosen.append(answer.selected_agent)
        assert chosen.count("a") < 15, "its only slot was taken by the first"


async def test_a_tenant_that_is_paced_is_decided_and_explained_by_its_own_price() -> None:
    async with RoutingHouse(choice=ADAPTIVE) as house:
        await house.beat("dear", metadata={"cost_per_task": 0.3})
        await house.beat("free")
        dear = {None: 0, 10_000.0: 0}
        for number in range(200):
            for price in dear:
                decision = house.dispatcher.decide(
                    DecisionContext(request_id=f"r{number}", task_type="echo", price=price)
                )
                dear[price] += decision.selected_agent == "dear"
                assert decision.terms["price"] == (0.1 if price is None else price)
                [candidate] = [one for one in decision.candidates if one.agent == "dear"]
                assert candidate.quality is not None
                assert candidate.score is not None
                worth = candidate.quality - decision.terms["price"] * candidate.cost
                assert candidate.score == pytest.approx(worth, abs=5.0), "no other tenant's utility"
        assert dear[10_000.0] < 10 < dear[None], "only the floor is left"
        alone = DecisionContext(request_id="r", task_type="echo", price=10_000.0, requirements={"agent": "dear"})
        assert house.dispatcher.decide(alone).candidates[0].score == pytest.approx(-3000.0, rel=0.01)


async def test_probabilities_weighed_while_somebody_was_full_are_not_drawn_again_when_he_is_free() -> None:
    async with RoutingHouse(choice=ADAPTIVE) as house:
        await house.beat("a", load=Load(slots=1, running=1, queued=500))
        await house.beat("b", load=Load(slots=1))
        full = house.dispatcher.decide(DecisionContext(request_id="r1", task_type="echo"))
        await house.beat("a", load=Load(slots=1))
        free = house.dispatcher.decide(DecisionContext(request_id="r2", task_type="echo"))
        chance = [
            next(one.probability or 0.0 for one in decision.candidates if one.agent == "a") for decision in (full, free)
        ]
        assert chance[0] < 0.1 < chance[1]


async def test_of_a_large_fleet_the_record_keeps_the_best_and_the_chosen_and_names_all() -> None:
    async with RoutingHouse(choice=ADAPTIVE) as house:
        for number in range(40):
            await house.beat(f"a{number}", metadata={"cost_per_task": number / 10})
        for number in range(50):
            decision = house.dispatcher.decide(DecisionContext(request_id=f"r{number}", task_type="echo"))
            assert len(decision.candidates) == 4
            assert decision.selected_agent in {candidate.agent for candidate in decision.candidates}
            assert len(decision.eligible) == decision.considered == 40
            chosen = next(one for one in decision.candidates if one.agent == decision.selected_agent)
            assert chosen.probability == decision.propensity


async def test_nobody_at_all_everybody_ejected_and_contradictions_are_explained() -> None:
    async with RoutingHouse(choice=ADAPTIVE) as house:
        with pytest.raises(NoEligibleAgent, match="no agent has been heard from"):
            house.dispatcher.decide(DecisionContext(request_id="r", task_type="echo"))
        assert house.telemetry.decisions["adaptive", "no_agent"] == 1
        await house.beat("a", metadata={"size": 4})
        await house.beat("b", metadata={"size": 4})
        for requirements, field in (
            ({"size": {">=": 5, "<": 5}}, "requirements.size"),
            ({"size": {">": 5, "<=": 3}}, "requirements.size"),
            ({"agent": "a", "exclude_agents": ["a"]}, "requirements.exclude_agents"),
        ):
            (result,) = await house.dispatcher.submit([TaskRequest(task_type="echo", requirements=requirements)])
            assert result.refused is not None
            assert (result.refused.kind, result.refused.field) == ("InvalidRequest", field)
        for requirements in ({"size": {">=": 4, "<=": 4}}, {"agent": ["a", "b"], "exclude_agents": ["a"]}):
            assert house.dispatcher.decide(
                DecisionContext(request_id="r", task_type="echo", requirements=requirements)
            ).selected_agent
        await house.recorder.start()
        for agent in "ab":
            for _ in range(4):
                await house.submit(requirements={"agent": agent})
            reports = [house.report(message, TaskStatus.DEAD_LETTER) for message in await house.queued(agent)]
            await house.bus.reports.publish_reports(agent, reports)
            await settle()
        assert {view.breaker for view in house.fleet.agents()} == {"open"}
        assert house.dispatcher.decide(DecisionContext(request_id="r", task_type="echo")).selected_agent in {"a", "b"}


@pytest.mark.parametrize("cost", [-1, float("inf"), "dear", True])
async def test_a_price_that_cannot_be_used_counts_as_nothing_and_is_told(cost: Any) -> None:
    async with RoutingHouse(choice=ADAPTIVE) as house:
        await house.beat("a", metadata={"cost_per_task": cost})
        if cost == float("inf"):
            # JSON has no infinity: such a heartbeat arrives with null in its place.
            cost = None
        decision = house.dispatcher.decide(DecisionContext(request_id="r", task_type="echo"))
        assert decision.candidates[0].cost == 0.0
        assert f"a declares cost_per_task {cost!r}, which counts as 0" in decision.reasoning
        assert house.fleet.agent("a").notes == (f"a declares cost_per_task {cost!r}, which counts as 0",)


@pytest.mark.parametrize("slots", [0, -5, 10**9])
@pytest.mark.parametrize("strategy", SHIPPED)
async def test_agents_that_lie_about_their_slots_get_work_like_others(strategy: str, slots: int) -> None:
    async with RoutingHouse(choice=StrategyChoice(default=strategy)) as house:
        await house.beat("liar", load=Load(slots=slots, running=-3, queued=-7, service_ms=-1.0))
        await house.beat("honest", load=Load(slots=4))
        member = next(one for one in house.fleet.roster("echo", {}).members if one.name == "liar")
        assert 1 <= member.slots <= 100_000
        for number in range(10):
            decision = house.dispatcher.decide(DecisionContext(request_id=f"r{number}", task_type="echo"))
            assert decision.selected_agent in {"liar", "honest"}


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("features", [1.0, float("nan")], "features[1]"),
        ("features", [float("inf")], "features[0]"),
        ("features", [1e300], "features[0]"),
        ("features", [], "features"),
        ("features", [0.0] * 257, "features"),
        ("features", [True], "features[0]"),
        ("features", "12", "features"),
        ("embedding", [0.0] * 4097, "embedding"),
        ("embedding", [0.0, "x"], "embedding[1]"),
        ("strategy", "no such name!", "strategy"),
        ("strategy", 7, "strategy"),
    ],
)
async def test_bad_hints_are_refused_by_field(field: str, value: Any, named: str) -> None:
    async with RoutingHouse(choice=ADAPTIVE) as house:
        await house.beat("a")
        (result,) = await house.dispatcher.submit([TaskRequest(task_type="echo", **{field: value})])
        assert result.refused is not None
        assert (result.refused.kind, result.refused.field) == ("InvalidRequest", named)


async def test_a_retry_is_decided_by_the_same_words() -> None:
    async with RoutingHouse(choice=ADAPTIVE) as house:
        await house.beat("a")
        await house.recorder.start()
        accepted = await house.submit(strategy="c3", features=[2.0])
        (message,) = await house.queued("a")
        await house.bus.reports.publish_reports("a", [house.retry(message, 0.5)])
        await settle()
        (stored,) = await house.ledger.tasks.claim_due(house.clock.now() + 1.0, 10)
        decision = await house.dispatcher.send_again(stored)
        assert (decision.strategy, decision.context and decision.context.features) == ("c3", (2.0,))
        assert accepted.strategy == "c3"


async def test_requests_with_other_hints_are_other_requests() -> None:
    async with RoutingHouse(choice=ADAPTIVE) as house:
        await house.beat("a")
        await house.submit(idempotency_key="k", features=[1.0])
        again = await house.submit(idempotency_key="k", features=[1.0])
        assert again.existing
        other = TaskRequest(task_type="echo", idempotency_key="k", features=[2.0])
        (result,) = await house.dispatcher.submit([other])
        assert result.refused is not None
        assert result.refused.kind == "Conflict"


@pytest.mark.parametrize("name", ["adaptive", "random", "round_robin", "power_of_two", "c3", "cost_aware"])
def test_the_shipped_policies_behave(name: str) -> None:
    check_policy(lambda seed: policy(name, seed=seed))


def test_a_policy_that_misbehaves_is_told_what_is_wrong() -> None:
    with pytest.raises(ContractViolation, match="none of the candidates"):
        check_policy(lambda seed: Favourite(("agent-99", 0.5, 0.5)))
    with pytest.raises(ContractViolation, match="changed what it was given"):
        check_policy(lambda seed: Meddling(seed=seed))
    with pytest.raises(ContractViolation, match=r"hedge_after returned 0\.0"):
        check_policy(lambda seed: Hasty(seed=seed))


class Hasty(AdaptivePolicy):
    """Wants a second leg at once."""

    def hedge_after(self, decision: Mapping[str, Any]) -> float | None:
        return 0.0


class Meddling(AdaptivePolicy):
    """Writes into what it is shown."""

    def choose(self, context: Mapping[str, Any], candidates: Sequence[Mapping[str, Any]]) -> tuple[str, float, float]:
        candidates[0]["cost"] = 0.123456  # type: ignore[index]
        return super().choose(context, candidates)


def test_a_policy_may_read_every_field_that_is_promised_and_one_that_cannot_be_made_is_told() -> None:
    check_policy(lambda seed: Reader())
    with pytest.raises(ContractViolation, match="could not be made from seed 0"):
        check_policy(Reader)  # type: ignore[arg-type]


class Reader:
    """Reads all that learning/policy.py lists, and takes the first."""

    def choose(self, context: Mapping[str, Any], candidates: Sequence[Mapping[str, Any]]) -> tuple[str, float, float]:
        for field in ("task_id", "task_type", "requirements", "priority", "deadline_s", "now", "features", "work_hint"):
            assert field in context
        for candidate in candidates:
            assert {"cls", "parent", "cost", "slots", "in_flight", "completion", "success"} <= set(candidate)
        return candidates[0]["agent"], 0.5, 1.0

    def learn(self, decision: Mapping[str, Any], outcome: Mapping[str, Any]) -> None:
        """Nothing to learn."""
