"""Operations: the table of everything the API can do; requests are matched against it and the document is made from it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent_engines.domain.errors import NotFound

from .exchange import Call, Reply
from .problems import MethodNotAllowed

Handler = Callable[[Call], Awaitable[Reply]]

UUID = "[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
SHAPES = {
    "task_id": UUID,
    "agent_id": "[A-Za-z0-9][A-Za-z0-9_-]{0,63}",
    "request_id": ".{1,255}",
    "schedule": "[A-Za-z0-9][A-Za-z0-9._-]{0,127}",
    "tenant": "[A-Za-z0-9][A-Za-z0-9._-]{0,63}",
    "version": "[A-Za-z0-9._:@+-]{1,128}",
}
"""What each part of a path may look like; anything else is not found, and never reaches a database."""
_SOME_TASK = re.compile(rf"/v1/(?:tasks|dead-letters)/(?!{UUID}(?:[:/]|$))(?P<task_id>[^/:]{{1,64}})(?=[:/]|$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method on one path. Shapes are struct types, or tuples of them for "one of these".

    `replies` maps status to the shape of the JSON answer; None: it is not JSON.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    tag: str
    replies: Mapping[int, Any]
    problems: Sequence[int] = ()
    query: type | None = None
    body: Any = None
    body_needed: bool = True
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    """Request headers that matter, with what they do."""
    media_type: str = "application/json"
    probe: bool = False
    """Answered even when everything else is refused for load."""


class Routes:
    """Finds the operation for a request: exact paths by lookup, the others by trying few patterns in order."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self.operations = tuple(operations)
        self._exact: dict[str, dict[str, Operation]] = {}
        patterns: dict[str, dict[str, Operation]] = {}
        for operation in operations:
            table = patterns if "{" in operation.path else self._exact
            methods = table.setdefault(operation.path, {})
            methods[operation.method] = operation
            if operation.method == "GET":
                methods["HEAD"] = operation
        self._patterns = [(compiled(path), methods) for path, methods in patterns.items()]

    def find(self, method: str, path: str) -> tuple[Operation, dict[str, str]]:
        """Raises NotFound, MethodNotAllowed."""
        methods = self._exact.get(path)
        params: dict[str, str] = {}
        if methods is None:
            for pattern, candidate in self._patterns:
                match = pattern.fullmatch(path)
                if match is not None:
                    methods, params = candidate, match.groupdict()
                    break
            else:
                raise NotFound(_nothing_at(path))
        operation = methods.get(method)
        if operation is None:
            raise MethodNotAllowed(method, sorted(methods))
        return operation, params


def _nothing_at(path: str) -> str:
    """A short or mistyped task id is the usual reason, and "nothing at this path" would send its reader to the wrong place."""
    task = _SOME_TASK.match(path)
    if task is not None:
        return f"no task {task['task_id']!r}: the id of a task is a UUID, as the submission answered it"
    return "there is nothing at this path; /docs lists what there is"


def compiled(path: str) -> re.Pattern[str]:
    """`/v1/tasks/{task_id}:retry` as a pattern whose groups are the parts."""
    pieces = re.split(r"\{(\w+)\}", path)
    return re.compile(
        "".join(
            f"(?P<{piece}>{SHAPES[piece]})" if index % 2 else re.escape(piece) for index, piece in enumerate(pieces)
        )
    )
