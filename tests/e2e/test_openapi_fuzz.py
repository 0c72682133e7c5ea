"""The OpenAPI document, taken at its word: generated requests never meet an error or a status it does not describe.

Every worker collects every file, so schemathesis, whose import costs seconds, is loaded by the one that runs this.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, Phase, given, settings

from api_house import HouseThread

EXAMPLES = 20
PATIENCE_SECONDS = 30
LONGEST_POLL = 1.0
"""Seconds; the document allows five minutes, and its own example takes twenty seconds."""
GOLDEN = Path(__file__).parent.parent / "golden" / "openapi.json"
"""The same as the served one: tests/unit/test_api_openapi.py holds them together."""

ASKED = [
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "allow_header_conformance",
]


def scenarios() -> list[Any]:
    """Each operation with valid and, where something can be wrong at all, with invalid requests."""
    found = []
    for path, methods in json.loads(GOLDEN.read_text())["paths"].items():
        for method, operation in methods.items():
            label = f"{method.upper()} {path}"
            found.append(pytest.param(label, "positive", id=f"valid {label}"))
            if operation.get("parameters") or operation.get("requestBody"):
                found.append(pytest.param(label, "negative", id=f"invalid {label}"))
    return found


@pytest.fixture(scope="module")
def schema() -> Any:
    return import_module("schemathesis")


@pytest.fixture(scope="module")
def operations(schema: Any) -> dict[str, Any]:
    """By label, as `GET /health`."""
    loaded = [one.ok() for one in schema.openapi.from_path(GOLDEN).get_all_operations()]
    return {operation.label: operation for operation in loaded}


@pytest.fixture(scope="module")
def house() -> Iterator[HouseThread]:
    with HouseThread() as running:
        yield running


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as kept:
        yield kept


def shorten_polls(case: Any) -> None:
    """A valid wait stays valid and is over soon; an invalid one stays as it is."""
    for part in (case.body, case.query):
        if isinstance(part, dict) and isinstance(part.get("wait"), int | float) and LONGEST_POLL < part["wait"] <= 300:
            part["wait"] = LONGEST_POLL


@pytest.mark.parametrize(("label", "mode"), scenarios())
def test_every_answer_is_one_that_is_described(
    house: HouseThread, session: requests.Session, schema: Any, operations: dict[str, Any], label: str, mode: str
) -> None:
    """A 503 is described where nobody can do a made-up task type; a 500 is described nowhere."""
    asked = import_module("schemathesis.checks").CHECKS.get_by_names(ASKED)
    statuses: set[int] = set()

    @given(case=operations[label].as_strategy(generation_mode=schema.GenerationMode(mode)))
    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        deadline=None,
        database=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    def fuzz(case: Any) -> None:
        shorten_polls(case)
        answer = case.call(base_url=house.url, session=session, timeout=PATIENCE_SECONDS)
        statuses.add(answer.status_code)
        case.validate_response(answer, checks=asked)

    fuzz()
    assert statuses
    assert 500 not in statuses
    assert [line for line in house.telemetry.lines if line[1] == "Request failed unexpectedly"] == []
