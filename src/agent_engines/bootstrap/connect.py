"""Configuration in, open connections out; used by every kind of process."""

from __future__ import annotations

import ssl

from agent_engines.adapters.clock import SystemClock
from agent_engines.adapters.jetstream.bus import JetStreamBus
from agent_engines.adapters.jetstream.connection import Security
from agent_engines.adapters.jetstream.streams import Limits
from agent_engines.adapters.telemetry.telemetry import ProcessTelemetry, create_telemetry
from agent_engines.config import Config
from agent_engines.domain.errors import ConfigurationError
from agent_engines.ports.connections import Connections

from .discovery import discovery_for


def telemetry_for(config: Config, engine: str) -> ProcessTelemetry:
    """Telemetry of this process; says the configuration's warnings once."""
    telemetry = create_telemetry(config, engine)
    log = telemetry.log(engine)
    for warning in config.warnings:
        log.warning("Configuration warning", detail=warning)
    return telemetry


async def connect_bus(config: Config, telemetry: ProcessTelemetry, name: str) -> Connections:
    """Bus, clock and telemetry: all that a custom engine needs. Raises ConfigurationError, Unavailable."""
    config.require("NATS_URL")
    bus = await JetStreamBus.connect(
        config.nats_url,
        name=name,
        lease_seconds=config.engines_lease_seconds,
        limits=Limits(
            max_tasks_per_class=config.engines_queue_max_tasks,
            replicas=config.engines_bus_replicas,
            sync_always=config.bus_sync_always,
            store_bytes=config.engines_bus_store_bytes,
        ),
        security=bus_security(config),
        log=telemetry.log("bus"),
    )
    try:
        await bus.provision()
    except BaseException:
        await bus.close()
        raise
    clock = SystemClock()
    return Connections(bus=bus, telemetry=telemetry, clock=clock, discovery=discovery_for(config, clock, telemetry))


def bus_security(config: Config) -> Security:
    """Credentials and certificates for the bus. Raises ConfigurationError when a file cannot be used."""
    tls = None
    if config.nats_ca or config.nats_cert:
        try:
            tls = ssl.create_default_context(cafile=config.nats_ca or None)
            if config.nats_cert:
                tls.load_cert_chain(config.nats_cert, config.nats_key or None)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError([f"NATS_CA, NATS_CERT or NATS_KEY cannot be used: {error}"]) from error
    return Security(credentials_file=config.nats_creds or None, nkey_seed_file=config.nats_nkey or None, tls=tls)
