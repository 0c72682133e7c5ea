"""The clients users import: they know the environment and both ways to the system."""

from __future__ import annotations

from agent_engines import client
from agent_engines.adapters.jetstream.bus import JetStreamBus
from agent_engines.adapters.telemetry.ambient import current_traceparent
from agent_engines.bootstrap.connect import bus_security
from agent_engines.client.bus_transport import BusTransport
from agent_engines.client.client import connect_http
from agent_engines.client.options import ClientOptions
from agent_engines.client.transport import Transport
from agent_engines.config import load_config
from agent_engines.config.client_url import client_url


async def connect(url: str | None, options: ClientOptions) -> Transport:
    """HTTP or the bus, by the URL's scheme. None: ENGINES_URL, else NATS_URL, else what `engines up` runs here."""
    config = load_config()
    chosen = url or client_url(config)
    if not options.api_key and config.engines_api_key:
        options = options.with_api_key(config.engines_api_key)
    if chosen.partition("://")[0] in ("nats", "tls"):
        bus = await JetStreamBus.connect(chosen, name="agent-engines-client", security=bus_security(config))
        return await BusTransport.open(bus, options)
    return await connect_http(chosen, options)


class Client(client.Client):
    """See agent_engines.client.Client. `Client()` finds the system by the environment."""

    connector = staticmethod(connect)
    _traceparent = staticmethod(current_traceparent)


class SyncClient(client.SyncClient):
    """See agent_engines.client.SyncClient. `SyncClient()` finds the system by the environment."""

    client_class = Client
