"""The monitoring port of NATS servers: the only place that tells whether the disk has a message before it is acknowledged."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlsplit

import httpx2

from .api import NANOSECONDS
from .connection import Address
from .greeting import Greeting

PORT = 8222
CALL_SECONDS = 2.0


async def read_monitors(address: Address, greetings: list[Greeting], named: tuple[str, ...]) -> list[dict[str, Any]]:
    """One entry for each port that answered. Without names the usual port of each server is tried, and only believed when
    it is that server's own."""
    ids = {greeting.info.get("server_id") for greeting in greetings}
    usual = [f"http://{_bracketed(urlsplit(url).hostname or '')}:{PORT}" for url in address.urls]
    async with httpx2.AsyncClient(timeout=CALL_SECONDS, trust_env=False) as http:
        found = await asyncio.gather(*(_read(http, url.rstrip("/")) for url in named or usual))
    return [one for one in found if one is not None and (named or one["server_id"] in ids)]


async def _read(http: httpx2.AsyncClient, url: str) -> dict[str, Any] | None:
    try:
        told, streams = (await http.get(f"{url}/varz")).json(), (await http.get(f"{url}/jsz")).json()
        health = (await http.get(f"{url}/healthz")).json()
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError):
        return None
    if not all(isinstance(one, dict) for one in (told, streams, health)):
        return None
    jetstream = told.get("jetstream") or {}
    config, stats = jetstream.get("config") or {}, jetstream.get("stats") or {}
    return {
        "host": urlsplit(url).netloc,
        "server_id": told.get("server_id"),
        "server_name": told.get("server_name"),
        "sync_always": bool(config.get("sync_always")),
        "sync_seconds": config.get("sync_interval", 0) / NANOSECONDS,
        "max_storage": config.get("max_storage", 0),
        "storage": stats.get("storage", 0),
        "cluster_size": (streams.get("meta_cluster") or {}).get("cluster_size", 0),
        "health": health.get("status") if health.get("status") == "ok" else health.get("error") or health.get("status"),
        "http_host": told.get("http_host", ""),
        "https": bool(told.get("https_port")),
        "connections": told.get("connections", 0),
        "slow_consumers": told.get("slow_consumers", 0),
    }


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
