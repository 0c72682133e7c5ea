"""Replay: what another policy would have earned on recorded decisions, without deciding anything again for real.

A named policy is asked about each recorded task in order and then told the logged outcome, so that it never knows more than it
could have known. `uniform` and `always:<agent>` and the adaptive policy give their whole distribution; of any other strategy the
one choice it made counts (the replay method of Li et al., WSDM 2011), which is as unbiased and noisier. A policy of one's own is
shown the candidates with the numbers that were recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec
import numpy as np

from agent_engines.domain import subjects
from agent_engines.domain.errors import Conflict, NotFound, Unavailable
from agent_engines.domain.off_policy import Estimate, Floats, doubly_robust, gain, snips, weights
from agent_engines.domain.promotion import FAMILY_ROWS, Evidence, Gain
from agent_engines.domain.tasks import TaskStatus
from agent_engines.learning.adaptive import Adaptive, Options
from agent_engines.learning.baselines import RULES, Baseline
from agent_engines.learning.reward_model import cross_fitted
from agent_engines.learning.task_features import task_vector
from agent_engines.ports.bus import Bus
from agent_engines.ports.ledger import LoggedDecision
from agent_engines.runtime.shipped_strategies import PolicyMaker

from .outcomes import earned_by_type, interval_of, reward_of
from .own_target import OwnTarget, offered

UNIFORM, ALWAYS, ADAPTIVE = "uniform", "always:", "adaptive"
Candidates = list[dict[str, Any]]


REPLAY_SECONDS = 60.0
"""Twenty thousand decisions are read and decided again in the meantime."""


class ReplayQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """`ask.optimizing.replay`; `since`: epoch seconds, None: the last day. Of very many decisions the newest count."""

    policy: str
    since: float | None = None


class ReplayAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The document, or the name of a policy that is not there."""

    document: dict[str, Any] | None = None
    unknown: str = ""
    failed: str = ""
    """What a policy of one's own raised."""


async def asked_to_replay(bus: Bus, policy: str, since: float | None) -> dict[str, Any]:
    """Ask the optimizing engine. Raises NotFound, Unavailable, Conflict (the policy fails)."""
    question = msgspec.json.encode(ReplayQuestion(policy=policy, since=since))
    data = await bus.signals.ask(subjects.ask("optimizing", "replay"), question, REPLAY_SECONDS)
    try:
        answer = msgspec.json.decode(data, type=ReplayAnswer)
    except msgspec.MsgspecError as error:
        raise Unavailable(f"the optimizing engine's answer could not be read: {error}") from None
    if answer.failed:
        raise Conflict(answer.failed)
    if answer.document is None:
        raise NotFound(answer.unknown)
    return answer.document


async def asked_for_evidence(bus: Bus, policy: str) -> Evidence:
    """What a policy would have gained over what was logged in the last day.

    Raises NotFound (nobody can judge it), Unavailable, Conflict (it fails on recorded decisions).
    """
    document = await asked_to_replay(bus, policy, None)
    try:
        return msgspec.convert({name: document[name] for name in Evidence.__struct_fields__}, Evidence)
    except (KeyError, msgspec.ValidationError) as error:
        raise Unavailable(f"the optimizing engine's answer could not be read: {error!r}") from None


class Target(Protocol):
    """A policy that is judged: its probabilities for each candidate, then the logged outcome."""

    def shares(self, context: Mapping[str, Any], candidates: Candidates) -> Sequence[float]: ...

    def learn(self, context: Mapping[str, Any], candidate: Mapping[str, Any], outcome: Mapping[str, Any]) -> None: ...


def replay(
    logged: Sequence[LoggedDecision],
    policy: str,
    *,
    price: float = 0.1,
    own: Mapping[str, PolicyMaker] | None = None,
) -> dict[str, Any]:
    """The document of `ask.optimizing.replay`; `own`: policies of one's own, by name.

    Raises NotFound naming the policies there are, or an agent nobody could choose, and PolicyFailed.
    """
    target = _target(policy, price, own or {})
    if isinstance(target, Always) and logged and not any(target.agent in one.decision.agents for one in logged):
        # It would be judged as if any would do, and look like a policy.
        raise NotFound(f"no recorded decision could have chosen the agent {target.agent!r}")
    ended = [one for one in logged if reward_of(one) is not None]
    usable = [one for one in ended if one.decision.propensity > 0.0 and not one.decision.deterministic]
    costs = _costs(usable)
    shares: list[list[float]] = []
    contexts: list[Mapping[str, Any]] = []
    for one in usable:
        context, candidates, outcome = _context(one), _candidates(one, costs), _outcome(one)
        contexts.append(context)
        if isinstance(target, OwnTarget):
            context, candidates, outcome = offered(one, candidates, outcome)
        shares.append([float(share) for share in target.shares(context, candidates)])
        chosen = next(each for each in candidates if each["agent"] == one.decision.selected_agent)
        target.learn(context, chosen, outcome)
    rewards = np.array([reward_of(one) or 0.0 for one in usable])
    return {
        "policy": policy,
        "since": logged[0].decision.created_at if logged else None,
        "rows": len(usable),
        "left_out": {"deterministic": len(ended) - len(usable), "not_ended": len(logged) - len(ended)},
        "logged": round(float(rewards.mean()), 6) if usable else None,
        "earned": earned_by_type((one.decision.task_type, reward_of(one) or 0.0) for one in ended),
        **(_judged(usable, contexts, shares, rewards) if usable else {"estimates": [], "gains": []}),
    }


def _judged(
    rows: Sequence[LoggedDecision], contexts: Sequence[Mapping[str, Any]], shares: list[list[float]], rewards: Floats
) -> dict[str, Any]:
    agents = [one.decision.agents for one in rows]
    at = [names.index(one.decision.selected_agent) for names, one in zip(agents, rows, strict=True)]
    weight = weights(
        [min(1.0, share[place]) for share, place in zip(shares, at, strict=True)],
        [one.decision.propensity for one in rows],
    )
    names = sorted({name for some in agents for name in some})
    column = {name: place for place, name in enumerate(names)}
    model = cross_fitted(contexts, [one.decision.selected_agent for one in rows], rewards, names)
    chosen = np.array([model[row, column[one.decision.selected_agent]] for row, one in enumerate(rows)])
    mean = np.array(
        [
            sum(share * model[row, column[name]] for share, name in zip(shares[row], agents[row], strict=True))
            for row in range(len(rows))
        ]
    )
    told = [_told(snips(weight, rewards)), _told(doubly_robust(weight, rewards, chosen, mean))]
    return {"estimates": told, "gains": _gains(rows, weight, rewards, chosen, mean)}


def _gains(rows: Sequence[LoggedDecision], *columns: Floats) -> list[Gain]:
    """Over all, then of each task type seen often; the columns are those of off_policy.gain."""
    found = [_gain(None, *columns)]
    types = np.array([one.decision.task_type for one in rows])
    names, counts = np.unique(types, return_counts=True)
    for name, count in zip(names.tolist(), counts.tolist(), strict=True):
        if count > FAMILY_ROWS and len(names) > 1:
            mine = types == name
            found.append(_gain(name, *(column[mine] for column in columns)))
    return found


def _gain(task_type: str | None, weight: Floats, rewards: Floats, chosen: Floats, mean: Floats) -> Gain:
    found = gain(weight, rewards, chosen, mean)
    certain = found.low is not None and found.high is not None
    return Gain(
        task_type=task_type,
        rows=found.rows,
        value=None if found.value is None else round(found.value, 6),
        interval=(round(found.low or 0.0, 6), round(found.high or 0.0, 6)) if certain else None,
        effective_sample_size=round(found.effective_sample_size, 1),
        mean_weight=round(found.mean_weight, 6),
        mean_weight_error=round(float(weight.std(ddof=1)) / len(weight) ** 0.5, 6) if len(weight) > 1 else 0.0,
        max_weight_share=round(found.max_weight_share, 6),
    )


def _told(found: Estimate) -> dict[str, Any]:
    return {
        "method": str(found.method),
        "value": None if found.value is None else round(found.value, 6),
        "standard_error": None if found.standard_error is None else round(found.standard_error, 6),
        "interval": interval_of(found),
        "effective_sample_size": round(found.effective_sample_size, 1),
        "warnings": list(found.warnings),
    }


class Uniform:
    """Any candidate alike."""

    def shares(self, context: Mapping[str, Any], candidates: Candidates) -> Sequence[float]:
        return [1.0 / len(candidates)] * len(candidates)

    def learn(self, context: Mapping[str, Any], candidate: Mapping[str, Any], outcome: Mapping[str, Any]) -> None:
        """Nothing to learn."""


class Always(Uniform):
    """One agent whenever it is a candidate, otherwise any alike."""

    def __init__(self, agent: str) -> None:
        self.agent = agent

    def shares(self, context: Mapping[str, Any], candidates: Candidates) -> Sequence[float]:
        found = [float(one["agent"] == self.agent) for one in candidates]
        return found if any(found) else super().shares(context, candidates)


class AdaptiveTarget:
    """The adaptive policy, beginning without experience."""

    def __init__(self, price: float) -> None:
        self._policy = Adaptive(Options(price=price))

    def shares(self, context: Mapping[str, Any], candidates: Candidates) -> Sequence[float]:
        weighed = self._policy.choose(context, candidates).weighed
        shares = [0.0] * len(candidates)
        for place, share in zip(weighed.best.tolist(), weighed.probabilities.tolist(), strict=True):
            shares[place] += share
        return shares

    def learn(self, context: Mapping[str, Any], candidate: Mapping[str, Any], outcome: Mapping[str, Any]) -> None:
        self._policy.learn(context, candidate, outcome)


class RuleTarget:
    """A balancing rule: the choice it makes is its whole distribution."""

    def __init__(self, name: str) -> None:
        self._rule = Baseline(name)

    def shares(self, context: Mapping[str, Any], candidates: Candidates) -> Sequence[float]:
        agent, _, _ = self._rule.choose(context, candidates)
        return [float(one["agent"] == agent) for one in candidates]

    def learn(self, context: Mapping[str, Any], candidate: Mapping[str, Any], outcome: Mapping[str, Any]) -> None:
        self._rule.learn({"agent": candidate["agent"], "context": context}, outcome)


def _target(policy: str, price: float, own: Mapping[str, PolicyMaker]) -> Target:
    shipped: dict[str, Callable[[], Target]] = {UNIFORM: Uniform, ADAPTIVE: lambda: AdaptiveTarget(price)}
    if policy.startswith(ALWAYS):
        return Always(policy.removeprefix(ALWAYS))
    if policy in shipped:
        return shipped[policy]()
    if policy in RULES:
        return RuleTarget(policy)
    if policy in own:
        return OwnTarget(policy, own[policy])
    names = ", ".join((*shipped, *RULES, *own))
    raise NotFound(f"there is no policy {policy!r} to judge; there are {names} and always:<agent>")


def _costs(rows: Sequence[LoggedDecision]) -> dict[str, float]:
    """The newest price of each agent: of a large fleet a decision keeps only some."""
    return {candidate.agent: candidate.cost for one in rows for candidate in one.decision.candidates}


def _candidates(one: LoggedDecision, costs: Mapping[str, float]) -> Candidates:
    known = {candidate.agent: candidate for candidate in one.decision.candidates}
    return [
        {
            "agent": name,
            "cls": known[name].kind or name if name in known else name,
            "cost": known[name].cost if name in known else costs.get(name, 0.0),
        }
        for name in one.decision.agents
    ]


def _context(one: LoggedDecision) -> Mapping[str, Any]:
    context = one.decision.context
    vector = None
    if context is not None:
        vector = task_vector(
            context.features,
            context.embedding,
            payload_bytes=context.payload_bytes,
            requirements=context.requirements,
        )
    return {
        "task_id": one.decision.request_id,
        "task_type": one.decision.task_type,
        "features": vector,
        "now": one.decision.created_at,
    }


def _outcome(one: LoggedDecision) -> dict[str, Any]:
    success = one.status is TaskStatus.SUCCESS
    return {
        "success": success,
        "error": None if success else str(one.status),
        "quality": one.quality,
        "cost": one.cost,
        "now": one.decision.created_at,
    }
