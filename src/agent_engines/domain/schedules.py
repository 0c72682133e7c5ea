"""Schedules: tasks that are made again and again, at times a cron expression names."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Any

import msgspec

from .errors import InvalidRequest
from .tasks import DEFAULT_PRIORITY, NO_PAYLOAD, TaskRequest
from .terms import DEFAULT_TENANT, Affinity, Budget

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""A name stands in paths and in idempotency keys."""
MAX_CRON_LENGTH = 255


class CatchUp(StrEnum):
    """What becomes of occurrences that passed while no router ran."""

    SKIP = "skip"
    """The latest one is made up for, those before it are not."""
    ALL = "all"
    """Each of them is made up for, oldest first."""


class TaskTemplate(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What every task of a schedule asks for; the fields of TaskRequest that make sense more than once. Stored without defaults."""

    task_type: str
    payload: msgspec.Raw = NO_PAYLOAD
    requirements: dict[str, Any] = {}
    priority: int = DEFAULT_PRIORITY
    timeout_seconds: float | None = None
    max_attempts: int | None = None
    metadata: dict[str, Any] = {}
    strategy: str | None = None
    features: list[float] | None = None
    embedding: list[float] | None = None
    tenant: str = DEFAULT_TENANT
    budget: Budget | None = None
    """Of each task by itself."""
    affinity: Affinity | None = None


class ScheduleDraft(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule as somebody asks for it."""

    name: str
    cron: str
    task: TaskTemplate
    timezone: str = "UTC"
    enabled: bool = True
    catch_up: CatchUp = CatchUp.SKIP


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """A stored schedule. Times: epoch seconds; `next_run_at` is None while it is paused, or when it never comes again."""

    name: str
    cron: str
    timezone: str
    task: TaskTemplate
    enabled: bool
    catch_up: CatchUp
    next_run_at: float | None
    last_run_at: float | None = None
    """The occurrence the last task was made for, or when it was run by hand."""
    last_task_id: str | None = None
    last_error: str | None = None
    """Why the last occurrence made no task (yet)."""
    created_at: float = 0.0
    updated_at: float = 0.0


def check_schedule_name(name: str) -> None:
    """Raises InvalidRequest."""
    if not NAME.fullmatch(name):
        raise InvalidRequest("name must have 1 to 128 letters, digits, '.', '_' or '-'", field="name")


def occurrence_key(name: str, occurrence: float) -> str:
    """Whoever makes the task of one occurrence, and however often: it is the same task."""
    return f"schedule:{name}:{int(occurrence)}"


def scheduled_request(name: str, template: TaskTemplate, *, key: str, occurrence: float) -> TaskRequest:
    """The task of one occurrence; its metadata says which."""
    return TaskRequest(
        task_type=template.task_type,
        payload=template.payload,
        requirements=template.requirements,
        priority=template.priority,
        timeout_seconds=template.timeout_seconds,
        max_attempts=template.max_attempts,
        metadata={**template.metadata, "schedule": name, "scheduled_for": int(occurrence)},
        idempotency_key=key,
        strategy=template.strategy,
        features=template.features,
        embedding=template.embedding,
        tenant=template.tenant,
        budget=template.budget,
        affinity=template.affinity,
    )
