"""Discovery by Consul: found while it is there, the last list while it is not, and never the reason of anything.

Runs against a stand-in, and against a real agent as well where `consul` is installed (`scripts/get_consul.sh`; CI does).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent_engines.adapters import consul as consul_module
from agent_engines.adapters import consul_client
from agent_engines.adapters.clock import SystemClock
from agent_engines.adapters.consul import ConsulDiscovery
from agent_engines.adapters.consul_client import ConsulClient, next_index
from agent_engines.adapters.memory.telemetry import NullTelemetry
from agent_engines.domain.errors import Unavailable
from agent_engines.ports.discovery import Instance
from agent_engines.runtime.dependency import METRIC
from consul_house import KINDS, RealConsul, StandIn, free_port, running

ONE = Instance(agent="summarizer", replica="r1", engine="nlp", address="127.0.0.1", port=8081)
OTHER = Instance(agent="intelligence", replica="r2", engine="intelligence", address="", port=8080)


@pytest.fixture(params=KINDS)
async def consul(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StandIn | RealConsul]:
    async with running(request.param, tmp_path) as server:
        yield server


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pauses of a real installation, shortened."""
    monkeypatch.setattr(consul_module, "AGAIN_SECONDS", 0.1)
    monkeypatch.setattr(consul_module, "CALM_SECONDS", 0.02)
    monkeypatch.setattr(consul_module, "RENEW_SECONDS", 0.2)


class Process:
    def __init__(self, url: str, token: str = "") -> None:
        self.telemetry = NullTelemetry(debug=True)
        self.discovery = ConsulDiscovery(ConsulClient(url, token=token), clock=SystemClock(), telemetry=self.telemetry)

    def names(self) -> set[str]:
        return {peer.replica for peer in self.discovery.peers()}


@asynccontextmanager
async def process(url: str, token: str = "") -> AsyncIterator[Process]:
    one = Process(url, token)
    try:
        yield one
    finally:
        await one.discovery.close()


async def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def test_processes_find_each_other_and_see_each_other_go(consul: StandIn | RealConsul) -> None:
    async with process(consul.url) as watcher, process(consul.url) as one, process(consul.url) as other:
        watcher.discovery.follow()
        one.discovery.announce(ONE)
        other.discovery.announce(OTHER)
        await until(lambda: watcher.names() == {"r1", "r2"})
        found = {peer.replica: peer for peer in watcher.discovery.peers()}
        assert found["r1"] == ONE
        # Who listens everywhere is found under the address its machine is known by.
        assert (found["r2"].url, found["r2"].engine) == ("http://127.0.0.1:8080", "intelligence")
        assert await watcher.discovery.check()
        await one.discovery.withdraw()
        await until(lambda: watcher.names() == {"r2"})


async def test_a_process_that_dies_runs_out(consul: StandIn | RealConsul, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consul_client, "TTL_SECONDS", 1.0)
    async with process(consul.url) as watcher, process(consul.url) as survivor:
        watcher.discovery.follow()
        survivor.discovery.announce(OTHER)
        async with process(consul.url) as mortal:
            mortal.discovery.announce(ONE)
            await until(lambda: watcher.names() == {"r1", "r2"})
        # Closed without a farewell, as a killed process would be: nobody renews its check any more.
        await until(lambda: watcher.names() == {"r2"})


async def test_a_consul_that_is_gone_leaves_the_last_list_and_its_return_is_noticed(
    consul: StandIn | RealConsul,
) -> None:
    async with process(consul.url) as watcher, process(consul.url) as one:
        watcher.discovery.follow()
        one.discovery.announce(ONE)
        await until(lambda: watcher.names() == {"r1"})
        await consul.stop()
        gauge = METRIC, (("dependency", "consul"),)
        await until(lambda: watcher.telemetry.gauges[gauge] == 2.0)
        assert watcher.names() == {"r1"}
        assert not await watcher.discovery.check()
        # What comes back has forgotten everything and counts from the beginning.
        await consul.start()
        await until(lambda: one.telemetry.messages("info").count("Registered with Consul") == 2)
        await until(lambda: watcher.telemetry.gauges[gauge] == 0.0 and watcher.names() == {"r1"})


async def test_a_service_that_consul_forgot_is_registered_again(consul: StandIn | RealConsul) -> None:
    async with process(consul.url) as one, process(consul.url) as watcher:
        watcher.discovery.follow()
        one.discovery.announce(ONE)
        await until(lambda: watcher.names() == {"r1"})
        client = ConsulClient(consul.url)
        await client.deregister(ONE)
        await client.close()
        await until(lambda: one.telemetry.messages("info").count("Registered with Consul") == 2)
        await until(lambda: watcher.names() == {"r1"})


async def test_a_blocking_query_waits_for_a_change(consul: StandIn | RealConsul) -> None:
    client = ConsulClient(consul.url)
    try:
        await client.register(OTHER)
        found, index = await client.instances(0)
        assert [one.replica for one in found] == ["r2"]
        assert index > 0
        waiting = asyncio.ensure_future(client.instances(index))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        await client.register(ONE)
        found, later = await waiting
        assert {one.replica for one in found} == {"r1", "r2"}
        assert later > index
    finally:
        await client.close()


async def test_an_address_where_nobody_is_stops_nothing() -> None:
    async with process(f"http://127.0.0.1:{free_port()}") as one:
        one.discovery.announce(ONE)
        one.discovery.follow()
        await until(lambda: one.telemetry.gauges[METRIC, (("dependency", "consul"),)] == 2.0)
        assert one.discovery.peers() == ()
        assert not await one.discovery.check()
        await one.discovery.withdraw()


@pytest.mark.parametrize(
    "garbage",
    [
        b"not http at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnull",
        b'HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[{"a":1}]',
        b"HTTP/1.1 200 OK\r\nX-Consul-Index: -5\r\nContent-Length: 2\r\n\r\n{]",
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 17\r\n\r\nPermission denied",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n",
    ],
)
async def test_nonsense_leaves_the_last_list(garbage: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consul_client, "CALL_SECONDS", 0.5)
    monkeypatch.setattr(consul_client, "WAIT_SECONDS", 0.2)
    server = StandIn()
    await server.start()
    try:
        async with process(server.url) as one:
            one.discovery.announce(ONE)
            one.discovery.follow()
            await until(lambda: one.names() == {"r1"})
            server.garbage = garbage
            asked = len(server.requests)
            await until(lambda: len(server.requests) > asked + 4)
            assert one.names() == {"r1"}
            server.garbage = None
            await until(lambda: one.discovery._dependency.away is False and one.names() == {"r1"})
    finally:
        await server.stop()


async def test_the_token_is_sent_and_never_told(caplog: pytest.LogCaptureFixture) -> None:
    server = StandIn()
    await server.start()
    async with process(server.url, "very-secret") as one:
        one.discovery.announce(ONE)
        await until(lambda: len(server.requests) > 0)
        assert server.requests[0][2]["x-consul-token"] == "very-secret"
        await server.stop()
        await until(lambda: one.discovery._dependency.away)
        told = [str(line) for line in one.telemetry.lines]
        assert told
        assert "very-secret" not in "".join(told) + caplog.text


async def test_an_answer_that_is_an_error_is_told_without_its_text() -> None:
    server = StandIn()
    await server.start()
    client = ConsulClient(server.url)
    try:
        with pytest.raises(Unavailable, match=r"^Consul answered 500$"):
            await client.passing(ONE)
    finally:
        await client.close()
        await server.stop()


@pytest.mark.parametrize(
    ("before", "now", "expected"), [(0, 0, 1), (0, 7, 7), (7, 7, 7), (7, 9, 9), (9, 7, 0), (5, 0, 0), (1, 1, 1)]
)
def test_an_index_never_goes_backwards_and_an_answer_counts_as_one_at_least(
    before: int, now: int, expected: int
) -> None:
    assert next_index(before, now) == expected
