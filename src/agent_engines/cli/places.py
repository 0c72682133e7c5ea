"""Which servers a command looks at: those of the installation named by --data-dir, else the configured ones, else those that run here."""

from __future__ import annotations

from agent_engines.bootstrap.preflight import Places
from agent_engines.config import Config
from agent_engines.config.client_url import read_endpoints


def places_of(config: Config, *, monitors: tuple[str, ...] = ()) -> Places:
    """`engines up` decides its own addresses, whatever the environment says; a folder named as a flag means that one."""
    running = read_endpoints(config)
    preferred = config.sources.get("ENGINES_DATA_DIR") == "flag"

    def place(variable: str, key: str, configured: str) -> str:
        found = running.get(key)
        there = found if isinstance(found, str) else ""
        own = configured if config.explicit(variable) else ""
        return (there or own if preferred else own or there) or configured

    nats = place("NATS_URL", "nats_url", config.nats_url)
    monitor = running.get("nats_monitor_url")
    if not monitors and isinstance(monitor, str) and nats == running.get("nats_url"):
        monitors = (monitor,)
    return Places(
        nats=nats,
        postgres=place("POSTGRES_URL", "postgres_url", config.postgres_url),
        redis=place("REDIS_URL", "redis_url", config.redis_url),
        consul=config.consul_url,
        monitors=monitors,
    )
