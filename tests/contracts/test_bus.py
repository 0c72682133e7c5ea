"""What every bus must do, over memory and over a real NATS server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field

import msgspec
import pytest

from agent_engines.adapters import wire
from agent_engines.adapters.clock import SystemClock
from agent_engines.adapters.jetstream.bus import JetStreamBus
from agent_engines.adapters.jetstream.streams import Limits
from agent_engines.adapters.memory.bus import MemoryBus
from agent_engines.adapters.memory.telemetry import NullTelemetry
from agent_engines.domain.errors import Conflict, InvalidRequest, QueueFull, TooLarge, Unavailable
from agent_engines.domain.messages import Progress, Report, ReportKind, TaskMessage
from agent_engines.domain.tasks import PriorityClass, TaskStatus
from agent_engines.ports.bus import Delivery, ReportDelivery, ReportInbox, TaskInbox
from agent_engines.runtime.leadership import Leadership

AnyBus = MemoryBus | JetStreamBus

LEASE = 0.6
PATIENCE = 5.0
"""How long a test waits for what must come."""
NORMAL = PriorityClass.NORMAL


@dataclass
class Rig:
    """Makes buses that share one server (or one memory) and closes them."""

    kind: str
    url: str
    buses: list[AnyBus] = field(default_factory=list)

    async def bus(self, *, lease: float = 30.0, limit: int = 1_000) -> AnyBus:
        if self.kind == "memory":
            bus: AnyBus = MemoryBus(lease_seconds=lease, max_tasks_per_class=limit)
        else:
            bus = await JetStreamBus.connect(self.url, lease_seconds=lease, limits=Limits(max_tasks_per_class=limit))
        await bus.provision()
        self.buses.append(bus)
        return bus

    async def another(self) -> AnyBus:
        """What a second process would have: memory has only one."""
        return self.buses[0] if self.kind == "memory" else await self.bus()


@pytest.fixture(params=["memory", "jetstream"])
async def rig(request: pytest.FixtureRequest, nats_url: str) -> AsyncIterator[Rig]:
    rig = Rig(request.param, nats_url)
    yield rig
    for bus in rig.buses:
        await bus.close()


def task(name: str, *, agent: str = "worker", priority: int = 3, generation: int = 1) -> TaskMessage:
    return TaskMessage(
        task_id=name,
        request_id=f"r-{name}",
        task_type="echo",
        agent=agent,
        priority=priority,
        generation=generation,
        payload=msgspec.Raw(b'{"text":"\xc3\xa9"}'),
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )


def report(name: str, *, attempt: int = 1) -> Report:
    return Report(
        kind=ReportKind.FINAL,
        task_id=name,
        request_id=f"r-{name}",
        task_type="echo",
        agent="worker",
        attempt=attempt,
        status=TaskStatus.SUCCESS,
        result=msgspec.Raw(b'{"ok":true}'),
    )


async def collect(inbox: TaskInbox, count: int, *, priority: PriorityClass = NORMAL) -> list[Delivery]:
    """Exactly `count` deliveries, over as many pulls as it takes."""
    deliveries: list[Delivery] = []
    async with asyncio.timeout(PATIENCE):
        while len(deliveries) < count:
            deliveries += await inbox.pull(priority, count - len(deliveries), PATIENCE)
    return deliveries


async def collect_reports(inbox: ReportInbox, count: int) -> list[ReportDelivery]:
    deliveries: list[ReportDelivery] = []
    async with asyncio.timeout(PATIENCE):
        while sum(len(delivery.reports) for delivery in deliveries) < count:
            deliveries += await inbox.pull(count, PATIENCE)
    return deliveries


async def emptied(bus: AnyBus) -> bool:
    """True once the queue holds nothing: an acknowledgement takes effect a moment after it is given."""
    async with asyncio.timeout(PATIENCE):
        while await bus.tasks.backlog("worker") > 0:
            await asyncio.sleep(0.01)
    return True


def names(deliveries: list[Delivery]) -> list[str]:
    return sorted(delivery.message.task_id for delivery in deliveries if delivery.message)


# Tasks


async def test_a_task_arrives_as_it_was_sent(rig: Rig) -> None:
    bus = await rig.bus()
    inbox = await bus.tasks.open_inbox("worker")
    await bus.tasks.publish_task(task("t1"))
    (delivery,) = await inbox.pull(NORMAL, 10, PATIENCE)
    assert delivery.count == 1
    assert delivery.message == task("t1")


async def test_a_task_sent_before_the_agent_exists_waits_for_it(rig: Rig) -> None:
    bus = await rig.bus()
    await bus.tasks.publish_task(task("t1"))
    inbox = await bus.tasks.open_inbox("worker")
    assert names(await collect(inbox, 1)) == ["t1"]


async def test_an_empty_queue_answers_after_the_wait(rig: Rig) -> None:
    inbox = await (await rig.bus()).tasks.open_inbox("worker")
    assert await inbox.pull(NORMAL, 10, 0.0) == []
    assert await inbox.pull(NORMAL, 10, 0.05) == []


async def test_a_waiting_pull_gets_the_task_that_comes(rig: Rig) -> None:
    bus = await rig.bus()
    inbox = await bus.tasks.open_inbox("worker")
    waiting = asyncio.create_task(inbox.pull(NORMAL, 10, PATIENCE))
    await asyncio.sleep(0)
    await bus.tasks.publish_task(task("t1"))
    assert names(await waiting) == ["t1"]


async def test_a_pull_never_brings_more_than_asked(rig: Rig) -> None:
    bus = await rig.bus()
    inbox = await bus.tasks.open_inbox("worker")
    assert await bus.tasks.publish_tasks([task(f"t{n}") for n in range(20)]) == [None] * 20
    first = await inbox.pull(NORMAL, 7, PATIENCE)
    assert 1 <= len(first) <= 7
    other = await (await rig.another()).tasks.open_inbox("worker")
    rest = await collect(other, 20 - len(first))
    assert len(set(names(first) + names(rest))) == 20


async def test_an_acknowledged_task_never_comes_back(rig: Rig) -> None:
    bus = await rig.bus(lease=LEASE)
    inbox = await bus.tasks.open_inbox("worker")
    await bus.tasks.publish_task(task("t1"))
    await inbox.ack(await collect(inbox, 1))
    assert await inbox.pull(NORMAL, 10, LEASE * 2) == []
    assert await emptied(bus)


async def test_an_unacknowledged_task_comes_back_after_the_lease(rig: Rig) -> None:
    bus = await rig.bus(lease=LEASE)
    inbox = await bus.tasks.open_inbox("worker")
    await bus.tasks.publish_task(task("t1"))
    await collect(inbox, 1)
    (again,) = await collect(inbox, 1)
    assert (again.count, names([again])) == (2, ["t1"])


async def test_a_late_acknowledgement_of_a_superseded_delivery_is_honoured(rig: Rig) -> None:
    bus = await rig.bus(lease=LEASE)
    inbox = await bus.tasks.open_inbox("worker")
    await bus.tasks.publish_task(task("t1"))
    first = await collect(inbox, 1)
    await collect(inbox, 1)
    await inbox.ack(first)
    assert await inbox.pull(NORMAL, 1, LEASE * 2) == []
    assert await emptied(bus)


async def test_a_released_task_comes_back_at_once(rig: Rig) -> None:
    bus = await rig.bus()
    inbox = await bus.tasks.open_inbox("worker")
    await bus.tasks.publish_task(task("t1"))
    await inbox.release(await collect(inbox, 1))
    (again,) = await collect(inbox, 1)
    assert again.count == 2


async def test_a_task_released_with_a_delay_comes_back_not_before_it(rig: Rig) -> None:
    bus = await rig.bus()
    inbox = await bus.tasks.open_inbox("worker")
    await bus.tasks.publish_task(task("t1"))
    await inbox.release(await collect(inbox, 1), delay=LEASE)
    assert await inbox.pull(NORMAL, 1, LEASE / 3) == []
    (again,) = await collect(inbox, 1)
    assert again.count == 2


async def test_extending_keeps_the_lease(rig: Rig) -> None:
    bus = await rig.bus(lease=LEASE)
    inbox = await bus.tasks.open_inbox("worker")
    await bus.tasks.publish_task(task("t1"))
    held = await collect(inbox, 1)
    for _ in range(6):
        assert await inbox.pull(NORMAL, 1, LEASE / 3) == []
        await inbox.extend(held)
    await inbox.ack(held)
    assert await emptied(bus)


async def test_a_line_keeps_the_lease_from_a_thread(rig: Rig) -> None:
    bus = await rig.bus(lease=LEASE)
    inbox = await bus.tasks.open_inbox("worker")
    line = inbox.line()
    assert line is not None
    for name in ("t1", "t2"):
        await bus.tasks.publish_task(task(name))
    held = await collect(inbox, 2)
    line.renew([])
    for _ in range(6):
        assert await inbox.pull(NORMAL, 2, LEASE / 3) == []
        await asyncio.to_thread(line.renew, held)
    line.close()
    line.close()
    with pytest.raises(Unavailable):
        line.renew(held)
    assert len(await collect(inbox, 2)) == 2


async def test_a_repeated_message_is_stored_once_and_a_new_generation_is_a_new_message(rig: Rig) -> None:
    bus = await rig.bus()
    for generation in (1, 1, 1, 2):
        await bus.tasks.publish_task(task("t1", generation=generation))
    assert await bus.tasks.backlog("worker") == 2


async def test_a_full_queue_refuses_instead_of_dropping(rig: Rig) -> None:
    bus = await rig.bus(limit=3)
    for number in range(3):
        await bus.tasks.publish_task(task(f"t{number}"))
    with pytest.raises(QueueFull) as refusal:
        await bus.tasks.publish_task(task("one-too-many"))
    assert refusal.value.retry_after > 0
    assert names(await collect(await bus.tasks.open_inbox("worker"), 3)) == ["t0", "t1", "t2"]


async def test_a_full_queue_still_confirms_what_it_has_accepted(rig: Rig) -> None:
    bus = await rig.bus(limit=2)
    outcomes = await bus.tasks.publish_tasks([task("t0"), task("t1"), task("t2"), task("t0")])
    assert [type(outcome) for outcome in outcomes] == [type(None), type(None), QueueFull, type(None)]
    assert await bus.tasks.backlog("worker") == 2


async def test_one_impossible_task_of_many_does_not_hurt_the_others(rig: Rig) -> None:
    bus = await rig.bus()
    huge = msgspec.structs.replace(task("t2"), payload=msgspec.Raw(b'"' + b"x" * bus.max_message_bytes + b'"'))
    outcomes = await bus.tasks.publish_tasks([task("t0"), task("t1", agent="a.b"), huge, task("t3")])
    assert [type(outcome) for outcome in outcomes] == [type(None), InvalidRequest, TooLarge, type(None)]
    assert names(await collect(await bus.tasks.open_inbox("worker"), 2)) == ["t0", "t3"]


async def test_many_published_to_a_bus_that_is_away_are_all_refused(rig: Rig) -> None:
    bus = await rig.bus()
    await bus.close()
    assert [type(outcome) for outcome in await bus.tasks.publish_tasks([task("t0")])] != [type(None)]


async def test_a_refused_task_is_accepted_when_there_is_room_again(rig: Rig) -> None:
    bus = await rig.bus(limit=1)
    inbox = await bus.tasks.open_inbox("worker")
    await bus.tasks.publish_task(task("t0"))
    with pytest.raises(QueueFull):
        await bus.tasks.publish_task(task("t1"))
    await inbox.ack(await collect(inbox, 1))
    assert await emptied(bus)
    await bus.tasks.publish_task(task("t1"))
    assert names(await collect(inbox, 1)) == ["t1"]


async def test_a_full_class_does_not_refuse_another_class(rig: Rig) -> None:
    bus = await rig.bus(limit=1)
    await bus.tasks.publish_task(task("low", priority=5))
    with pytest.raises(QueueFull):
        await bus.tasks.publish_task(task("more", priority=4))
    await bus.tasks.publish_task(task("urgent", priority=1))
    assert await bus.tasks.backlog("worker") == 2


async def test_classes_are_separate(rig: Rig) -> None:
    bus = await rig.bus()
    inbox = await bus.tasks.open_inbox("worker")
    await bus.tasks.publish_tasks([task("high", priority=1), task("normal"), task("low", priority=5)])
    assert names(await collect(inbox, 1, priority=PriorityClass.LOW)) == ["low"]
    assert names(await collect(inbox, 1, priority=PriorityClass.HIGH)) == ["high"]
    assert names(await collect(inbox, 1)) == ["normal"]


async def test_two_inboxes_of_one_agent_share_its_queue(rig: Rig) -> None:
    bus = await rig.bus()
    inboxes = [await bus.tasks.open_inbox("worker"), await (await rig.another()).tasks.open_inbox("worker")]
    await bus.tasks.publish_tasks([task(f"t{n}") for n in range(10)])
    shares = [await collect(inbox, 5) for inbox in inboxes]
    assert names(shares[0] + shares[1]) == [f"t{n}" for n in range(10)]


async def test_agents_get_only_their_own_tasks(rig: Rig) -> None:
    bus = await rig.bus()
    await bus.tasks.publish_tasks([task("mine"), task("other", agent="someone-else")])
    inbox = await bus.tasks.open_inbox("worker")
    assert names(await collect(inbox, 1)) == ["mine"]
    assert await inbox.pull(NORMAL, 10, 0.05) == []
    assert await bus.tasks.backlog("someone-else") == 1


@pytest.mark.parametrize("raw", [b"", b"\xff\x00", b'{"v":1}', b'{"v":1,"task_id":7}', b"[" * 5_000])
async def test_undecodable_bytes_arrive_as_a_problem(rig: Rig, raw: bytes) -> None:
    bus = await rig.bus()
    inbox = await bus.tasks.open_inbox("worker")
    await bus.tasks.publish_raw(NORMAL, "worker", raw)
    (delivery,) = await collect(inbox, 1)
    assert delivery.message is None
    assert (delivery.raw, bool(delivery.problem)) == (raw, True)
    await inbox.ack([delivery])
    assert await emptied(bus)


async def test_a_message_from_a_newer_release_is_read(rig: Rig) -> None:
    bus = await rig.bus()
    inbox = await bus.tasks.open_inbox("worker")
    raw = msgspec.json.encode(msgspec.json.decode(wire.encode(task("t1"))) | {"v": 9, "from_the_future": {"x": 1}})
    await bus.tasks.publish_raw(NORMAL, "worker", raw)
    assert names(await collect(inbox, 1)) == ["t1"]


async def test_a_task_larger_than_the_bus_takes_is_refused(rig: Rig) -> None:
    bus = await rig.bus()
    huge = msgspec.structs.replace(task("t1"), payload=msgspec.Raw(b'"' + b"x" * bus.max_message_bytes + b'"'))
    with pytest.raises(TooLarge):
        await bus.tasks.publish_task(huge)
    await bus.tasks.publish_task(task("t2"))
    assert await bus.check()


@pytest.mark.parametrize("agent", ["a.b", "*", ">", "a b", "a\r\nPUB x 0", ""])
async def test_an_agent_name_that_would_be_another_subject_is_refused(rig: Rig, agent: str) -> None:
    bus = await rig.bus()
    with pytest.raises(InvalidRequest):
        await bus.tasks.publish_task(task("t1", agent=agent))
    with pytest.raises(InvalidRequest):
        await bus.tasks.open_inbox(agent)


async def test_a_closed_inbox_leaves_its_tasks_to_others(rig: Rig) -> None:
    bus = await rig.bus()
    inbox = await bus.tasks.open_inbox("worker")
    waiting = asyncio.create_task(inbox.pull(NORMAL, 5, PATIENCE))
    await asyncio.sleep(0.05)
    await inbox.close()
    await inbox.close()
    with pytest.raises(Unavailable):
        await waiting
    await bus.tasks.publish_task(task("t1"))
    assert names(await collect(await bus.tasks.open_inbox("worker"), 1)) == ["t1"]


# Reports


async def test_reports_arrive_as_they_were_sent(rig: Rig) -> None:
    bus = await rig.bus()
    inbox = await bus.reports.open_reports()
    await bus.reports.publish_reports("worker", [report("a"), report("b")])
    (delivery,) = await collect_reports(inbox, 2)
    assert delivery.reports == (report("a"), report("b"))


async def test_recorder_replicas_share_the_reports(rig: Rig) -> None:
    bus = await rig.bus()
    inboxes = [await bus.reports.open_reports(), await (await rig.another()).reports.open_reports()]
    for number in range(6):
        await bus.reports.publish_reports("worker", [report(f"t{number}")])
    shares = [await collect_reports(inbox, 3) for inbox in inboxes]
    seen = sorted(one.task_id for share in shares for delivery in share for one in delivery.reports)
    assert seen == [f"t{number}" for number in range(6)]


async def test_reports_come_back_unless_acknowledged(rig: Rig) -> None:
    bus = await rig.bus(lease=LEASE)
    inbox = await bus.reports.open_reports()
    await bus.reports.publish_reports("worker", [report("a")])
    await collect_reports(inbox, 1)
    again = await collect_reports(inbox, 1)
    await inbox.release(again)
    await inbox.ack(await collect_reports(inbox, 1))
    assert await inbox.pull(10, LEASE * 2) == []


async def test_the_same_reports_sent_again_are_one_message(rig: Rig) -> None:
    bus = await rig.bus()
    inbox = await bus.reports.open_reports()
    for _ in range(2):
        await bus.reports.publish_reports("worker", [report("a"), report("b")])
    await bus.reports.publish_reports("worker", [report("a", attempt=2)])
    deliveries = await collect_reports(inbox, 3)
    assert sorted(len(delivery.reports) for delivery in deliveries) == [1, 2]
    assert await inbox.pull(10, 0.05) == []


async def test_many_large_reports_travel_in_several_messages(rig: Rig) -> None:
    bus = await rig.bus()
    inbox = await bus.reports.open_reports()
    large = msgspec.Raw(b'"' + b"x" * (bus.max_message_bytes // 5) + b'"')
    sent = [msgspec.structs.replace(report(f"t{n}"), result=large) for n in range(5)]
    await bus.reports.publish_reports("worker", sent)
    deliveries = await collect_reports(inbox, 5)
    assert len(deliveries) > 1
    assert {one.task_id for delivery in deliveries for one in delivery.reports} == {f"t{n}" for n in range(5)}


# Progress


async def test_progress_is_told_from_the_start_and_then_live(rig: Rig) -> None:
    bus = await rig.bus()
    await bus.reports.publish_progress(Progress(task_id="t1", fraction=0.1))
    await bus.reports.publish_progress(Progress(task_id="other", fraction=0.5))
    async with asyncio.timeout(PATIENCE), aclosing(bus.reports.follow_progress("t1")) as news:
        first, stored = await anext(news)
        await bus.reports.publish_progress(Progress(task_id="t1", fraction=0.2, message="half", data={"n": 1}))
        second, live = await anext(news)
    assert (stored.fraction, live.fraction, live.data) == (0.1, 0.2, {"n": 1})
    assert second > first


async def test_progress_resumes_after_a_sequence(rig: Rig) -> None:
    bus = await rig.bus()
    for step in range(4):
        await bus.reports.publish_progress(Progress(task_id="t1", fraction=step / 4))
    async with asyncio.timeout(PATIENCE), aclosing(bus.reports.follow_progress("t1")) as news:
        seen = [await anext(news) for _ in range(4)]
    async with asyncio.timeout(PATIENCE), aclosing(bus.reports.follow_progress("t1", seen[1][0])) as news:
        assert [await anext(news), await anext(news)] == seen[2:]


async def test_a_progress_reader_that_is_closed_leaves_nothing_behind(rig: Rig) -> None:
    bus = await rig.bus()
    await bus.reports.publish_progress(Progress(task_id="t1"))
    before = open_readers(bus)
    for _ in range(3):
        async with asyncio.timeout(PATIENCE), aclosing(bus.reports.follow_progress("t1")) as news:
            await anext(news)
            assert open_readers(bus) == before + 1
    assert open_readers(bus) == before


@pytest.mark.parametrize("task_id", ["*", ">", "a.b", "a b", ""])
async def test_progress_of_an_id_that_names_other_subjects_is_refused(rig: Rig, task_id: str) -> None:
    bus = await rig.bus()
    with pytest.raises(InvalidRequest):
        await bus.reports.publish_progress(Progress(task_id=task_id))
    with pytest.raises(InvalidRequest):
        await anext(bus.reports.follow_progress(task_id))


def open_readers(bus: AnyBus) -> int:
    return bus.reports.followers if isinstance(bus, MemoryBus) else bus.subscriptions


# Signals


async def test_a_signal_reaches_everybody_who_listens(rig: Rig) -> None:
    bus = await rig.bus()
    heard: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()

    async def hear(subject: str, data: bytes) -> None:
        heard.put_nowait((subject, data))

    await bus.signals.listen("ae.v1.heartbeat.*", hear)
    another = await rig.another()
    await another.signals.listen("ae.v1.>", hear)
    # An answer from the server: it knows of all that was asked before.
    assert await bus.check()
    assert await another.check()
    await bus.signals.send("ae.v1.heartbeat.a1", b"beat")
    await bus.signals.send("elsewhere", b"nobody listens, and that is fine")
    async with asyncio.timeout(PATIENCE):
        assert [await heard.get(), await heard.get()] == [("ae.v1.heartbeat.a1", b"beat")] * 2


async def test_one_of_a_queue_group_gets_each_signal(rig: Rig) -> None:
    bus = await rig.bus()
    heard: list[int] = []
    all_heard = asyncio.Event()

    def member(number: int):
        async def hear(_subject: str, _data: bytes) -> None:
            heard.append(number)
            if len(heard) == 30:
                all_heard.set()

        return hear

    for number, side in enumerate((bus, await rig.another())):
        await side.signals.listen("work", member(number), queue="group")
        assert await side.check()
    for _ in range(30):
        await bus.signals.send("work", b"")
    async with asyncio.timeout(PATIENCE):
        await all_heard.wait()
    assert await bus.check()
    assert len(heard) == 30


async def test_a_question_gets_its_answer(rig: Rig) -> None:
    bus = await rig.bus()

    async def answer(_subject: str, data: bytes) -> bytes:
        return b"re: " + data

    await (await rig.another()).signals.listen("ask.me", answer, queue="engines")
    assert await (await rig.another()).check()
    answers = await asyncio.gather(*(bus.signals.ask("ask.me", b"%d" % n, PATIENCE) for n in range(20)))
    assert answers == [b"re: %d" % n for n in range(20)]


async def test_a_question_to_nobody_is_unavailable(rig: Rig) -> None:
    bus = await rig.bus()
    with pytest.raises(Unavailable, match="nobody listens"):
        await bus.signals.ask("nobody.home", b"?", PATIENCE)


async def test_a_question_without_an_answer_is_unavailable_after_its_time(rig: Rig) -> None:
    bus = await rig.bus()

    async def say_nothing(_subject: str, _data: bytes) -> None:
        return None

    await bus.signals.listen("silence", say_nothing)
    with pytest.raises(Unavailable, match="nobody answered"):
        await bus.signals.ask("silence", b"?", 0.1)


async def test_a_failing_handler_does_not_end_its_subscription(rig: Rig) -> None:
    bus = await rig.bus()

    async def fail_once(_subject: str, data: bytes) -> bytes:
        if data == b"bad":
            raise ValueError("as planned")
        return b"fine"

    await bus.signals.listen("fragile", fail_once)
    await bus.signals.send("fragile", b"bad")
    assert await bus.signals.ask("fragile", b"good", PATIENCE) == b"fine"


async def test_a_slow_handler_does_not_hold_up_the_next_signal(rig: Rig) -> None:
    bus = await rig.bus()
    release = asyncio.Event()

    async def slow_or_fast(_subject: str, data: bytes) -> bytes:
        if data == b"slow":
            await release.wait()
        return data

    await bus.signals.listen("work", slow_or_fast)
    slow = asyncio.create_task(bus.signals.ask("work", b"slow", PATIENCE))
    assert await bus.signals.ask("work", b"fast", PATIENCE) == b"fast"
    release.set()
    assert await slow == b"slow"


async def test_a_closed_subscription_hears_nothing_more(rig: Rig) -> None:
    bus = await rig.bus()

    async def answer(_subject: str, _data: bytes) -> bytes:
        return b"here"

    subscription = await bus.signals.listen("door", answer)
    assert await bus.signals.ask("door", b"", PATIENCE) == b"here"
    await subscription.close()
    await subscription.close()
    with pytest.raises(Unavailable):
        await bus.signals.ask("door", b"", 0.2)


# Settings


async def test_a_setting_is_stored_and_deleted(rig: Rig) -> None:
    settings = (await rig.bus()).settings
    assert await settings.get("agent.a1.mode") is None
    revision = await settings.put("agent.a1.mode", b"draining")
    assert await settings.get("agent.a1.mode") == (b"draining", revision)
    await settings.delete("agent.a1.mode")
    assert await settings.get("agent.a1.mode") is None


async def test_the_last_writer_wins_unless_a_revision_is_given(rig: Rig) -> None:
    settings = (await rig.bus()).settings
    first = await settings.put("k", b"1")
    second = await settings.put("k", b"2")
    assert second > first
    with pytest.raises(Conflict):
        await settings.put("k", b"3", revision=first)
    assert await settings.put("k", b"3", revision=second) > second
    assert (await settings.get("k") or (b"", 0))[0] == b"3"


async def test_revision_zero_means_only_if_absent(rig: Rig) -> None:
    settings = (await rig.bus()).settings
    await settings.put("leader", b"me", revision=0)
    with pytest.raises(Conflict):
        await settings.put("leader", b"you", revision=0)
    await settings.delete("leader")
    await settings.put("leader", b"you", revision=0)
    assert (await settings.get("leader") or (b"", 0))[0] == b"you"


async def test_only_one_of_many_becomes_the_leader(rig: Rig) -> None:
    settings = (await rig.bus()).settings
    tries = [settings.put("leader", b"%d" % n, revision=0) for n in range(20)]
    outcomes = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(outcome, int) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 19


async def test_a_setting_with_a_time_to_live_disappears_and_its_watchers_hear_of_it(rig: Rig) -> None:
    settings = (await rig.bus()).settings
    async with asyncio.timeout(PATIENCE), aclosing(settings.watch("lease.")) as changes:
        await settings.put("lease.one", b"me", revision=0, ttl=1.0)
        assert await anext(changes) == ("lease.one", b"me")
        assert await anext(changes) == ("lease.one", None)
    assert await settings.get("lease.one") is None
    assert await settings.put("lease.one", b"you", revision=0, ttl=1.0) > 0


async def test_a_delete_with_a_revision_spares_what_changed(rig: Rig) -> None:
    settings = (await rig.bus()).settings
    mine = await settings.put("lease.k", b"mine", revision=0)
    yours = await settings.put("lease.k", b"yours")
    with pytest.raises(Conflict):
        await settings.delete("lease.k", revision=mine)
    assert await settings.get("lease.k") == (b"yours", yours)
    await settings.delete("lease.k", revision=yours)
    assert await settings.get("lease.k") is None
    with pytest.raises(Conflict):
        await settings.delete("lease.k", revision=yours)


async def test_a_refresh_over_its_revision_prolongs_a_setting_and_a_late_one_is_refused(rig: Rig) -> None:
    settings = (await rig.bus()).settings
    async with asyncio.timeout(4 * PATIENCE), aclosing(settings.watch("lease.")) as changes:
        revision = await settings.put("lease.r", b"me", revision=0, ttl=2.0)
        assert await anext(changes) == ("lease.r", b"me")
        for _ in range(4):
            await asyncio.sleep(0.6)
            revision = await settings.put("lease.r", b"me", revision=revision, ttl=2.0)
            assert await anext(changes) == ("lease.r", b"me"), "it did not end in between"
        assert await anext(changes) == ("lease.r", None)
    with pytest.raises(Conflict):
        await settings.put("lease.r", b"me", revision=revision, ttl=2.0)
    assert await settings.put("lease.r", b"you", revision=0, ttl=1.0) > revision


async def test_leadership_goes_to_one_and_passes_on_when_the_leader_falls_silent(rig: Rig) -> None:
    buses = [await rig.bus(), await rig.another()]
    ttl, clock, telemetry = 2.0, SystemClock(), NullTelemetry()
    candidates = [
        Leadership(bus.settings, "chores", name, clock=clock, telemetry=telemetry, ttl=ttl)
        for name, bus in zip(("one", "two"), buses, strict=True)
    ]

    async def elected(among: list[Leadership]) -> Leadership:
        async with asyncio.timeout(10 * ttl):
            while True:
                leaders = [one for one in candidates if one.leads()]
                assert len(leaders) <= 1
                if leaders and leaders[0] in among:
                    return leaders[0]
                await asyncio.sleep(0.02)

    for one in candidates:
        await one.start()
    first = await elected(candidates)
    token = first.token
    await first._background.stop()
    second = await elected([one for one in candidates if one is not first])
    assert (second.token or 0) > (token or 0)
    await second.stop()
    await first.start()
    assert await elected([first]) is first
    await first.stop()


async def test_a_watch_tells_what_is_stored_and_then_every_change(rig: Rig) -> None:
    settings = (await rig.bus()).settings
    await settings.put("agent.a.mode", b"active")
    await settings.put("agent.gone.mode", b"active")
    await settings.delete("agent.gone.mode")
    await settings.put("policy.active", b"other prefix")
    async with asyncio.timeout(PATIENCE), aclosing(settings.watch("agent.")) as changes:
        assert await anext(changes) == ("agent.a.mode", b"active")
        await settings.put("agent.b.mode", b"draining")
        await settings.put("policy.active", b"not told")
        await settings.delete("agent.a.mode")
        assert [await anext(changes), await anext(changes)] == [("agent.b.mode", b"draining"), ("agent.a.mode", None)]


async def test_a_watch_of_a_part_of_a_word_tells_only_what_begins_with_it(rig: Rig) -> None:
    settings = (await rig.bus()).settings
    for key in ("breaker.a1", "breaker.b1", "breaker.a2"):
        await settings.put(key, key.encode())
    async with asyncio.timeout(PATIENCE), aclosing(settings.watch("breaker.a")) as changes:
        seen = {(await anext(changes))[0], (await anext(changes))[0]}
    assert seen == {"breaker.a1", "breaker.a2"}


# The whole


async def test_provisioning_again_and_by_many_at_once_changes_nothing(rig: Rig) -> None:
    bus = await rig.bus()
    await bus.tasks.publish_task(task("t1"))
    other = await rig.another()
    await asyncio.gather(*(side.provision() for side in (bus, other, bus, other)))
    assert await bus.tasks.backlog("worker") == 1


async def test_a_closed_bus_says_so(rig: Rig) -> None:
    bus = await rig.bus()
    assert bus.connected
    assert await bus.check()
    await bus.close()
    await bus.close()
    assert not bus.connected
    assert not await bus.check()
    with pytest.raises(Unavailable):
        await bus.tasks.publish_task(task("t1"))
    with pytest.raises(Unavailable):
        await bus.signals.send("x", b"")
