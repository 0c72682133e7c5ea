"""Failing handlers in the log: the first of a kind with its traceback, then at most one every ten seconds."""

from __future__ import annotations

import traceback

from agent_engines.ports.telemetry import Log

QUIET_SECONDS = 10.0
MAX_KINDS = 1_000


class Complaints:
    """One kind is a task type with an error class; every task's own failure is in its report anyway."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._kinds: dict[tuple[str, str], tuple[float, int]] = {}

    def hear(self, task_type: str, task_id: str, error: BaseException, now: float) -> None:
        """`now`: seconds of any clock that does not run backwards."""
        kind = (task_type, type(error).__name__)
        last, silent = self._kinds.get(kind, (float("-inf"), 0))
        if now - last < QUIET_SECONDS:
            self._kinds[kind] = (last, silent + 1)
            return
        if len(self._kinds) >= MAX_KINDS:
            self._kinds.clear()
        self._kinds[kind] = (now, 0)
        self._log.warning(
            "A handler failed",
            task_type=task_type,
            task_id=task_id,
            error=repr(error)[:2000],
            traceback="".join(traceback.format_exception(error, limit=-8))[-8000:],
            unlogged_since_last=silent,
        )
