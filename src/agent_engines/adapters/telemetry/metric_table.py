"""Every metric of the package: name, kind, labels, help. Adding one is adding a line here.

Names follow Prometheus: base units, `_total` for counters. Labels are bounded by the size of the fleet; no task ids.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["counter", "gauge", "histogram"]

DURATION_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Contract section 6 asks for 0.1 0.5 1 2 5 10; the finer ones show what a fast agent does."""


class Metric(NamedTuple):
    kind: Kind
    labels: tuple[str, ...]
    help: str


TASKS = "agent_tasks_total"
DURATION = "agent_task_duration_seconds"
QUEUE = "agent_queue_size"
DECISIONS = "routing_decisions_total"
BREAKER = "circuit_breaker_state"

METRICS: dict[str, Metric] = {
    TASKS: Metric("counter", ("agent_name", "status"), "Tasks that ended, by how they ended."),
    DURATION: Metric("histogram", ("agent_name",), "Handler time of tasks, seconds."),
    QUEUE: Metric("gauge", ("agent_name",), "Tasks waiting inside the agent's process."),
    DECISIONS: Metric("counter", ("strategy", "outcome"), "Routing decisions."),
    BREAKER: Metric("gauge", ("agent_id",), "0 closed, 1 half-open, 2 open."),
    "agent_utilization_ratio": Metric("gauge", ("agent_name",), "Busy share of all replicas' slots, 0 to 1."),
    "agent_waiting_tasks": Metric(
        "gauge", ("agent_name",), "Tasks waiting for the agent, on the bus or in its replicas."
    ),
    "agent_error_ratio": Metric("gauge", ("agent_name",), "Share of attempts in the last minute that were errors."),
    "agent_tasks_per_second": Metric("gauge", ("agent_name",), "Attempts that ended, a second, over the last minute."),
    "agent_scale_up_replicas": Metric("gauge", ("agent_name",), "Replicas the scaling matrix advises to add."),
    "agent_undecodable_tasks_total": Metric("counter", ("agent_name",), "Tasks whose bytes could not be read."),
    "agent_tasks_handed_back_total": Metric("counter", ("agent_name",), "Tasks given back to the queue unrun."),
    "agent_report_retries_total": Metric("counter", ("agent_name",), "Reports sent again because the bus was away."),
    "agent_progress_lost_total": Metric("counter", ("agent_name",), "Progress of tasks that could not be told."),
    "agent_paused": Metric(
        "gauge", ("agent_name",), "1 while a replica takes no work because its tasks die in series."
    ),
    "agent_starts_unnoted_total": Metric(
        "counter", ("agent_name",), "Starts of redelivered tasks that could not be noted."
    ),
    "agent_loop_blocked_total": Metric("counter", ("agent_name",), "Times the event loop stood still for too long."),
    "agent_lease_lost_total": Metric(
        "counter", ("agent_name",), "Tasks whose lease ended while they were held here; another replica may run them."
    ),
    "agent_loop_lag_seconds": Metric("gauge", ("agent_name",), "How late the event loop is."),
    "submissions_shed_total": Metric(
        "counter", ("priority",), "Submissions refused because queues behind them are long."
    ),
    "reports_unrecorded": Metric("gauge", (), "Messages of the report log that wait for the recorder."),
    "tasks_journaled_total": Metric("counter", (), "Tasks accepted while the ledger was away."),
    "journal_entries_settled_total": Metric("counter", (), "Journaled tasks brought into the ledger."),
    "reports_recorded_total": Metric("counter", ("verdict",), "Reports the ledger took, by what became of them."),
    "reports_refused_total": Metric(
        "counter", ("reason",), "Reports not recorded because their capability was missing, unknown or forged."
    ),
    "schedule_runs_total": Metric(
        "counter",
        ("outcome",),
        "Occurrences of schedules: made, refused (never), postponed (nobody could take the task).",
    ),
    "engine_leader": Metric("gauge", ("role",), "1 on the router that leads in this role, 0 on the others."),
    "retries_delayed_total": Metric("counter", (), "Retries that were due and waited for the retry budget."),
    "tasks_redispatched_total": Metric(
        "counter", ("reason",), "Tasks sent again: due, stranded, abandoned, held or reopened."
    ),
    "dependency_breaker_state": Metric("gauge", ("dependency",), "0 answers, 1 is being probed, 2 is not waited for."),
    "routing_hedges_total": Metric(
        "counter",
        ("outcome",),
        "Second legs of idempotent tasks: sent, then won, lost (the first leg won) or fallen (one leg failed); "
        "not sent: refused, late (the task had ended), suspended (servers, budget or utilisation).",
    ),
    "routing_lessons_lost_total": Metric(
        "counter",
        ("reason",),
        "Lessons not learned: waiting, bus, unusable, forged, unreadable, or forgotten by the log.",
    ),
    "routing_lessons_refused_total": Metric("counter", ("strategy",), "Outcomes a strategy did not take."),
    "routing_learned_mismatches_total": Metric(
        "counter", (), "Times another router had learned something else from the same lessons."
    ),
    "agent_engines_build_info": Metric("gauge", ("version", "python", "engine"), "Always 1; labels say what runs."),
}
