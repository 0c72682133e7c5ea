"""Names on the bus. `docs/reference/bus.md` lists who may publish and listen where."""

from __future__ import annotations

from .tasks import PriorityClass

PREFIX = "ae.v1"

RESULTS_STREAM = "RESULTS"
RESULTS = f"{PREFIX}.result.*"
RECORDER_DURABLE = "recorder"

JOURNAL_STREAM = "JOURNAL"
JOURNAL = f"{PREFIX}.journal.*"
KEEPER_DURABLE = "keeper"

LESSONS_STREAM = "LESSONS"
LESSONS = f"{PREFIX}.lesson.*"

PROGRESS_STREAM = "PROGRESS"
PROGRESS = f"{PREFIX}.progress.*"

SETTINGS_BUCKET = "AE_SETTINGS"

HELLO = f"{PREFIX}.hello"
"""A router asks every replica for a full heartbeat."""
HEARTBEATS = f"{PREFIX}.heartbeat.*"
RECORDED = f"{PREFIX}.recorded.*"
"""ReportBatch of what the recorder has just committed, at once, grouped by the submitter's origin."""
OUTCOMES = f"{PREFIX}.outcomes.*"
"""The same without results, of all origins, a moment later and together: for those who learn from it."""
FEEDBACK = f"{PREFIX}.feedback.*"
"""Of outcomes the judgements alone: for those who need not hear of anything else."""
LEARNED = f"{PREFIX}.learned.*"
"""Each router tells the others how far it has learned (runtime/lessons.py)."""
SUBMIT = f"{PREFIX}.submit"
"""SubmitBatch -> SubmitReply, one router of the queue group `intelligence`."""


def task_stream(priority: PriorityClass) -> str:
    return f"TASKS_{priority.upper()}"


def task(priority: PriorityClass, agent: str) -> str:
    return f"{PREFIX}.task.{priority}.{agent}"


def agent_durable(agent: str) -> str:
    return f"agent-{agent}"


def result(agent: str) -> str:
    return f"{PREFIX}.result.{agent}"


def lesson(router: str) -> str:
    return f"{PREFIX}.lesson.{router}"


def learned(router: str) -> str:
    """How far a router has learned, and the digest of that."""
    return f"{PREFIX}.learned.{router}"


def journal(task_id: str) -> str:
    return f"{PREFIX}.journal.{task_id}"


def progress(task_id: str) -> str:
    return f"{PREFIX}.progress.{task_id}"


def heartbeat(agent: str) -> str:
    return f"{PREFIX}.heartbeat.{agent}"


def recorded(origin: str) -> str:
    return f"{PREFIX}.recorded.{origin}"


def outcomes(router: str) -> str:
    """What this router has recorded."""
    return f"{PREFIX}.outcomes.{router}"


def feedback(router: str) -> str:
    """What of that was feedback."""
    return f"{PREFIX}.feedback.{router}"


def cancel(agent: str) -> str:
    """CancelOrder for every replica of an agent."""
    return f"{PREFIX}.cancel.{agent}"


def ask(engine: str, what: str) -> str:
    """Request-reply with an engine: JSON in, JSON out."""
    return f"{PREFIX}.ask.{engine}.{what}"


def agent_mode(agent: str) -> str:
    """Settings key: what an operator decided about an agent (AgentMode)."""
    return f"agent.{agent}.mode"


AGENT_MODES = "agent."


def leader(role: str) -> str:
    """Settings key: the name of the process that leads in this role."""
    return f"leader.{role}"


def agent_breaker(agent: str) -> str:
    """Settings key: what the routers say about an agent's breaker (BreakerWord)."""
    return f"{BREAKERS}{agent}"


BREAKERS = "breaker."

POLICY = "routing.policy"
"""Settings key: the policy all routers route by, and how it came to that (PolicyWord)."""
ROUTER_POLICIES = "routing.router."
ROUTING = "routing."


def router_policy(router: str) -> str:
    """Settings key: what this router makes of the word under POLICY (runtime/policy_board.py: Standing)."""
    return f"{ROUTER_POLICIES}{router}"
