"""What the front doors may do about the policy that routes."""

from __future__ import annotations

from typing import Protocol

from agent_engines.domain.policy_word import PolicyChange, PolicyOrder


class PolicyService(Protocol):
    """Policies are named by strategy or by version. Both return when this router has changed over; the others follow within seconds.

    Every method raises Unavailable; whether anything was changed is then unknown.
    """

    async def promote(self, policy: str, order: PolicyOrder) -> PolicyChange:
        """Let it decide from now on, if the recorded decisions speak for it or the order is forced.

        Raises NotFound (no such policy), InvalidRequest (the field named), Conflict (cannot be run, is active already, the
        evidence with its numbers, or another change was faster).
        """
        ...

    async def rollback(self, policy: str, order: PolicyOrder) -> PolicyChange:
        """Leave this active policy for what was active before. Raises NotFound, InvalidRequest, Conflict (it is not active)."""
        ...
