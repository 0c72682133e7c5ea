"""Metrics: exact names, labels and buckets; a declared table; one registry for each process."""

from __future__ import annotations

import re
import sys
import threading
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agent_engines.adapters.telemetry.metric_table import METRICS
from agent_engines.adapters.telemetry.telemetry import ProcessTelemetry, create_telemetry
from agent_engines.config import load_config

NO_FILE = Path("/nonexistent/.env")


def telemetry(**environ: str) -> ProcessTelemetry:
    return create_telemetry(load_config(environ, NO_FILE), "intelligence", descriptor=2, bridged=False)


def samples(made: ProcessTelemetry) -> dict[str, list[tuple[dict[str, str], float]]]:
    page, _ = made.render_metrics()
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(page.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def test_the_contract_s_metrics_have_their_names_and_labels() -> None:
    made = telemetry()
    made.task_done("a", "success", 0.3)
    made.task_done("a", "failed", None)
    made.queue_size("a", 7)
    made.decided("adaptive", "routed")
    made.breaker("a", 2)
    found = samples(made)
    assert found["agent_tasks_total"] == [
        ({"agent_name": "a", "status": "success"}, 1.0),
        ({"agent_name": "a", "status": "failed"}, 1.0),
    ]
    assert found["agent_task_duration_seconds_count"] == [({"agent_name": "a"}, 1.0)]
    assert found["agent_queue_size"] == [({"agent_name": "a"}, 7.0)]
    assert found["routing_decisions_total"] == [({"strategy": "adaptive", "outcome": "routed"}, 1.0)]
    assert found["circuit_breaker_state"] == [({"agent_id": "a"}, 2.0)]


def test_the_contract_s_buckets_are_there() -> None:
    made = telemetry()
    made.task_done("a", "success", 0.3)
    counts = {float(labels["le"]): value for labels, value in samples(made)["agent_task_duration_seconds_bucket"]}
    assert {0.1, 0.5, 1.0, 2.0, 5.0, 10.0, float("inf")} <= set(counts)
    assert (counts[0.1], counts[0.5], counts[10.0]) == (0.0, 1.0, 1.0)


def test_the_page_is_text_0_0_4_and_describes_process_python_and_build() -> None:
    made = telemetry()
    page, content_type = made.render_metrics()
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    found = samples(made)
    assert {"python_info", "process_resident_memory_bytes", "python_gc_collections_total"} <= set(found)
    ((labels, value),) = found["agent_engines_build_info"]
    assert (labels["engine"], value) == ("intelligence", 1.0)
    assert b"_created" not in page


def test_every_declared_metric_follows_the_naming_rules_and_has_help() -> None:
    for name, metric in METRICS.items():
        assert re.fullmatch(r"[a-z][a-z0-9_]*", name)
        assert (metric.kind == "counter") == name.endswith("_total")
        assert metric.help.endswith(".") or metric.help[0].isdigit() or ":" in metric.help or metric.help
        assert not {"task_id", "request_id", "task_type"} & set(metric.labels)


def test_every_name_used_in_the_source_is_declared_with_its_kind() -> None:
    used = re.compile(r"\.(count|gauge|forget)\(\s*\"([a-z0-9_]+)\"")
    root = Path(__file__).parents[2] / "src" / "agent_engines"
    found = {match for path in root.rglob("*.py") for match in used.findall(path.read_text(encoding="utf-8"))}
    assert found, "the pattern finds nothing: is the call written differently now?"
    wrong = {
        name
        for call, name in found
        if name not in METRICS or METRICS[name].kind != {"count": "counter", "gauge": "gauge", "forget": "gauge"}[call]
    }
    assert not wrong, f"add to adapters/telemetry/metric_table.py: {sorted(wrong)}"


def test_an_unknown_name_or_label_is_an_error_in_development() -> None:
    made = telemetry()
    with pytest.raises(KeyError, match="nonsense_total is not a declared counter"):
        made.count("nonsense_total")
    with pytest.raises(KeyError, match="is not a declared gauge"):
        made.gauge("agent_loop_blocked_total", 1, agent_name="a")
    with pytest.raises(KeyError, match="has the labels"):
        made.count("agent_loop_blocked_total", agent="a")


def test_in_production_it_is_logged_and_work_goes_on(capfd: pytest.CaptureFixture[str]) -> None:
    made = telemetry(ENGINES_PROFILE="production")
    made.count("nonsense_total")
    made.count("nonsense_total")
    assert capfd.readouterr().err.count("A metric is used wrongly") == 1


def test_declared_counters_and_gauges_add_and_set() -> None:
    made = telemetry()
    made.count("agent_loop_blocked_total", agent_name="a")
    made.count("agent_loop_blocked_total", 2, agent_name="a")
    made.gauge("agent_loop_lag_seconds", 0.5, agent_name="a")
    found = samples(made)
    assert found["agent_loop_blocked_total"] == [({"agent_name": "a"}, 3.0)]
    assert found["agent_loop_lag_seconds"] == [({"agent_name": "a"}, 0.5)]


def test_a_forgotten_gauge_leaves_the_page_and_only_that_one() -> None:
    made = telemetry()
    for agent in ("a", "b"):
        made.gauge("agent_waiting_tasks", 900, agent_name=agent)
        made.breaker(agent, 2)
    made.forget("agent_waiting_tasks", agent_name="a")
    made.forget("circuit_breaker_state", agent_id="a")
    made.forget("circuit_breaker_state", agent_id="never seen")
    found = samples(made)
    assert found["agent_waiting_tasks"] == [({"agent_name": "b"}, 900.0)]
    assert found["circuit_breaker_state"] == [({"agent_id": "b"}, 2.0)]
    with pytest.raises(KeyError, match="nonsense"):
        made.forget("nonsense", agent_name="a")
    made.gauge("agent_waiting_tasks", 1, agent_name="a")
    assert ({"agent_name": "a"}, 1.0) in samples(made)["agent_waiting_tasks"]


def test_two_telemetries_do_not_share_numbers() -> None:
    one, other = telemetry(), telemetry()
    one.queue_size("a", 1)
    assert "agent_queue_size" in samples(one)
    assert "agent_queue_size" not in samples(other)


def test_metrics_can_be_switched_off() -> None:
    made = telemetry(ENABLE_METRICS="false")
    made.task_done("a", "success", 1.0)
    made.count("nonsense_total")
    page, content_type = made.render_metrics()
    assert page.startswith(b"# metrics are switched off")
    assert content_type.startswith("text/plain")


def test_ends_told_by_many_threads_while_somebody_reads_are_all_counted() -> None:
    made = telemetry()

    def tell(agent: str) -> None:
        for _ in range(15_000):
            made.task_done(agent, "success", 0.3)

    threads = [threading.Thread(target=tell, args=(agent,)) for agent in ("a", "a", "b")]
    turns = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            made.render_metrics()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(turns)
    found = samples(made)
    told = {"a": 30_000.0, "b": 15_000.0}
    assert {labels["agent_name"]: value for labels, value in found["agent_tasks_total"]} == told
    assert {labels["agent_name"]: value for labels, value in found["agent_task_duration_seconds_count"]} == told
