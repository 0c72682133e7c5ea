"""What an engine is given at start: one object per outside part, any of which a test may replace."""

from __future__ import annotations

from dataclasses import dataclass

from .bus import Bus
from .cache import Cache
from .clock import Clock
from .discovery import Discovery
from .ledger import Ledger
from .spool import Spool
from .telemetry import Telemetry


@dataclass(frozen=True, slots=True)
class Connections:
    """Custom engines need no ledger and no cache: reports carry everything to the recorder."""

    bus: Bus
    telemetry: Telemetry
    clock: Clock
    ledger: Ledger | None = None
    cache: Cache | None = None
    discovery: Discovery | None = None
    """Where other processes are, for information; None: known from heartbeats alone."""
    spool: Spool | None = None
    """Where a replica keeps its reports while the bus is away; None: in memory only."""
