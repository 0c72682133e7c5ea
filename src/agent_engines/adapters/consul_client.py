"""The few calls of Consul's HTTP API that discovery needs, each with a deadline."""

from __future__ import annotations

from typing import Any

import msgspec

from agent_engines.domain.errors import Unavailable
from agent_engines.ports.discovery import Instance

SERVICE = "agent-engines"
CALL_SECONDS = 2.0
CONNECT_SECONDS = 1.0
WAIT_SECONDS = 60.0
"""How long a blocking query may hold; the server adds up to a sixteenth so that clients do not all return at once."""
TTL_SECONDS = 15.0
REAP_SECONDS = 60.0
"""Consul's smallest `DeregisterCriticalServiceAfter`; its reaper runs at its own pace."""


class _Service(msgspec.Struct, frozen=True):
    ID: str
    Address: str = ""
    Port: int = 0
    Meta: dict[str, str] | None = None


class _Node(msgspec.Struct, frozen=True):
    Address: str = ""


class _Entry(msgspec.Struct, frozen=True):
    Service: _Service
    Node: _Node = _Node()


_decode_entries = msgspec.json.Decoder(list[_Entry]).decode


class ConsulClient:
    """One agent's API at `url`. Every method raises Unavailable, which never tells the address or the token."""

    def __init__(self, url: str, *, token: str = "") -> None:
        # Loaded when Consul is used: hundreds of agents on one machine do without.
        import httpx2  # noqa: PLC0415

        self._errors = (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, OSError)
        self._timeout = httpx2.Timeout(CALL_SECONDS, connect=CONNECT_SECONDS)
        self._patient = httpx2.Timeout(
            CALL_SECONDS, connect=CONNECT_SECONDS, read=WAIT_SECONDS * 17 / 16 + CALL_SECONDS
        )
        self._http = httpx2.AsyncClient(
            base_url=url, headers={"X-Consul-Token": token} if token else {}, trust_env=False, timeout=self._timeout
        )

    async def register(self, instance: Instance) -> None:
        """Known and passing from now on, until the TTL runs out."""
        service = {
            "ID": instance.replica,
            "Name": SERVICE,
            "Tags": sorted({instance.agent, instance.engine}),
            "Address": instance.address,
            "Port": instance.port,
            "Meta": {"agent": instance.agent, "engine": instance.engine},
            "Check": {
                "TTL": f"{TTL_SECONDS:g}s",
                "Status": "passing",
                "DeregisterCriticalServiceAfter": f"{REAP_SECONDS:g}s",
            },
        }
        await self._call("PUT", "/v1/agent/service/register", json=service, params={"replace-existing-checks": "true"})

    async def passing(self, instance: Instance) -> None:
        """Renew the TTL. Unavailable also when the agent has forgotten the service."""
        await self._call("PUT", f"/v1/agent/check/pass/service:{instance.replica}")

    async def deregister(self, instance: Instance) -> None:
        await self._call("PUT", f"/v1/agent/service/deregister/{instance.replica}")

    async def instances(self, index: int, *, wait: float = WAIT_SECONDS) -> tuple[tuple[Instance, ...], int]:
        """Passing instances and the index they hold for; with an index > 0, waits up to `wait` seconds for another one."""
        params = {"passing": "true"}
        if index > 0:
            params |= {"index": str(index), "wait": f"{wait:g}s"}
        answer = await self._call("GET", f"/v1/health/service/{SERVICE}", params=params, timeout=self._patient)
        try:
            entries = _decode_entries(answer.content)
        except msgspec.MsgspecError as error:
            raise Unavailable(f"Consul's list could not be read: {error}") from None
        return tuple(map(_instance, entries)), _whole(answer.headers.get("x-consul-index"))

    async def leader(self) -> bool:
        """Whether the cluster has a leader: the cheapest question that needs more than the agent's process."""
        return (await self._call("GET", "/v1/status/leader")).content.strip() not in (b"", b'""')

    async def close(self) -> None:
        await self._http.aclose()

    async def _call(self, method: str, path: str, *, timeout: Any = None, **options: Any) -> Any:
        try:
            answer = await self._http.request(method, path, timeout=timeout or self._timeout, **options)
        except self._errors as error:
            raise Unavailable(f"Consul does not answer: {type(error).__name__}") from None
        if answer.status_code != 200:
            raise Unavailable(f"Consul answered {answer.status_code}")
        return answer


def next_index(before: int, now: int) -> int:
    """The index to wait past: start over when it went backwards, and at least 1, for 0 would not wait at all.

    Consul, HTTP API, "Blocking queries".
    """
    return 0 if now < before else max(1, now)


def _instance(entry: _Entry) -> Instance:
    meta = entry.Service.Meta or {}
    return Instance(
        agent=meta.get("agent", ""),
        replica=entry.Service.ID,
        engine=meta.get("engine", ""),
        address=entry.Service.Address or entry.Node.Address,
        port=entry.Service.Port,
    )


def _whole(text: str | None) -> int:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 20 else 0
