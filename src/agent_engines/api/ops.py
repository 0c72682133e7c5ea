"""The HTTP application of every other engine: probes and metrics, nothing else, and light enough for hundreds of agents."""

from __future__ import annotations

from agent_engines.ports.telemetry import Telemetry

from .edge import Edge
from .limits import ApiLimits
from .operations import Metrics, OperationRoutes, Probed


def create_ops_app(probed: Probed, *, metrics: Metrics, telemetry: Telemetry) -> Edge:
    """An ASGI application with /health, /ready, /livez and /metrics."""
    edge = Edge(limits=ApiLimits(), log=telemetry.log("api"))
    edge.serve(OperationRoutes(probed, metrics, edge.draining.is_set).operations())
    return edge
