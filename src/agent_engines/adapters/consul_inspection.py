"""Reading what Consul says about itself."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import httpx2

from agent_engines.domain.errors import Unavailable
from agent_engines.domain.preflight.finding import Unread

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
CALL_SECONDS = 2.0
DENIED = (401, 403)


async def read_consul(url: str, token: str, facts: dict[str, Any]) -> None:
    """Fill in what rules ask about (domain/preflight/consul.py). Raises Unavailable."""
    parts = urlsplit(url)
    facts |= {"tls": parts.scheme == "https", "local": parts.hostname in LOOPBACK}
    ours = {"X-Consul-Token": token} if token else {}
    try:
        async with httpx2.AsyncClient(base_url=url, timeout=CALL_SECONDS, trust_env=False) as http:
            leader = await http.get("/v1/status/leader", headers=ours)
            nobody = await http.get("/v1/agent/self")
            agent = await http.get("/v1/agent/self", headers=ours)
        facts["leader"] = leader.status_code == 200 and bool(leader.json())
        facts["anonymous"] = _anonymous(nobody.status_code)
        told = agent.json() if agent.status_code == 200 else {}
        facts["version"] = (told.get("Config") or {}).get("Version") or Unread(f"Consul answered {agent.status_code}")
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
        raise Unavailable(f"Consul does not answer: {type(error).__name__}") from None


def _anonymous(status: int) -> str | Unread:
    if status == 200:
        return "accepted"
    return "refused" if status in DENIED else Unread(f"Consul answered {status}")
