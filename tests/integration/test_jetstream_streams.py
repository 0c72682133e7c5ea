"""What is created on the server, what is widened, what is refused, and what the server then holds to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import msgspec
import nats
import pytest
from nats.js import JetStreamContext

from agent_engines.adapters.jetstream import requests
from agent_engines.adapters.jetstream.bus import JetStreamBus
from agent_engines.adapters.jetstream.storage import LARGEST_STORE
from agent_engines.adapters.jetstream.streams import MAX_ACK_PENDING, MAX_CONSUMERS, Limits
from agent_engines.domain.errors import ConfigurationError, InvalidRequest, QueueFull, Unavailable
from agent_engines.domain.messages import Progress, Report, ReportKind, TaskMessage
from agent_engines.domain.tasks import PriorityClass

HOUR = 3600


@pytest.fixture
async def jetstream(nats_url: str) -> AsyncIterator[JetStreamContext]:
    """An operator's view of the same server."""
    client = await nats.connect(nats_url)
    yield client.jetstream()
    await client.close()


async def provisioned(url: str, limits: Limits | None = None) -> JetStreamBus:
    bus = await JetStreamBus.connect(url, limits=limits)
    try:
        await bus.provision()
    except BaseException:
        await bus.close()
        raise
    return bus


async def test_the_streams_are_what_the_reference_says(nats_url: str, jetstream: JetStreamContext) -> None:
    bus = await provisioned(nats_url, Limits(max_tasks_per_class=77))
    found = {info.config.name: info.config for info in await jetstream.streams_info()}
    assert set(found) == {
        "TASKS_HIGH",
        "TASKS_NORMAL",
        "TASKS_LOW",
        "RESULTS",
        "JOURNAL",
        "LESSONS",
        "PROGRESS",
        "KV_AE_SETTINGS",
    }
    assert all(0 < (config.max_bytes or 0) < LARGEST_STORE for config in found.values())
    journal = found["JOURNAL"]
    assert (journal.retention, journal.discard, journal.max_age) == ("limits", "new", 72 * HOUR)
    tasks = found["TASKS_LOW"]
    assert (tasks.retention, tasks.discard, tasks.max_msgs, tasks.max_age) == ("workqueue", "new", 77, 0)
    assert tasks.subjects == ["ae.v1.task.low.*"]
    assert tasks.max_consumers == MAX_CONSUMERS > 1_000
    results = found["RESULTS"]
    assert (results.retention, results.discard, results.max_age) == ("limits", "new", 72 * HOUR)
    lessons = found["LESSONS"]
    assert (lessons.retention, lessons.discard, lessons.max_age) == ("limits", "old", 72 * HOUR)
    progress = found["PROGRESS"]
    assert (progress.retention, progress.discard, progress.max_age) == ("limits", "old", 24 * HOUR)
    recorder = (await jetstream.consumer_info("RESULTS", "recorder")).config
    assert (recorder.ack_policy, recorder.max_deliver, recorder.ack_wait) == ("explicit", -1, 30)
    await bus.close()


async def test_an_agents_durables_have_no_limit_that_would_strand_a_task(
    nats_url: str, jetstream: JetStreamContext
) -> None:
    bus = await provisioned(nats_url)
    await bus.tasks.open_inbox("worker")
    for priority in PriorityClass:
        durable = (await jetstream.consumer_info(f"TASKS_{priority.upper()}", "agent-worker")).config
        assert durable.filter_subject == f"ae.v1.task.{priority}.worker"
        assert (durable.max_deliver, durable.max_ack_pending) == (-1, MAX_ACK_PENDING)
        assert not durable.inactive_threshold
    await bus.close()


async def test_limits_are_widened_and_never_narrowed(nats_url: str, jetstream: JetStreamContext) -> None:
    for limit, expected in ((10, 10), (50, 50), (20, 50), (-1, -1), (100, -1)):
        bus = await provisioned(nats_url, Limits(max_tasks_per_class=limit, results_hours=1.0 if limit == 10 else 72.0))
        assert (await jetstream.stream_info("TASKS_HIGH")).config.max_msgs == expected
        await bus.close()
    assert (await jetstream.stream_info("RESULTS")).config.max_age == 72 * HOUR


async def test_a_change_that_would_lose_messages_is_refused_and_named(
    nats_url: str, jetstream: JetStreamContext
) -> None:
    await jetstream.add_stream(name="TASKS_HIGH", subjects=["ae.v1.task.high.*"], retention="limits", discard="old")
    await jetstream.add_stream(name="RESULTS", subjects=["ae.v1.result.only-this-agent"], discard="new")
    with pytest.raises(ConfigurationError) as refusal:
        await provisioned(nats_url)
    problems = "\n".join(refusal.value.problems)
    assert "stream TASKS_HIGH: retention" in problems
    assert "stream TASKS_HIGH: discard" in problems
    assert "stream RESULTS: subjects" in problems
    assert (await jetstream.stream_info("TASKS_HIGH")).config.retention == "limits"


async def test_subjects_an_operator_added_are_left_alone(nats_url: str, jetstream: JetStreamContext) -> None:
    await jetstream.add_stream(name="RESULTS", subjects=["ae.v1.result.*", "archive.>"], discard="new", max_age=HOUR)
    bus = await provisioned(nats_url)
    assert set((await jetstream.stream_info("RESULTS")).config.subjects or []) == {"ae.v1.result.*", "archive.>"}
    await bus.close()


async def test_many_processes_may_provision_at_once(nats_url: str, jetstream: JetStreamContext) -> None:
    buses = await asyncio.gather(*(JetStreamBus.connect(nats_url) for _ in range(6)))
    await asyncio.gather(*(bus.provision() for bus in buses))
    assert len(await jetstream.streams_info()) == 8
    await asyncio.gather(*(bus.close() for bus in buses))


async def test_processes_with_different_limits_agree_on_the_widest(nats_url: str, jetstream: JetStreamContext) -> None:
    limits = [Limits(max_tasks_per_class=limit) for limit in (10, 40, 20, 30)]
    buses = await asyncio.gather(*(JetStreamBus.connect(nats_url, limits=limit) for limit in limits))
    await asyncio.gather(*(bus.provision() for bus in buses))
    # Who creates and who widens is a race; a second round always settles it.
    await asyncio.gather(*(bus.provision() for bus in buses))
    assert (await jetstream.stream_info("TASKS_HIGH")).config.max_msgs == 40
    await asyncio.gather(*(bus.close() for bus in buses))


async def test_a_server_without_our_streams_is_unavailable_not_silent(nats_url: str) -> None:
    bus = await JetStreamBus.connect(nats_url)
    message = TaskMessage(task_id="t1", request_id="r1", task_type="echo", agent="worker")
    with pytest.raises(Unavailable) as refusal:
        await bus.tasks.publish_task(message)
    assert not isinstance(refusal.value, QueueFull)
    with pytest.raises(Unavailable):
        await bus.tasks.open_inbox("worker")
    await bus.close()


async def test_a_pull_asks_for_no_more_than_the_free_slots(nats_url: str, jetstream: JetStreamContext) -> None:
    bus = await provisioned(nats_url)
    inbox = await bus.tasks.open_inbox("worker")
    sent = [TaskMessage(task_id=f"t{n}", request_id=f"r{n}", task_type="echo", agent="worker") for n in range(50)]
    await bus.tasks.publish_tasks(sent)
    taken = await inbox.pull(PriorityClass.NORMAL, 7, 5.0)
    assert len(taken) == 7
    consumer = await jetstream.consumer_info("TASKS_NORMAL", "agent-worker")
    assert (consumer.num_ack_pending, consumer.num_pending, consumer.num_waiting) == (7, 43, 0)
    await bus.close()


async def test_headers_carry_the_trace_and_the_message_id(nats_url: str, jetstream: JetStreamContext) -> None:
    bus = await provisioned(nats_url)
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    good = TaskMessage(task_id="t1", request_id="r1", task_type="echo", agent="worker", generation=3, traceparent=trace)
    await bus.tasks.publish_task(good)
    await bus.tasks.publish_task(
        msgspec.structs.replace(good, task_id="t2", traceparent="00-x\r\nNats-Msg-Id: stolen\r\n\r\n")
    )
    first = await jetstream.get_msg("TASKS_NORMAL", seq=1)
    second = await jetstream.get_msg("TASKS_NORMAL", seq=2)
    assert first.headers == {"Nats-Msg-Id": "t1:3", "traceparent": trace}
    assert second.headers == {"Nats-Msg-Id": "t2:3"}
    await bus.close()


async def test_an_id_that_would_break_out_of_its_header_is_refused(nats_url: str, jetstream: JetStreamContext) -> None:
    bus = await provisioned(nats_url)
    evil = TaskMessage(task_id="t1\r\nX: y", request_id="r1", task_type="echo", agent="worker")
    with pytest.raises(InvalidRequest):
        await bus.tasks.publish_task(evil)
    assert (await jetstream.stream_info("TASKS_NORMAL")).state.messages == 0
    await bus.close()


async def test_an_inbox_that_could_not_be_opened_leaves_nothing_open(
    nats_url: str, jetstream: JetStreamContext
) -> None:
    bus = await provisioned(nats_url)
    await jetstream.delete_stream("TASKS_LOW")
    before = bus.subscriptions
    with pytest.raises(Unavailable):
        await bus.tasks.open_inbox("worker")
    assert bus.subscriptions == before
    await bus.close()


async def test_more_than_one_pull_holds_arrives_in_several(nats_url: str) -> None:
    bus = await provisioned(nats_url)
    inbox = await bus.reports.open_reports()
    large = msgspec.Raw(b'"' + b"x" * (bus.max_message_bytes // 2) + b'"')
    sent = [msgspec.structs.replace(report(f"t{number}"), result=large) for number in range(8)]
    await bus.reports.publish_reports("worker", sent)
    seen: set[str] = set()
    async with asyncio.timeout(20.0):
        while len(seen) < 8:
            deliveries = await inbox.pull(100, 5.0)
            seen |= {one.task_id for delivery in deliveries for one in delivery.reports}
            await inbox.ack(deliveries)
    assert seen == {f"t{number}" for number in range(8)}
    await bus.close()


async def test_unreadable_reports_are_set_aside_and_do_not_block_the_recorder(
    nats_url: str, jetstream: JetStreamContext
) -> None:
    bus = await provisioned(nats_url)
    inbox = await bus.reports.open_reports()
    await jetstream.publish("ae.v1.result.worker", b"\xff not reports")
    await bus.reports.publish_reports("worker", [report("t1")])
    delivered = []
    while not delivered:
        delivered = await inbox.pull(10, 5.0)
    await inbox.ack(delivered)
    assert [one.task_id for one in delivered[0].reports] == ["t1"]
    async with asyncio.timeout(5.0):
        while (consumer := await jetstream.consumer_info("RESULTS", "recorder")).num_ack_pending:
            await asyncio.sleep(0.01)
    assert (consumer.num_pending, consumer.num_ack_pending) == (0, 0)
    assert (await jetstream.stream_info("RESULTS")).state.messages == 2
    await bus.close()


async def test_readers_leave_no_consumer_on_the_server(nats_url: str, jetstream: JetStreamContext) -> None:
    bus = await provisioned(nats_url)
    await bus.settings.put("agent.a.mode", b"active")
    changes = bus.settings.watch("agent.")
    assert await anext(changes) == ("agent.a.mode", b"active")
    assert len(await jetstream.consumers_info("KV_AE_SETTINGS")) == 1
    await changes.aclose()
    assert await jetstream.consumers_info("KV_AE_SETTINGS") == []
    await bus.close()


async def test_other_clients_read_and_write_the_same_settings(nats_url: str, jetstream: JetStreamContext) -> None:
    bus = await provisioned(nats_url)
    bucket = await jetstream.key_value("AE_SETTINGS")
    await bus.settings.put("ours", b"1")
    await bucket.put("theirs", b"2")
    assert (await bucket.get("ours")).value == b"1"
    assert (await bus.settings.get("theirs") or (b"", 0))[0] == b"2"
    await bucket.delete("theirs")
    assert await bus.settings.get("theirs") is None
    await bus.close()


async def test_more_publishers_than_the_window_all_get_their_answer(nats_url: str) -> None:
    bus = await provisioned(nats_url)
    sent = [TaskMessage(task_id=f"t{n}", request_id=f"r{n}", task_type="echo", agent="worker") for n in range(6_000)]
    halves = asyncio.gather(
        bus.tasks.publish_tasks(sent[:3_000]), *(bus.tasks.publish_task(message) for message in sent[3_000:])
    )
    assert not any((await halves)[0])
    assert await bus.tasks.backlog("worker") == 6_000
    await bus.close()


async def test_callers_that_give_up_leave_the_window_usable(nats_url: str) -> None:
    bus = await provisioned(nats_url)
    sent = [TaskMessage(task_id=f"t{n}", request_id=f"r{n}", task_type="echo", agent="worker") for n in range(5_000)]
    callers = [asyncio.ensure_future(bus.tasks.publish_task(message)) for message in sent]
    await asyncio.sleep(0)
    for caller in callers[::2]:
        caller.cancel()
    outcomes = await asyncio.gather(*callers, return_exceptions=True)
    assert [outcome for outcome in outcomes[1::2] if outcome is not None] == []
    await bus.tasks.publish_task(msgspec.structs.replace(sent[0], task_id="afterwards"))
    assert await bus.tasks.backlog("worker") >= 2_501
    await bus.close()


async def test_a_turn_given_to_a_caller_that_gives_up_goes_to_the_next(
    nats_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = await provisioned(nats_url)
    waiting = bus.tasks._requests
    monkeypatch.setattr(requests, "WINDOW", 0)
    first, second = (
        asyncio.ensure_future(
            bus.tasks.publish_task(TaskMessage(task_id=name, request_id=name, task_type="echo", agent="worker"))
        )
        for name in ("t1", "t2")
    )
    await asyncio.sleep(0)
    monkeypatch.undo()
    waiting._queue.popleft().set_result(None)
    first.cancel()
    async with asyncio.timeout(2.0):
        await second
    assert await bus.tasks.backlog("worker") == 1
    await bus.close()


async def test_a_reader_that_missed_a_message_reads_it_again(nats_url: str) -> None:
    bus = await provisioned(nats_url)
    async with asyncio.timeout(20.0), aclosing(bus.reports.follow_progress("t1")) as news:
        await bus.reports.publish_progress(Progress(task_id="t1", fraction=0.0))
        assert (await anext(news))[1].fraction == 0.0
        connection = bus._connection
        number = connection._feeds[-1].number
        handlers = connection._client._handlers
        deliver = handlers[number]
        dropped: list[bytes] = []

        def drop_one(subject: bytes, reply: bytes, data: bytes, header: bytes | None) -> None:
            if data and not dropped:
                dropped.append(data)
            else:
                deliver(subject, reply, data, header)

        handlers[number] = drop_one
        for step in (1, 2, 3):
            await bus.reports.publish_progress(Progress(task_id="t1", fraction=step / 4))
        assert [(await anext(news))[1].fraction for _ in range(3)] == [0.25, 0.5, 0.75]
    assert dropped
    await bus.close()


def report(name: str) -> Report:
    return Report(kind=ReportKind.FINAL, task_id=name, request_id=name, task_type="echo", agent="worker")
