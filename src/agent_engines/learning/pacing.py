"""Pacing: the price of money that keeps spending within a budget (primal-dual: the price is the budget's shadow price).

`Pacer`, for one policy and a mean cost a task: each task that costs more than the pace raises the price, each that costs
less lowers it. The pace itself makes up for what was overspent or saved so far within WINDOW tasks, so the total stays on
the budget and not only the rate.

`paced_price`, for a tenant and a period: a function of the account alone, so that all routers find the same price without
telling each other, and one that has just started knows it.
"""

from __future__ import annotations

import math

from agent_engines.domain.budgets import Pace

RATE = 0.005
"""How much quality per budgeted cost one task that costs twice the pace adds to the price."""
WINDOW = 200.0
STEEPEST = 5.0
"""A single task moves the price at most as if it had cost this many times more than the pace."""
STEEP = 16
"""The price is divided by the part of the pace that is left at this power: 5 times as much at nine tenths, 65,000 at half.

Costs may be whole units or ten-thousandths of one, so the price has to find its size by itself. With 8 a price 35,000 times
the usual one was reached when a quarter of the pace was left, and a budget for a fifth of the dear calls ended early.
"""
LEAST_LEFT = 0.17
"""Below this part of the pace the price, 10^12 times the usual one, rises no more: the cheapest agent is chosen anyway."""


class Pacer:
    """`budget`: mean cost a task, in the unit of costs, above 0."""

    def __init__(self, budget: float) -> None:
        if not 0.0 < budget < math.inf:
            raise ValueError(f"budget is {budget}, it must be a finite number above 0")
        self._budget = budget
        self._level = 0.0
        self._debt = 0.0

    @property
    def price(self) -> float:
        """Quality that one unit of cost has to bring."""
        return self._level / self._budget

    @property
    def debt(self) -> float:
        """What was spent beyond the budget so far; negative when something was saved."""
        return self._debt

    def spent(self, cost: float) -> None:
        """One task cost this much. Raises ValueError when that is no cost."""
        if not 0.0 <= cost < math.inf:
            raise ValueError(f"cost is {cost}, it must be a finite number from 0 up")
        pace = self._budget - self._debt / WINDOW
        pace = min(max(pace, 0.1 * self._budget), 2.0 * self._budget)
        step = min((cost - pace) / self._budget, STEEPEST)
        self._level = max(0.0, self._level + RATE * step)
        self._debt += cost - self._budget


def paced_price(pace: Pace, price: float) -> float | None:
    """The price of one unit of cost for a tenant, `price` being the usual one; None: it is on its pace, nothing changes.

    On its pace is who could spend evenly what is left of the budget in what is left of the period and would spend no
    less than the budget allows on average. A usual price of 0 stays 0: whoever set it does not pay for quality by cost.
    """
    ahead, to_go = pace.budget - pace.spent, 1.0 - pace.elapsed
    if pace.budget <= 0.0 or to_go <= 0.0:
        return None
    left = ahead / pace.budget / to_go
    return None if left >= 1.0 else price / max(left, LEAST_LEFT) ** STEEP
