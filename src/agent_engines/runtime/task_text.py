"""Text as numbers, for task types that ask for it: the words of one payload field, hashed (learning/task_features.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from agent_engines.domain.budgets import NOTHING, Spend
from agent_engines.domain.decisions import DecisionContext
from agent_engines.domain.tasks import Task
from agent_engines.learning.task_features import hashed_text

from .dispatches import context_of

_decode_object = msgspec.json.Decoder(dict[str, Any]).decode


class TaskTexts:
    """`fields`: which field of the payload is the text, for each task type that has one."""

    def __init__(self, fields: Mapping[str, str] | None = None) -> None:
        self._fields = dict(fields or {})

    def context(
        self, task: Task, request_id: str, *, spent: Spend = NOTHING, price: float | None = None
    ) -> DecisionContext:
        """What a strategy may know about a task; the text stands in for an embedding the caller did not give.

        `spent`: of its budget, by earlier attempts; `price`: of one unit of cost for its tenant now.
        """
        context = context_of(task, request_id, spent=spent, price=price)
        field = self._fields.get(task.task_type)
        if field is None or context.embedding is not None:
            return context
        text = _text(task.payload, field)
        return context if text is None else msgspec.structs.replace(context, embedding=hashed_text(text))


def _text(payload: msgspec.Raw, field: str) -> str | None:
    """None when the payload has no such text."""
    try:
        value = _decode_object(payload).get(field)
    except msgspec.MsgspecError:
        return None
    return value if isinstance(value, str) and value else None
