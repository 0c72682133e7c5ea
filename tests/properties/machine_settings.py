"""How long state machines run: some hundred examples in the ordinary suite, MACHINE_EXAMPLES=10000 in `make chaos`."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

EXAMPLES = int(os.environ.get("MACHINE_EXAMPLES", "100"))


def machine(*, steps: int = 30) -> settings:
    """For `TestCase.settings`."""
    return settings(
        max_examples=EXAMPLES, stateful_step_count=steps, deadline=None, suppress_health_check=list(HealthCheck)
    )
