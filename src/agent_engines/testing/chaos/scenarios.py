"""The scenarios of `engines chaos`: what is done to a system, and how its tasks have to end all the same."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Flag, auto
from random import Random
from typing import Any

from agent_engines.client.plain_http import HttpFailure, PlainHttp
from agent_engines.domain.tasks import TaskStatus
from agent_engines.testing.history import Op, Phase

from .engine import AGENT, FIXED, STARTS
from .judgement import Verdict
from .load import Make, Task, some_flaky, work
from .run import Run

AGENTS = f"agent:{AGENT}"
SUCCESS = {"success"}


class Needs(Flag):
    """What a scenario has to be able to do to the system."""

    NOTHING = 0
    KILL = auto()
    SIGNAL = auto()
    """Signals to processes on this machine."""


@dataclass(frozen=True)
class Scenario:
    """`do` harms and judges; `tells` is one line for people."""

    name: str
    tells: str
    do: Callable[[Run], Awaitable[Verdict]]
    needs: Needs = Needs.NOTHING
    make: Make = work


async def _agents(run: Run) -> Verdict:
    await run.kill_some(run.nemesis.named(AGENTS), (0.5, 2.0))
    return await run.verdict(SUCCESS)


async def _router(run: Run) -> Verdict:
    await run.kill_some(run.nemesis.named("intelligence"), (2.0, 5.0))
    return await run.verdict(SUCCESS)


async def _bus(run: Run) -> Verdict:
    await run.kill_some(run.nemesis.named("nats"), (2.0, 4.0))
    return await run.verdict(SUCCESS)


async def _database(run: Run) -> Verdict:
    await run.kill_some(run.nemesis.named("postgres"), (2.0, 4.0))
    return await run.verdict(SUCCESS)


async def _cache(run: Run) -> Verdict:
    """Nobody may notice: a submission that is refused because of the cache counts as a problem."""
    await run.kill_some(run.nemesis.named("redis"), (1.0, 2.0))
    found = await run.verdict(SUCCESS)
    if set(found.answers) - {"accepted"}:
        run.problems.append(f"submissions noticed: {found.answers}")
    return found


async def _pause(run: Run) -> Verdict:
    """An agent stands still for two leases; what it brings on waking changes no row."""
    seconds = 2 * run.options.lease_seconds
    times = max(1, run.options.faults // 3)

    async def harm() -> None:
        for _ in range(times):
            await asyncio.sleep(1.0)
            await run.nemesis.stand_still(run.rng.choice(run.nemesis.named(AGENTS)), seconds)
            await asyncio.sleep(1.0)

    await run.under_load(harm(), seconds=times * (seconds + 2.0))
    return await run.verdict(SUCCESS)


async def _storm(run: Run) -> Verdict:
    """Three in ten fail once: all succeed."""
    await run.under_load(asyncio.sleep(run.options.tasks / 200), seconds=run.options.tasks / 200)
    return await run.verdict(SUCCESS)


async def _duplicates(run: Run) -> Verdict:
    """Every request three times at once, one in twenty with another body: one task for a key, a conflict is a 409."""
    count = max(1, run.options.tasks // 3)
    sends: list[tuple[str, Task]] = []
    odd = set(run.rng.sample(range(count), count // 20))
    for n in range(count):
        nonce = f"{run.prefix}-{n}"
        body: Task = {**run.pinned(n, run.rng), "idempotency_key": nonce, "metadata": {"nonce": nonce}}
        other: Task = {**body, "payload": {"n": -n - 1, "pause": 0.0}}
        sends += [(nonce, body), (nonce, body), (nonce, other if n in odd else body)]
    waiting = iter(_shuffled(sends, run.rng))

    async def lane(http: PlainHttp, client: str) -> None:
        for nonce, body in waiting:
            if not run.time_left:
                return
            began = time.monotonic()
            try:
                answer = await http.post("/v1/tasks", json=body)
                said: tuple[int, dict[str, Any]] = answer.status_code, answer.json()
                entry = said[1] if "task_id" in said[1] else {"error": said[1]}
            except (HttpFailure, ValueError) as error:
                said, entry = (0, {}), {"error": {"error": type(error).__name__}}
            run.load.submitted(client, nonce, body, (said[0], entry), began)

    async with run.load.http() as http, asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(lane(http, f"lane-{number}"))
    found = await run.verdict(SUCCESS)
    if run.time_left and run.load.answers["409"] < len(odd):
        run.problems.append(f"{len(odd)} keys came with two bodies, only {run.load.answers['409']} answers were 409")
    return found


def _shuffled(sends: list[tuple[str, Task]], rng: Random) -> list[tuple[str, Task]]:
    """Copies meet each other in flight, in no particular order."""
    portions = [sends[at : at + 60] for at in range(0, len(sends), 60)]
    return [one for portion in portions for one in rng.sample(portion, len(portion))]


async def _cancel(run: Run) -> Verdict:
    """Orders that meet tasks queued, running and finishing: who was told "cancelled" is told so for ever."""
    told: Counter[str] = Counter()
    seen: set[str] = set()
    done = asyncio.Event()

    async def canceller(http: PlainHttp) -> None:
        while True:
            fresh = [task_id for task_id in list(run.load.accepted.values())[-200:] if task_id not in seen]
            if fresh:
                task_id = run.rng.choice(fresh)
                seen.add(task_id)
                told[await _cancelled(run, http, task_id)] += 1
            elif done.is_set():
                return
            else:
                await asyncio.sleep(0.01)

    async def submit() -> None:
        try:
            await run.under_load(asyncio.sleep(run.options.tasks / 200), seconds=run.options.tasks / 200)
        finally:
            done.set()

    async with run.load.http() as http, asyncio.TaskGroup() as group:
        group.create_task(submit())
        for _ in range(4):
            group.create_task(canceller(http))
    run.more["told"] = dict(told)
    if not told["cancelled"]:
        run.problems.append("no cancellation came in time: nothing was tested")
    return await run.verdict(SUCCESS | {"cancelled"})


async def _cancelled(run: Run, http: PlainHttp, task_id: str) -> str:
    """What the caller was told; "unknown" without an answer."""
    began = time.monotonic()
    try:
        answer = await http.delete(f"/v1/tasks/{task_id}")
        said = answer.json()
        status = said.get("status") if answer.status_code == 202 else None
        code = answer.status_code
    except (HttpFailure, ValueError):
        status, code = None, 0
    known = TaskStatus(status) if status in set(TaskStatus) else None
    phase = Phase.OK if code == 202 else Phase.FAIL if code in (404, 409) else Phase.UNKNOWN
    run.load.note("canceller", Op.CANCEL, began, phase, task_id, known)
    return str(known or code or "unknown")


def _one_in_a_hundred(n: int, rng: Random) -> Task:
    """At most ten of a run: each kills its process several times."""
    made = work(n, rng)
    return {**made, "task_type": "poison"} if n % 100 == 50 and n < 1000 else made


POISON_SECONDS = 30.0
"""What one poisonous task may take beyond the rest: it ends its process four times, each time the process starts anew, and an
agent whose tasks die in series rests in between."""


async def _poison(run: Run) -> Verdict:
    """One in a hundred kills its process: a dead letter with a reason; all others succeed. After a fix so do they."""
    await run.under_load(asyncio.sleep(1.0), seconds=max(1.0, run.options.tasks / 100))
    poisonous = [
        task_id
        for nonce, task_id in run.load.accepted.items()
        if _one_in_a_hundred(_number(nonce), Random(0))["task_type"] == "poison"
    ]
    found = await run.verdict(SUCCESS | {"dead_letter"}, patience=POISON_SECONDS * len(poisonous))
    run.more["poison"] = len(poisonous)
    if found.statuses.get("dead_letter", 0) != len(poisonous):
        run.problems.append(f"{len(poisonous)} tasks were poison, ends are {found.statuses}")
    if not found.passed or not (run.system.data_dir / STARTS).exists():
        return found
    await _redrive(run, poisonous)
    return await run.verdict(SUCCESS)


async def _redrive(run: Run, task_ids: list[str]) -> None:
    """Fix what killed, and order the dead letters again."""
    fixed = run.system.data_dir / FIXED
    fixed.touch()
    async with run.load.http() as http:
        for task_id in task_ids:
            answer = await http.post(f"/v1/dead-letters/{task_id}:redrive")
            run.load.note("operator", Op.REOPEN, time.monotonic(), Phase.OK, task_id)
            if answer.status_code not in (200, 202):
                run.problems.append(f"{task_id} was not redriven: {answer.status_code}")


def _number(nonce: str) -> int:
    return int(nonce.rpartition("-")[2])


async def watch(run: Run, seconds: float) -> Verdict:
    """Load without harm of ours: somebody else does it."""
    await run.under_load(asyncio.sleep(seconds), seconds=seconds)
    return await run.verdict(SUCCESS)


SCENARIOS = {
    one.name: one
    for one in (
        Scenario("agents", "kill -9 of agents", _agents, Needs.KILL),
        Scenario("router", "kill -9 of the router, its API and its recorder", _router, Needs.KILL),
        Scenario("bus", "kill -9 of the bus", _bus, Needs.KILL),
        Scenario("database", "kill -9 of the ledger's database", _database, Needs.KILL),
        Scenario("cache", "kill -9 of the cache", _cache, Needs.KILL),
        Scenario("pause", "agents stand still for two leases and come back", _pause, Needs.SIGNAL),
        Scenario("duplicates", "every request three times, some with another body", _duplicates),
        Scenario("cancel", "cancellations at every moment", _cancel),
        Scenario("storm", "three tasks in ten fail once", _storm, make=some_flaky),
        Scenario("poison", "tasks that kill their process", _poison, make=_one_in_a_hundred),
    )
}
