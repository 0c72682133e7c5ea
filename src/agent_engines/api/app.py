"""The intelligence engine's HTTP application: every route, joined."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

from agent_engines.dashboard import STATIC
from agent_engines.ports.clock import Clock
from agent_engines.ports.service import IntelligenceService
from agent_engines.ports.telemetry import Telemetry

from .agents import AgentRoutes
from .batches import BatchRoutes
from .dead_letters import DeadLetterRoutes
from .decisions import DecisionRoutes
from .edge import Edge
from .engines import EngineRoutes
from .events import EventRoutes
from .feedback import FeedbackRoutes
from .limits import ApiLimits
from .openapi import document
from .operations import Metrics, OperationRoutes
from .overview import OverviewRoutes
from .pages import Pages
from .policies import PolicyRoutes
from .routing import Operation
from .schedules import ScheduleRoutes
from .tasks import TaskRoutes
from .tenants import TenantRoutes
from .waits import WaitRoutes


def create_app(
    service: IntelligenceService,
    *,
    limits: ApiLimits,
    metrics: Metrics,
    telemetry: Telemetry,
    clock: Clock,
    version: str,
    dashboard: Path | None = STATIC,
) -> Edge:
    """An ASGI application. `dashboard` is the folder of the pages served at `/`; None: no pages."""
    log = telemetry.log("api")
    edge = Edge(limits=limits, log=log)
    groups = (
        TaskRoutes(service, limits),
        BatchRoutes(service, limits),
        WaitRoutes(service, limits),
        EventRoutes(service, limits, log, edge.draining),
        FeedbackRoutes(service, limits),
        DecisionRoutes(service, limits, clock),
        AgentRoutes(service),
        DeadLetterRoutes(service, limits),
        TenantRoutes(service, limits, clock),
        ScheduleRoutes(service, limits),
        EngineRoutes(service),
        PolicyRoutes(service, limits),
        OverviewRoutes(service, clock),
        OperationRoutes(service, metrics, edge.draining.is_set),
    )
    operations = list(chain.from_iterable(group.operations() for group in groups))

    def describe() -> dict[str, Any]:
        return document(operations, version=version)

    pages: list[Operation] = Pages(dashboard, describe).operations()
    edge.serve([*operations, *pages])
    return edge
