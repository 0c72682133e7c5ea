"""Pacing: the price of money that makes the mean cost of a task meet a budget (primal-dual, online).

Each task that costs more than the pace raises the price, each that costs less lowers it. The pace itself makes up for what
was overspent or saved so far within WINDOW tasks, so the total stays on the budget and not only the rate.
"""

from __future__ import annotations

import math

RATE = 0.005
"""How much quality per budgeted cost one task that costs twice the pace adds to the price."""
WINDOW = 200.0
STEEPEST = 5.0
"""A single task moves the price at most as if it had cost this many times more than the pace."""


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
