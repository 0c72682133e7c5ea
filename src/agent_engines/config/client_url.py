"""Where a client finds the system when nobody told it: ENGINES_URL, NATS_URL, what runs here, the default port."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from .settings import Config

ENDPOINTS_FILE = "endpoints.json"


def client_url(config: Config, *, http_only: bool = False) -> str:
    """The URL a client connects to. `http_only`: skip the bus (the command line speaks HTTP)."""
    if config.engines_url:
        return config.engines_url
    if config.explicit("NATS_URL") and not http_only:
        return config.nats_url
    running = read_endpoints(config).get("http_url")
    return running if isinstance(running, str) and running else f"http://127.0.0.1:{config.agent_http_port or 8080}"


def read_endpoints(config: Config) -> dict[str, Any]:
    """What `engines up` wrote into the data folder; empty when nothing runs there."""
    try:
        return msgspec.json.decode((Path(config.engines_data_dir) / ENDPOINTS_FILE).read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError):
        return {}
