"""Config: every setting of a process, parsed and checked. Field names are the variables' names in lower case."""

from __future__ import annotations

from typing import Literal

import msgspec

from agent_engines.domain.errors import ConfigurationError

Source = Literal["flag", "environment", "file", ".env", "default"]


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Built by `load_config` only; `config/variables.py` says what each field means, its default and its range."""

    nats_url: str
    nats_creds: str
    nats_nkey: str
    nats_ca: str
    nats_cert: str
    nats_key: str
    postgres_url: str
    redis_url: str
    consul_url: str
    consul_http_token: str

    agent_id: str
    agent_max_concurrent_tasks: int
    agent_queue_size: int
    agent_task_timeout_seconds: float
    agent_heartbeat_interval: float
    agent_shutdown_grace_seconds: float
    agent_http_host: str
    agent_http_port: int

    postgres_pool_min: int
    postgres_pool_max: int

    circuit_breaker_threshold: int
    circuit_breaker_timeout: float

    log_level: str
    log_format: str
    enable_metrics: bool
    enable_tracing: bool
    jaeger_endpoint: str
    otel_exporter_otlp_endpoint: str
    otel_exporter_otlp_traces_endpoint: str
    otel_exporter_otlp_headers: str
    otel_service_name: str
    otel_resource_attributes: str
    otel_traces_sampler: str
    otel_traces_sampler_arg: str

    routing_strategy: str = "adaptive"
    routing_strategies: dict[str, str] = {}
    routing_fallback: str = "least_loaded"
    routing_price: float = 0.1
    routing_text: dict[str, str] = {}
    routing_hedging: bool = True
    routing_pacing: bool = True

    engines_profile: str
    engines_url: str
    engines_api_key: str
    engines_data_dir: str
    engines_max_body_bytes: int
    engines_retention_days: int
    engines_queue_max_tasks: int
    engines_lease_seconds: float
    engines_spool_dir: str
    engines_bus_replicas: int = 0
    engines_bus_sync: str = "interval"
    engines_bus_store_bytes: int = 0
    engines_capability_key: str

    traces_endpoint: str = ""
    """Where spans go (OTLP over HTTP), worked out from the OTEL_ and JAEGER_ variables."""
    sources: dict[str, Source] = {}
    warnings: tuple[str, ...] = ()
    """One readable line each; whoever owns the log says them once at start."""

    def __repr__(self) -> str:
        """Without values: a configuration in a log or traceback must not show secrets."""
        return f"Config(profile={self.engines_profile!r}, set={sorted(filter(self.explicit, self.sources))})"

    def explicit(self, name: str) -> bool:
        """Whether somebody set this variable, rather than taking its default."""
        return self.sources.get(name, "default") != "default"

    def require(self, *names: str) -> None:
        """Raises ConfigurationError naming each of these variables that is empty."""
        missing = [name for name in names if not getattr(self, name.lower())]
        if missing:
            raise ConfigurationError([f"{name} is not set, and this engine cannot run without it" for name in missing])

    @property
    def bus_sync_always(self) -> bool:
        """Whether the bus writes each message to the disk before it acknowledges it."""
        return self.engines_bus_sync == "always"

    @property
    def production(self) -> bool:
        return self.engines_profile == "production"
