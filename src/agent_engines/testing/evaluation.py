"""The policy by itself, for evaluators, simulators and notebooks: no server, no event loop, deterministic for a seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from agent_engines.domain.off_policy import Estimate, doubly_robust, gain, ips, snips, weights
from agent_engines.learning.adaptive import Adaptive, Options
from agent_engines.learning.baselines import RULES, Baseline
from agent_engines.learning.given import number
from agent_engines.learning.reward_model import cross_fitted

MOST_RACES = 10_000
"""Hedged tasks whose end is awaited at the same time."""
Context = Mapping[str, Any]
Candidates = Sequence[Mapping[str, Any]]
Target = Callable[[Context, Candidates], Sequence[float]]


class Policy(Protocol):
    """What every strategy offers here; `AdaptivePolicy` says what the mappings hold."""

    def choose(self, context: Context, candidates: Candidates) -> tuple[str, float, float]: ...

    def learn(self, decision: Mapping[str, Any], outcome: Mapping[str, Any]) -> None: ...

    def on_report(self, agent: str, report: Mapping[str, Any], now: float) -> None: ...

    def on_probe(self, agent: str, report: Mapping[str, Any], now: float) -> None: ...


class AdaptivePolicy:
    """The adaptive policy, driven by plain mappings. `lam`: price of one unit of cost; `options`: see Options.

    context: task_id, task_type, features (floats or None), priority, deadline_s, now?, work_hint? (seconds), lam?
    candidates: mappings with agent, cost, slots?, cls? (the kind it is a replica of).
    """

    def __init__(self, seed: int = 0, lam: float = 0.1, routers: int = 1, **options: Any) -> None:
        self._policy = Adaptive(Options(price=lam, **options), seed=seed, routers=routers)
        self._second: dict[str, str] = {}
        """The agent of the second leg of hedged tasks."""

    def choose(self, context: Context, candidates: Candidates) -> tuple[str, float, float]:
        """(agent, confidence, propensity). Raises ValueError naming what cannot be used."""
        task_id = context.get("task_id")
        second = task_id is not None and self._policy.under_way(str(task_id))
        choice = self._policy.choose(context, candidates)
        if second:
            self._second[str(task_id)] = choice.agent
            if len(self._second) > MOST_RACES:
                del self._second[next(iter(self._second))]
        return choice.agent, choice.confidence, choice.probability

    def learn(self, decision: Mapping[str, Any], outcome: Mapping[str, Any]) -> None:
        """`decision`: context, candidates, agent, confidence, propensity; `outcome`: quality, success, error, cost, ...

        Every call teaches: whoever may hear of an outcome twice keeps the once. Raises ValueError (an agent that was no
        candidate, a quality outside 0..1, a number that is none); then nothing was taken in.
        """
        agent = decision["agent"]
        if self._second and not outcome.get("error") and not outcome.get("cancelled"):
            second = self._second.pop(str(decision["context"].get("task_id")), None)
            if second is not None:
                self._policy.raced(won=second == agent)
        for candidate in decision["candidates"]:
            if candidate["agent"] == agent:
                self._policy.learn(decision["context"], candidate, outcome)
                return
        raise ValueError(f"agent {agent!r} is not among the candidates of this decision")

    def on_report(self, agent: str, report: Mapping[str, Any], now: float) -> None:
        """A replica's load report: rif, lat, util, rate. Raises ValueError naming what cannot be used."""
        self._policy.report(agent, number("rif", report.get("rif")) or 0.0, number("now", now) or 0.0)

    def on_probe(self, agent: str, report: Mapping[str, Any], now: float) -> None:
        """The answer to a probe."""
        self.on_report(agent, report, now)

    def hedge_after(self, decision: Mapping[str, Any]) -> float | None:
        """Seconds after which a second replica should be asked too; None: never (no budget, too busy, context forbids it)."""
        context = decision["context"]
        if not context.get("hedge", True):
            return None
        return self._policy.hedge_after(str(context.get("task_id")), str(decision["agent"]))

    def hedged(self) -> None:
        """A second replica was asked."""
        self._policy.hedged()


def policy(name: str, seed: int = 0, **options: Any) -> Policy:
    """Any strategy by name: adaptive, random, round_robin, least_loaded, ... Raises ValueError naming those there are."""
    if name == "adaptive":
        return AdaptivePolicy(seed=seed, **options)
    if name not in RULES:
        raise ValueError(f"there is no strategy {name!r}; there are {', '.join(sorted(STRATEGIES))}")
    return Baseline(name, seed=seed, routers=int(options.get("routers", 1)))


STRATEGIES = ("adaptive", *RULES)


class Estimated(NamedTuple):
    """What a target policy would have earned per decision, judged from another one's log."""

    value: float | None
    standard_error: float | None
    interval: tuple[float | None, float | None]
    effective_sample_size: float
    warnings: tuple[str, ...]


def estimate(logs: Sequence[Mapping[str, Any]], target: Target, method: str = "dr") -> Estimated:
    """Judge `target(context, candidates) -> probabilities` from logs of another policy.

    A log: context, candidates, agent, propensity, reward. `method`: ips, snips, dr. Raises ValueError naming the bad row.
    """
    if method not in ("ips", "snips", "dr"):
        raise ValueError(f"there is no method {method!r}; there are ips, snips and dr")
    wanted, weight, reward = _columns(logs, target)
    if method == "ips":
        return _estimated(ips(weight, reward))
    if method == "snips":
        return _estimated(snips(weight, reward))
    return _estimated(doubly_robust(weight, reward, *_predicted(logs, wanted, reward)))


def estimate_gain(logs: Sequence[Mapping[str, Any]], target: Target) -> Estimated:
    """By how much `target` would have earned more per decision than the policy that made the logs: cross-fitted, doubly robust.

    The interval is that of the difference: `interval[0] > 0` is the test a promotion has to pass. Logs as for `estimate`.
    """
    wanted, weight, reward = _columns(logs, target)
    return _estimated(gain(weight, reward, *_predicted(logs, wanted, reward)))


Rows = np.ndarray[Any, np.dtype[np.float64]]


def _columns(logs: Sequence[Mapping[str, Any]], target: Target) -> tuple[list[Rows], Rows, Rows]:
    """The target's probabilities, the weights and the rewards of each row."""
    if not logs:
        raise ValueError("logs is empty: there is nothing to judge from")
    wanted = [_probabilities(target, log, place) for place, log in enumerate(logs)]
    chosen = [_position(log, place) for place, log in enumerate(logs)]
    weight = weights(
        [float(shares[at]) for shares, at in zip(wanted, chosen, strict=True)],
        [_told(log, "propensity", place) for place, log in enumerate(logs)],
    )
    return wanted, weight, np.array([_told(log, "reward", place) for place, log in enumerate(logs)])


def _told(log: Mapping[str, Any], field: str, place: int) -> float:
    told = number(f"row {place}: {field}", log.get(field))
    if told is None:
        raise ValueError(f"row {place}: {field} is missing")
    if field == "propensity" and not 0.0 < told <= 1.0:
        raise ValueError(f"row {place}: propensity {told} is not in (0, 1]")
    return told


def _predicted(logs: Sequence[Mapping[str, Any]], wanted: Sequence[Rows], reward: Rows) -> tuple[Rows, Rows]:
    """What a reward model that never saw the row predicts for the logged choice, and on average for the target's."""
    names = sorted({str(one["agent"]) for log in logs for one in log["candidates"]})
    column = {name: place for place, name in enumerate(names)}
    model = cross_fitted([log["context"] for log in logs], [str(log["agent"]) for log in logs], reward, names)
    logged = np.array([model[row, column[str(log["agent"])]] for row, log in enumerate(logs)])
    mean = np.array(
        [
            sum(
                float(share) * model[row, column[str(one["agent"])]]
                for share, one in zip(wanted[row], log["candidates"], strict=True)
            )
            for row, log in enumerate(logs)
        ]
    )
    return logged, mean


def _probabilities(target: Target, log: Mapping[str, Any], place: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    shares = np.asarray(target(log["context"], log["candidates"]), dtype=np.float64)
    if shares.shape != (len(log["candidates"]),) or not np.isfinite(shares).all() or (shares < 0.0).any():
        raise ValueError(f"row {place}: target must give one probability for each candidate")
    if abs(float(shares.sum()) - 1.0) > 1e-6:
        raise ValueError(f"row {place}: the target's probabilities sum to {float(shares.sum()):.6g}, not 1")
    return shares


def _position(log: Mapping[str, Any], place: int) -> int:
    for at, one in enumerate(log["candidates"]):
        if one["agent"] == log["agent"]:
            return at
    raise ValueError(f"row {place}: agent {log['agent']!r} is not among its candidates")


def _estimated(found: Estimate) -> Estimated:
    return Estimated(
        found.value, found.standard_error, (found.low, found.high), found.effective_sample_size, found.warnings
    )
