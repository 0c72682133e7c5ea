"""The strategies that come with the package, and policies of one's own beside them, each made when it is first wanted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from random import Random

from agent_engines.domain.errors import ConfigurationError
from agent_engines.domain.routing import LoadAware
from agent_engines.learning.baselines import RULES
from agent_engines.learning.policy import RoutingPolicy

from .adaptive_strategy import AdaptiveStrategy
from .learned import Learned
from .rule_strategy import LoadAwareStrategy, RuleStrategy, of_policy, rule_version
from .strategies import Maker
from .strategy import Strategy

ADAPTIVE, LOAD_AWARE = "adaptive", "load_aware"
SHIPPED = (ADAPTIVE, LOAD_AWARE, *RULES)
SHIPPED_VERSIONS = {
    AdaptiveStrategy.version: ADAPTIVE,
    LoadAware().version: LOAD_AWARE,
    **{rule_version(name): name for name in RULES},
}
PolicyMaker = Callable[[int], RoutingPolicy]
"""A policy of one's own from a seed."""


def makers(
    rng: Random, learned: Learned, *, price: float, policies: Mapping[str, PolicyMaker] | None = None
) -> dict[str, Maker]:
    """One maker for each name. Raises ConfigurationError when a policy of one's own takes a shipped name."""
    found: dict[str, Maker] = {
        ADAPTIVE: lambda: AdaptiveStrategy(seed=rng.getrandbits(32), price=price, learned=learned),
        LOAD_AWARE: lambda: LoadAwareStrategy(rng),
    }
    for name in RULES:
        found[name] = partial(_rule, name, rng)
    for name, make in (policies or {}).items():
        if name in found:
            raise ConfigurationError([f"a policy is called {name!r}, which is a strategy of Agent Engines: rename it"])
        found[name] = partial(_own, name, make, rng)
    return found


def _rule(name: str, rng: Random) -> Strategy:
    return RuleStrategy(name, seed=rng.getrandbits(32))


def _own(name: str, make: PolicyMaker, rng: Random) -> Strategy:
    return of_policy(name, make(rng.getrandbits(32)))
