"""Log lines: exact keys, no secrets, no control characters, sampled when one message floods, cheap when off."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_engines.adapters.telemetry.log_line import console_line, json_line
from agent_engines.adapters.telemetry.log_sink import LogSink
from agent_engines.adapters.telemetry.logging import SAMPLED_PER_SECOND, LineLog, Outlet, bridge, unbridge
from agent_engines.adapters.telemetry.telemetry import create_telemetry
from agent_engines.config import load_config

KEYS = ["timestamp", "level", "logger", "message", "context", "trace_id", "span_id"]
NO_FILE = Path("/nonexistent/.env")


class Written:
    """A file that lines go to, and a clock in the test's hand."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.now = 1_763_892_000.25

    def outlet(self, level: int = logging.INFO, render: Any = json_line) -> Outlet:
        return Outlet(level, render, LogSink(self.descriptor), clock=lambda: self.now)

    def text(self) -> str:
        return self._path.read_text()

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._path.read_text().splitlines()]


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Written]:
    made = Written(tmp_path / "log")
    yield made
    os.close(made.descriptor)


def test_a_line_has_exactly_the_contract_s_keys_in_their_order(written: Written) -> None:
    LineLog("agent.intelligence", written.outlet()).info(
        "Task routed successfully", task_id="t1", task_type="echo", selected_agent="a", confidence=0.9, duration_ms=1.5
    )
    (line,) = written.lines()
    assert list(line) == KEYS
    assert line == {
        "timestamp": "2025-11-23T10:00:00.250Z",
        "level": "INFO",
        "logger": "agent.intelligence",
        "message": "Task routed successfully",
        "context": {
            "task_id": "t1",
            "task_type": "echo",
            "selected_agent": "a",
            "confidence": 0.9,
            "duration_ms": 1.5,
        },
        "trace_id": None,
        "span_id": None,
    }


def test_a_level_below_the_threshold_writes_nothing(written: Written) -> None:
    log = LineLog("agent.x", written.outlet(logging.WARNING))
    log.debug("no")
    log.info("no")
    log.warning("yes")
    log.error("yes")
    assert [line["level"] for line in written.lines()] == ["WARNING", "ERROR"]


def test_secrets_are_masked_by_key_and_by_shape(written: Written) -> None:
    LineLog("agent.x", written.outlet()).warning(
        "Cannot reach postgresql://ledger:hunter2@db/x",
        password="hunter2",
        api_key="hunter2",
        nested={"Authorization": "hunter2", "list": ["nats://hunter2@h:1"]},
        dsn="host=db password=hunter2 user=x",
        header="Bearer hunter2hunter2",
        harmless="token bucket",
        error=repr(ValueError({"password": "hunter2", "user": "x"})),
        answer='{"api_key":"hunter2 with \\" quotes","n": 1}',
        quoted='"{\\"access_token\\": \\"hunter2 too\\", \\"n\\": 1}"',
        raw=repr({"client_secret": b"hunter2"}),
    )
    (line,) = written.lines()
    assert "hunter2" not in json.dumps(line)
    assert line["message"] == "Cannot reach postgresql://ledger:***@db/x"
    assert line["context"]["harmless"] == "token bucket"
    assert line["context"]["error"] == "ValueError({'password': ***, 'user': 'x'})"
    assert line["context"]["answer"] == '{"api_key":***,"n": 1}'


def test_control_characters_are_escaped_so_that_a_line_stays_a_line(written: Written) -> None:
    nasty = "a\nb\r\x1b[31mc\x7f\x9b\u2028d"
    LineLog("agent.x", written.outlet()).info(nasty, value=nasty)
    raw = written.text()
    assert raw.count("\n") == 1
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028]", raw)
    assert written.lines()[0]["context"]["value"] == nasty


def test_the_console_form_escapes_them_too(written: Written) -> None:
    LineLog("agent.x", written.outlet(render=console_line(color=False))).info("a\nb", value="\x1b[31m", password="x")
    assert written.text() == "10:00:00.250 INFO    agent.x  a\\nb value=\\x1b[31m password=***\n"


class Awkward:
    def __str__(self) -> str:
        raise RuntimeError("no text for you")


@pytest.mark.parametrize(
    "value", [object(), {1, 2}, b"bytes", 10**40, "\ud800", float("nan"), {("a", 1): 2}, Awkward(), Path("/x")]
)
def test_whatever_is_logged_a_line_comes_out(written: Written, value: object) -> None:
    LineLog("agent.x", written.outlet()).info("odd", value=value)
    (line,) = written.lines()
    assert list(line) == KEYS
    assert "value" in line["context"]


@given(
    st.dictionaries(
        st.text(max_size=8), st.recursive(st.none() | st.text() | st.floats() | st.integers(), st.lists, max_leaves=5)
    )
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_context_makes_one_line_of_json(written: Written, context: dict[str, Any]) -> None:
    before = len(written.text().splitlines())
    written.outlet().write("INFO", "agent.x", "m", context)
    lines = written.text().splitlines()
    assert len(lines) == before + 1
    assert list(json.loads(lines[-1])) == KEYS


def test_a_flood_of_routed_tasks_is_sampled_and_the_next_line_says_how_many_are_missing(written: Written) -> None:
    log = LineLog("agent.intelligence", written.outlet())
    for number in range(SAMPLED_PER_SECOND + 50):
        log.info("Task routed successfully", number=number)
    assert len(written.lines()) == SAMPLED_PER_SECOND
    log.info("Something else")
    written.now += 1
    log.info("Task routed successfully", number=-1)
    log.info("Task routed successfully", number=-2)
    *_, other, told, after = written.lines()
    assert other["context"] == {}
    assert told["context"] == {"number": -1, "sampled": True, "dropped": 50}
    assert after["context"] == {"number": -2}


def test_a_stalled_reader_loses_lines_and_is_told_so_when_it_reads_again() -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    try:
        outlet = Outlet(logging.INFO, json_line, LogSink(writing), clock=lambda: 0.0)
        log = LineLog("agent.x", outlet)
        for _ in range(3000):
            log.info("x" * 200)
        received = b""
        while True:
            try:
                received += os.read(reading, 65_536)
            except BlockingIOError:
                break
        arrived = received.count(b"\n")
        assert 0 < arrived < 3000
        log.info("again")
        lines = [json.loads(line) for line in os.read(reading, 65_536).splitlines()]
        assert lines[0]["message"] == "again"
        assert lines[1]["message"] == "Log lines were dropped"
        assert lines[1]["context"] == {"dropped": 3000 - arrived}
    finally:
        os.close(reading)
        os.close(writing)


def test_a_reader_that_is_gone_does_no_harm() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        sink = LogSink(writing)
        sink.write(b"x\n")
        assert sink.take_dropped() == 1
    finally:
        os.close(writing)


def test_the_standard_library_comes_out_in_the_same_form(written: Written) -> None:
    before = logging.getLogger().level
    handler = bridge(written.outlet())
    try:
        logging.getLogger("some.library").warning("connecting to %s", "redis://:hunter2@h")
        try:
            raise ValueError("broken")
        except ValueError:
            logging.getLogger("some.library").exception("failed")
        logging.getLogger("agent.bus").info("Stream created", extra={"context": {"stream": "RESULTS"}})
    finally:
        unbridge(handler)
    assert logging.getLogger().level == before
    first, second, third = written.lines()
    assert (first["logger"], first["message"]) == ("some.library", "connecting to redis://:***@h")
    assert "ValueError: broken" in second["context"]["exception"]
    assert third["context"] == {"stream": "RESULTS"}


def test_the_environment_chooses_level_and_form(written: Written) -> None:
    config = load_config({"LOG_LEVEL": "error", "LOG_FORMAT": "console"}, NO_FILE)
    telemetry = create_telemetry(config, "custom", descriptor=written.descriptor, bridged=False)
    telemetry.log("custom").warning("no")
    telemetry.log("custom").error("yes", n=1)
    telemetry.shutdown()
    assert written.text().endswith("ERROR   agent.custom  yes n=1\n")


def test_lines_inside_a_span_carry_its_trace(written: Written) -> None:
    telemetry = create_telemetry(load_config({}, NO_FILE), "x", descriptor=written.descriptor, bridged=False)
    trace, span = "a" * 32, "b" * 16
    with telemetry.span("run", parent=f"00-{trace}-{span}-01"):
        telemetry.log("x").info("inside")
    telemetry.log("x").info("outside")
    inside, outside = written.lines()
    assert (inside["trace_id"], inside["span_id"]) == (trace, span)
    assert (outside["trace_id"], outside["span_id"]) == (None, None)
