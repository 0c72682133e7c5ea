"""Tasks that fail, kill, come twice or are cancelled at the worst moment."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from random import Random
from typing import Any

import httpx2
import pytest

from agent_engines.adapters import wire
from agent_engines.adapters.jetstream.bus import JetStreamBus
from agent_engines.domain.tasks import PriorityClass, TaskStatus
from agent_engines.testing.history import Op, Phase
from fault_engine import FIXED
from fault_house import FULL, LEASE_SECONDS, SEED, TIMEOUT, Load, Nemesis, during, scaled, some_flaky, verdict, work

pytestmark = pytest.mark.timeout(TIMEOUT)


async def test_r11_a_retry_storm_stays_within_its_budget(start: Any) -> None:
    """Three in ten fail once: all succeed, nobody has more attempts than allowed, fresh work is not starved."""
    with start() as system:
        rng = Random(f"{SEED}-R11")
        load, nemesis = Load(system.url, rng, some_flaky), Nemesis(system, rng)
        await during(load, asyncio.sleep(scaled(15, full=170)), rate=300.0)
        found = await verdict("R11", system, load, nemesis)
        attempts = await system.sql("SELECT attempt, count(*) AS n FROM task_results GROUP BY attempt ORDER BY attempt")
        (waits,) = await system.sql(
            "SELECT percentile_cont(0.95) WITHIN GROUP (ORDER BY extract(epoch FROM started_at - submitted_at)) AS p95"
            " FROM task_results WHERE attempt = 1"
        )
        found.more["attempts"] = {row["attempt"]: row["n"] for row in attempts}
        found.more["first_attempt_wait_p95_s"] = round(float(waits["p95"]), 3)
        found.say()
    assert found.passed, found.line()
    assert set(found.statuses) == {"success"}
    assert set(found.more["attempts"]) == {1, 2}
    assert found.more["attempts"][2] == pytest.approx(0.3 * found.accepted, rel=0.2)


async def garble(system: Any, count: int) -> list[str]:
    """Replace the messages of so many queued tasks by bytes that nobody can read; their ids."""
    bus = await JetStreamBus.connect(system.endpoints["nats_url"], name="garbler", lease_seconds=LEASE_SECONDS)
    garbled: list[str] = []
    try:
        inbox = await bus.tasks.open_inbox("worker")
        while len(garbled) < count:
            for delivery in await inbox.pull(PriorityClass.NORMAL, 1, 1.0):
                message = delivery.message
                if message is None or message.task_type != "work" or message.task_id in garbled:
                    await inbox.release([delivery])
                    continue
                raw = wire.encode(message)[:-1] + b',"torn":'
                await bus.tasks.publish_raw(PriorityClass.NORMAL, "worker", raw)
                await inbox.ack([delivery])
                garbled.append(message.task_id)
        await inbox.close()
    finally:
        await bus.close()
    return garbled


async def test_r12_poison_ends_as_dead_letters_and_harms_nobody_else(start: Any) -> None:
    """Tasks that kill their process are given up with a reason, the others all succeed; redriven after a fix they do too."""
    with start(replicas=3) as system:
        rng = Random(f"{SEED}-R12")

        def one_in_a_hundred(n: int, rng: Random) -> dict[str, Any]:
            return {**work(n, rng), "task_type": "poison"} if n % 100 == 50 else work(n, rng)

        load, nemesis = Load(system.url, rng, one_in_a_hundred), Nemesis(system, rng)
        count = scaled(400, full=20_000)
        async with asyncio.TaskGroup() as group:
            garbling = group.create_task(garble(system, max(1, count // 100)))
            # Each poison ends five processes, each of which is up again after some seven seconds; three of them share the
            # work. All at once, the good ones would be done long before, and agents whose last twenty tasks died rest.
            await load.amount(count, seconds=3600.0 if FULL else 0.0)
        garbled = garbling.result()
        found = await verdict("R12", system, load, nemesis, settle=90.0 + (900.0 if FULL else 20.0 * (count // 100)))
        ends = await system.sql(
            "SELECT t.task_type, r.status, r.error_type, count(*) AS n, max(r.delivery) AS deliveries"
            " FROM task_results r JOIN tasks t USING (task_id) WHERE NOT t.task_id = ANY($1) GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
            garbled,
        )
        found.more["ends"] = [list(row.values()) for row in ends]
        found.more["garbled"] = len(garbled)
        found.say()
        unread = await system.sql("SELECT error_type, status FROM task_results WHERE task_id = ANY($1)", garbled)
        letters = await system.sql("SELECT task_id, reason FROM dead_letters")
        (system.data_dir / FIXED).touch()
        with system.http() as http:
            for letter in letters:
                answer = http.post(f"/v1/dead-letters/{letter['task_id']}:redrive")
                load.note("operator", Op.REOPEN, time.monotonic(), Phase.OK, letter["task_id"])
                assert answer.status_code in (200, 202), answer.text
        redriven = await verdict("R12-redriven", system, load, nemesis)
        redriven.say()
    assert found.passed, found.line()
    assert len(garbled) == len(unread) == max(1, count // 100)
    assert {tuple(row.values()) for row in unread} == {("Undecodable", "dead_letter")}
    assert len(letters) == len(garbled) + sum(row["n"] for row in ends if row["task_type"] == "poison")
    assert all(letter["reason"] for letter in letters)
    assert {(row["task_type"], row["status"]) for row in ends} == {("work", "success"), ("poison", "dead_letter")}
    assert redriven.passed, redriven.line()
    assert set(redriven.statuses) == {"success"}


async def test_r13_the_same_key_is_one_task_however_often_it_comes(start: Any) -> None:
    """Every request three times at once, one in twenty with another body: one task for a key, every conflict a 409."""
    count = scaled(1500, full=30_000)
    with start() as system:
        rng = Random(f"{SEED}-R13")
        load, nemesis = Load(system.url, rng), Nemesis(system, rng)
        sends: list[tuple[str, dict[str, Any]]] = []
        odd = set(rng.sample(range(count), count // 20))
        for n in range(count):
            body = {**work(n, rng), "idempotency_key": f"key-{n}", "metadata": {"nonce": f"task-{n}"}}
            other = {**body, "payload": {**body["payload"], "n": -n - 1}}
            sends += [(f"key-{n}", body), (f"key-{n}", body), (f"key-{n}", other if n in odd else body)]
        # Copies meet each other in flight, but not always in the same order.
        sends = [
            one for at in range(0, len(sends), 90) for one in rng.sample(sends[at : at + 90], len(sends[at : at + 90]))
        ]
        answers: dict[str, list[tuple[int, str, str | None]]] = {}
        waiting = iter(sends)

        async def lane(http: httpx2.AsyncClient) -> None:
            for key, body in waiting:
                answer = await http.post("/v1/tasks", json=body)
                said = answer.json()
                answers.setdefault(key, []).append(
                    (answer.status_code, json.dumps(body, sort_keys=True), said.get("task_id"))
                )

        async with httpx2.AsyncClient(base_url=system.url, timeout=30) as http, asyncio.TaskGroup() as group:
            for _ in range(30):
                group.create_task(lane(http))
        wrong = 0
        for n in range(count):
            told = answers[f"key-{n}"]
            load.answers.update(str(code) for code, _, _ in told)
            accepted = {(body, task_id) for code, body, task_id in told if code == 202}
            refused = {body for code, body, _ in told if code == 409}
            wrong += (
                len(accepted) != 1 or len(refused) != (n in odd) or {code for code, _, _ in told} - {202, 409} != set()
            )
            load.accepted[f"task-{n}"] = str(next(iter(accepted))[1])
        found = await verdict("R13", system, load, nemesis)
        # This history is checked above, answer by answer; the calls are not in the load's own form.
        found.violations = [one for one in found.violations if one.rule != "from nowhere"]
        (tasks,) = await system.sql("SELECT count(*) AS tasks, count(DISTINCT idempotency_key) AS keys FROM tasks")
        found.more.update(wrong_answers=wrong, conflicts_expected=len(odd), **tasks)
        found.say()
    assert found.passed, found.line()
    assert wrong == 0
    assert load.answers["409"] >= len(odd)
    assert (tasks["tasks"], tasks["keys"]) == (count, count)


async def test_r14_a_cancelled_task_stays_cancelled(start: Any) -> None:
    """Orders that meet tasks queued, running and finishing: what a client was told is what the ledger says for ever."""
    count = scaled(800, full=10_000)
    with start() as system:
        rng = Random(f"{SEED}-R14")
        load, nemesis = Load(system.url, rng), Nemesis(system, rng)
        told: dict[str, str] = {}
        codes: Counter[int] = Counter()
        submitting = asyncio.Event()

        async def cancel_all(http: httpx2.AsyncClient, seen: set[str]) -> None:
            while not (submitting.is_set() and len(seen) >= len(load.accepted)):
                fresh = [task_id for task_id in list(load.accepted.values()) if task_id not in seen]
                if not fresh:
                    await asyncio.sleep(0.01)
                    continue
                task_id = rng.choice(fresh)
                seen.add(task_id)
                await cancel(http, task_id)

        async def cancel(http: httpx2.AsyncClient, task_id: str) -> None:
            began = time.monotonic()
            answer = await http.delete(f"/v1/tasks/{task_id}")
            codes[answer.status_code] += 1
            status = answer.json().get("status") if answer.status_code == 202 else None
            told[task_id] = str(status)
            known = TaskStatus(status) if status in set(TaskStatus) else None
            load.note("canceller", Op.CANCEL, began, Phase.OK, task_id, known)

        async def submit() -> None:
            await load.amount(count, batch=10)
            submitting.set()

        seen: set[str] = set()
        async with httpx2.AsyncClient(base_url=system.url, timeout=30) as http, asyncio.TaskGroup() as group:
            group.create_task(submit())
            for _ in range(4):
                group.create_task(cancel_all(http, seen))
        found = await verdict("R14", system, load, nemesis)
        first = {row["task_id"]: row["status"] for row in await system.sql("SELECT task_id, status FROM task_results")}
        await asyncio.sleep(3.0)
        later = {row["task_id"]: row["status"] for row in await system.sql("SELECT task_id, status FROM task_results")}
        both = [task_id for task_id, status in told.items() if status == "cancelled" and later[task_id] != "cancelled"]
        found.more.update(codes=dict(codes), told=dict(Counter(told.values())), cancelled_and_ended_otherwise=len(both))
        found.say()
    assert found.passed, found.line()
    assert set(codes) <= {202, 409}
    assert codes[202] > 0
    assert not both
    assert first == later
    assert set(found.statuses) <= {"success", "cancelled"}
