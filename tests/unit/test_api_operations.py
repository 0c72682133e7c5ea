"""Probes and metrics of every engine."""

from __future__ import annotations

import subprocess
import sys

import httpx2
import pytest

from agent_engines.api.ops import create_ops_app
from agent_engines.ports.service import Health, Readiness
from api_house import House, KeptTelemetry, describe_metrics, house_fixture, open_house

house = house_fixture()
pytestmark = pytest.mark.asyncio(loop_scope="module")


class Engine:
    """An engine whose state the test decides."""

    def __init__(self, health: Health, readiness: Readiness) -> None:
        self._health = health
        self._readiness = readiness

    async def health(self) -> Health:
        return self._health

    async def ready(self) -> Readiness:
        return self._readiness


def ops(health: Health, readiness: Readiness) -> httpx2.AsyncClient:
    app = create_ops_app(Engine(health, readiness), metrics=describe_metrics, telemetry=KeptTelemetry())
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://engines.test")


async def test_a_sound_engine_says_so_in_the_words_of_the_contract(house: House) -> None:
    health = await house.http.get("/health")
    assert health.status_code == 200
    assert health.json() == {"status": "healthy", "checks": {"nats": True, "postgres": True, "redis": True}}
    ready = await house.http.get("/ready")
    assert ready.status_code == 200
    assert ready.json() == {"status": "ready"}


async def test_a_server_that_is_away_is_named() -> None:
    async with open_house() as house:
        house.bus.switch(False)
        answer = await house.http.get("/health")
        alive = await house.http.get("/livez")
        house.bus.switch(True)
    assert answer.status_code == 503
    assert answer.json()["status"] == "unhealthy"
    assert answer.json()["checks"] == {"nats": False, "postgres": True, "redis": True}
    assert alive.status_code == 200


async def test_other_engines_answer_the_same_probes() -> None:
    async with ops(Health("healthy", {"nats": True}), Readiness("ready")) as http:
        assert (await http.get("/health")).json() == {"status": "healthy", "checks": {"nats": True}}
        assert (await http.get("/ready")).json() == {"status": "ready"}
        assert (await http.get("/livez")).json() == {"status": "alive"}
        metrics = await http.get("/metrics")
        assert metrics.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert metrics.content == describe_metrics()[0]
        assert (await http.get("/v1/tasks")).status_code == 404


async def test_an_engine_that_is_not_ready_says_why() -> None:
    async with ops(Health("unhealthy", {"nats": False}), Readiness("not_ready", "no agent was heard from")) as http:
        ready = await http.get("/ready")
        health = await http.get("/health")
    assert ready.status_code == 503
    assert ready.json()["detail"] == "no agent was heard from"
    assert "retry-after" in ready.headers
    assert health.status_code == 503
    assert health.json() == {"status": "unhealthy", "checks": {"nats": False}}


async def test_probes_are_never_remembered(house: House) -> None:
    for path in ("/health", "/ready", "/livez", "/metrics"):
        assert (await house.http.get(path)).headers["cache-control"] == "no-store"


async def test_an_agent_process_loads_no_web_framework() -> None:
    """There may be hundreds of them on a machine."""
    code = (
        "import sys, agent_engines.api.ops\n"
        "heavy = {'fastapi', 'starlette', 'pydantic', 'uvicorn', 'httpx2', 'nats', 'asyncpg', 'opentelemetry'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.strip() == "[]"
