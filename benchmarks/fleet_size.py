"""What a router pays for a fleet of many agents: CPU of one process, the bus and the ledger in memory.

    python benchmarks/fleet_size.py [--agents 10 100 1000 5000] [--kinds 10] [--tasks 2000]

For each size: microseconds of one heartbeat (a full one with the profile, a light one), of one task from request to dispatch while
every agent beats once a second, of it with all agents standing still, and of it while one agent's breaker is open. The share of a
core that the heartbeats alone take is what one router spends on listening.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence

import msgspec

from agent_engines.adapters.clock import SystemClock
from agent_engines.adapters.memory.bus import MemoryBus
from agent_engines.adapters.memory.ledger import MemoryLedger
from agent_engines.adapters.memory.telemetry import NullTelemetry
from agent_engines.domain import subjects
from agent_engines.domain.agents import AgentProfile, AgentState, Capability, Load
from agent_engines.domain.messages import Heartbeat
from agent_engines.domain.tasks import TaskRequest
from agent_engines.engines.intelligence import IntelligenceEngine
from agent_engines.ports.connections import Connections
from agent_engines.runtime.agent_config import AgentConfig

BATCH = 100
TASK_TYPE = "bench"


class House:
    """One router and the voices of its agents."""

    def __init__(self, agents: int, kinds: int) -> None:
        self._clock = SystemClock()
        self.bus = MemoryBus(clock=self._clock)
        self.router = IntelligenceEngine(AgentConfig("intelligence", http_port=None), seed=1)
        self._names = [f"agent-{number}" for number in range(agents)]
        self._kinds = kinds
        self._seq = 0

    async def start(self) -> None:
        ledger = MemoryLedger(self._clock)
        connections = Connections(bus=self.bus, telemetry=NullTelemetry(), clock=self._clock, ledger=ledger)
        await self.router.start(connections)

    def beats(self, *, full: bool) -> list[tuple[str, bytes]]:
        """(subject, heartbeat) of everybody, each a little busier than before."""
        self._seq += 1
        made: list[tuple[str, bytes]] = []
        for number, name in enumerate(self._names):
            profile = None
            if full:
                capability = Capability(task_type=TASK_TYPE, max_attempts=3, idempotent=True)
                metadata = {"kind": f"kind-{number % self._kinds}", "cost_per_task": 0.001}
                profile = AgentProfile(name=name, capabilities=(capability,), metadata=metadata)
            beat = Heartbeat(
                agent=name,
                replica="r1",
                state=AgentState.RUNNING,
                load=Load(slots=32, running=(number + self._seq) % 4),
                sent_at=self._clock.now(),
                seq=self._seq,
                profile=profile,
            )
            made.append((subjects.heartbeat(name), msgspec.json.encode(beat)))
        return made

    async def told(self, beats: Sequence[tuple[str, bytes]]) -> float:
        """Microseconds of CPU for each heartbeat."""
        begun = time.process_time()
        for subject, data in beats:
            await self.bus.signals.send(subject, data)
        await asyncio.sleep(0.05)
        return 1e6 * (time.process_time() - begun) / len(beats)

    async def submitted(self, tasks: int) -> float:
        """Microseconds of CPU for each task."""
        spent = 0.0
        for _ in range(0, tasks, BATCH):
            requests = [TaskRequest(task_type=TASK_TYPE, payload={"pad": "x" * 200}) for _ in range(BATCH)]
            begun = time.process_time()
            results = await self.router.submit(requests)
            spent += time.process_time() - begun
            assert all(result.accepted is not None for result in results), results[0]
        return 1e6 * spent / tasks

    async def open_breaker(self, agent: str) -> None:
        """Keep one agent out, by the word all routers share."""
        word = {"state": "open", "until": time.time() + 3600.0, "opened": 1, "cause": "a benchmark", "turn": 1}
        await self.bus.settings.put(f"breaker.{agent}", msgspec.json.encode(word))
        async with asyncio.timeout(10):
            while self.router.agent(agent).breaker != "open":
                await asyncio.sleep(0.05)

    async def registered(self) -> None:
        """Until the router may choose all of them."""
        async with asyncio.timeout(120):
            while sum(one.status == "healthy" for one in self.router.agents()) < len(self._names):
                await asyncio.sleep(0.1)
                await self.told(self.beats(full=False))


async def measure(agents: int, kinds: int, tasks: int) -> dict[str, float]:
    house = House(agents, kinds)
    await house.start()
    full = await house.told(house.beats(full=True))
    await house.registered()
    light = min([await house.told(house.beats(full=False)) for _ in range(3)])
    await house.submitted(tasks)
    still = await house.submitted(tasks)
    beating = 0.0
    for _ in range(5):
        await house.told(house.beats(full=False))
        beating += await house.submitted(tasks // 5) / 5
    await house.open_breaker("agent-0")
    broken = await house.submitted(tasks)
    await house.router.stop(1.0)
    return {
        "full beat us": full,
        "light beat us": light,
        "task us": still,
        "task us, all beating": beating,
        "task us, a breaker open": broken,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, nargs="+", default=[10, 100, 1000, 5000])
    parser.add_argument("--kinds", type=int, default=10)
    parser.add_argument("--tasks", type=int, default=2000)
    options = parser.parse_args()
    for agents in options.agents:
        found = asyncio.run(measure(agents, options.kinds, options.tasks))
        share = found["light beat us"] * agents / 1e4
        numbers = "  ".join(f"{name} {value:.0f}" for name, value in found.items())
        print(f"{agents:>6} agents  {numbers}  listening {share:.1f} % of a core", flush=True)


if __name__ == "__main__":
    main()
