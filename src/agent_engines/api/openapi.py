"""The OpenAPI 3.1 document, made from the table of operations and the structs they name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, cast

import msgspec

from .problems import PROBLEMS, Problem
from .routing import SHAPES, Operation

REF = "#/components/schemas/{name}"
ABOUT = (
    "Routes every task to the agent most likely to finish it well, explains why, and loses nothing it accepted. "
    "Errors are RFC 9457 problems. Times are ISO 8601 UTC; durations name their unit."
)
EXAMPLE = {"task_type": "echo", "payload": {"text": "hello"}, "priority": 3}
PARTS = {
    "task_id": {"type": "string", "format": "uuid"},
    "agent_id": {"type": "string", "pattern": f"^{SHAPES['agent_id']}$"},
    "request_id": {"type": "string", "minLength": 1, "maxLength": 255},
    "schedule": {"type": "string", "pattern": f"^{SHAPES['schedule']}$"},
    "tenant": {"type": "string", "pattern": f"^{SHAPES['tenant']}$"},
    "version": {"type": "string", "pattern": f"^{SHAPES['version']}$"},
}

EXAMPLES: dict[str, Any] = {
    "/v1/tasks:batch": {"tasks": [EXAMPLE]},
    "/v1/dead-letters:redrive": {"task_type": "echo", "rate": 50},
    "/v1/schedules": {
        "name": "nightly-report",
        "cron": "30 2 * * *",
        "timezone": "Europe/Berlin",
        "task": {"task_type": "report", "payload": {"days": 1}},
    },
    "/v1/schedules/{schedule}": {"cron": "@hourly", "task": {"task_type": "report"}},
    "/v1/tasks/{task_id}/feedback": {"quality": 0.8, "source": "reviewer", "comment": "one date is wrong"},
    "/v1/tenants/{tenant}": {"budget": {"cost": 100.0, "period_seconds": 86400}, "weight": 2},
    "/v1/tasks:wait": {"task_ids": ["018f3c2e-7a51-7c3e-9d54-6b1f0a2c4e88"], "wait": 20},
}
"""By path; other bodies are tasks."""

Json = dict[str, Any]


def document(operations: Sequence[Operation], *, version: str) -> Json:
    """The whole document as plain data."""
    shapes = _shapes(operations)
    schemas, components = msgspec.json.schema_components(shapes, ref_template=REF)
    schema_of = dict(zip(map(_key, shapes), schemas, strict=True))
    paths: Json = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation, schema_of, components)
    for query in {operation.query for operation in operations if operation.query}:
        components.pop(query.__name__, None)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Agent Engines", "version": version, "description": ABOUT, "license": {"name": "Apache-2.0"}},
        "tags": [{"name": tag} for tag in dict.fromkeys(operation.tag for operation in operations)],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(components.items())),
            "responses": _problem_responses(operations),
        },
        "x-problems": [
            {"status": kind.status, "type": f"/docs#problem-{kind.slug}", "title": kind.title, "advice": kind.advice}
            for kind in sorted(PROBLEMS.values())
        ],
    }


def _shapes(operations: Sequence[Operation]) -> list[Any]:
    found: dict[str, Any] = {_key(Problem): Problem}
    for operation in operations:
        for shapes in (operation.body, operation.query, *operation.replies.values()):
            for shape in _each(shapes):
                found.setdefault(_key(shape), shape)
    return list(found.values())


def _key(shape: Any) -> str:
    return repr(shape)


def _each(shapes: Any) -> tuple[Any, ...]:
    if shapes is None:
        return ()
    return cast("tuple[Any, ...]", shapes) if isinstance(shapes, tuple) else (shapes,)


def _schema(shapes: Any, schema_of: dict[str, Json]) -> Json:
    found = [schema_of[_key(shape)] for shape in _each(shapes)]
    return found[0] if len(found) == 1 else {"anyOf": found}


def _described(operation: Operation, schema_of: dict[str, Json], components: Json) -> Json:
    described: Json = {
        "operationId": _name(operation),
        "summary": operation.summary,
        "tags": [operation.tag],
        "parameters": _parameters(operation, components),
        "responses": _responses(operation, schema_of),
    }
    if operation.body is not None:
        schema = _schema(operation.body, schema_of)
        described["requestBody"] = {
            "required": operation.body_needed,
            "content": {"application/json": {"schema": schema, "example": EXAMPLES.get(operation.path, EXAMPLE)}},
        }
    return described


def _name(operation: Operation) -> str:
    words = re.findall(r"[A-Za-z]+", re.sub(r"\{\w+\}", "one", operation.path.removeprefix("/v1")))
    return "_".join([operation.method.lower(), *words])


def _parameters(operation: Operation, components: Json) -> list[Json]:
    parameters: list[Json] = [
        {"name": part, "in": "path", "required": True, "schema": PARTS[part]}
        for part in re.findall(r"\{(\w+)\}", operation.path)
    ]
    if operation.query is not None:
        properties = cast("Json", components[operation.query.__name__]["properties"])
        parameters.extend(_query_parameter(name, dict(schema)) for name, schema in properties.items())
    parameters.extend(
        {"name": name, "in": "header", "required": False, "description": text, "schema": {"type": "string"}}
        for name, text in operation.headers.items()
    )
    return parameters


def _query_parameter(name: str, schema: Json) -> Json:
    # A query string has no null: an optional parameter is simply left out.
    if isinstance(options := schema.pop("anyOf", None), list):
        schema |= next(option for option in options if option != {"type": "null"})
        if schema.get("default", 0) is None:
            del schema["default"]
    parameter: Json = {"name": name, "in": "query", "required": False}
    if description := schema.pop("description", None):
        parameter["description"] = description
    return {**parameter, "schema": schema}


def _responses(operation: Operation, schema_of: dict[str, Json]) -> Json:
    responses: Json = {}
    for status, shape in operation.replies.items():
        response: Json = {"description": _description(status)}
        if status == 202 and operation.path == "/v1/tasks":
            response["headers"] = {"Location": {"schema": {"type": "string"}, "description": "where the task is"}}
        if shape is not None:
            response["content"] = {operation.media_type: {"schema": _schema(shape, schema_of)}}
        elif status != 204:
            response["content"] = {operation.media_type: {"schema": {"type": "string"}}}
        responses[str(status)] = response
    for status in operation.problems:
        responses[str(status)] = {"$ref": f"#/components/responses/Problem{status}"}
    return dict(sorted(responses.items()))


def _description(status: int) -> str:
    return {
        200: "Done",
        201: "Made",
        202: "Accepted",
        204: "Nothing more will come",
        503: "Not healthy",
    }[status]


def _problem_responses(operations: Sequence[Operation]) -> Json:
    used = sorted({status for operation in operations for status in operation.problems})
    titles: dict[int, list[str]] = {}
    for kind in PROBLEMS.values():
        titles.setdefault(kind.status, []).append(kind.title)
    return {f"Problem{status}": _problem_response(status, " or ".join(titles[status])) for status in used}


def _problem_response(status: int, title: str) -> Json:
    response: Json = {
        "description": title,
        "content": {"application/problem+json": {"schema": {"$ref": REF.format(name="Problem")}}},
    }
    if status in (429, 503):
        response["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds"}}
    return response
