"""What a measurement needs of the machine: CPU seconds and memory of process trees, percentiles, one JSON line out."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from agent_engines.domain.percentiles import nearest_rank
from agent_engines.testing.processes import cpu_seconds

__all__ = ["cpu_seconds", "memory_mib", "percentile", "tell"]
PAGE = os.sysconf("SC_PAGE_SIZE")


def memory_mib(pid: int) -> float:
    """Resident memory now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE / 2**20


def percentile(values: Sequence[float], share: float) -> float:
    """Nearest rank; of at least one value."""
    found = nearest_rank(sorted(values), share)
    assert found is not None
    return found


def tell(**figures: float) -> None:
    """The driver's answer to whoever started it."""
    print(json.dumps({name: round(value, 6) for name, value in figures.items()}), flush=True)
