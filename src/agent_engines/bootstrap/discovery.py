"""Discovery, for processes that were told of a registry; without one there are heartbeats, which is enough."""

from __future__ import annotations

from agent_engines.adapters.consul import ConsulDiscovery
from agent_engines.adapters.consul_client import ConsulClient
from agent_engines.config import Config
from agent_engines.ports.clock import Clock
from agent_engines.ports.discovery import Discovery, Instance
from agent_engines.ports.telemetry import Telemetry
from agent_engines.runtime.engine import Engine

EVERYWHERE = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - compared with, not bound to


def discovery_for(config: Config, clock: Clock, telemetry: Telemetry) -> Discovery | None:
    """Nothing is sent before `announce` or `follow`. None: CONSUL_URL is empty."""
    if not config.consul_url:
        return None
    client = ConsulClient(config.consul_url, token=config.consul_http_token)
    return ConsulDiscovery(client, clock=clock, telemetry=telemetry)


def instance_of(engine: Engine, host: str, port: int) -> Instance:
    """How a started engine is announced; one that listens everywhere lets the registry say under which address."""
    return Instance(
        agent=engine.config.agent_id,
        replica=engine.replica,
        engine=engine.agent_type,
        address="" if host in EVERYWHERE else host,
        port=port,
    )
