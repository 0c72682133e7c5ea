"""The OpenAPI document, taken at its word: generated requests never meet an error or a status it does not describe."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS

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
    for loaded in schemathesis.openapi.from_path(GOLDEN).get_all_operations():
        operation = loaded.ok()
        found.append(pytest.param(operation, GenerationMode.POSITIVE, id=f"valid {operation.label}"))
        if operation.definition.raw.get("parameters") or operation.definition.raw.get("requestBody"):
            found.append(pytest.param(operation, GenerationMode.NEGATIVE, id=f"invalid {operation.label}"))
    return found


@pytest.fixture(scope="module")
def house() -> Iterator[HouseThread]:
    with HouseThread() as running:
        yield running


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as kept:
        yield kept


def shorten_polls(case: schemathesis.Case) -> None:
    """A valid wait stays valid and is over soon; an invalid one stays as it is."""
    for part in (case.body, case.query):
        if isinstance(part, dict) and isinstance(part.get("wait"), int | float) and LONGEST_POLL < part["wait"] <= 300:
            part["wait"] = LONGEST_POLL


@pytest.mark.parametrize(("operation", "mode"), scenarios())
def test_every_answer_is_one_that_is_described(
    house: HouseThread, session: requests.Session, operation: Any, mode: GenerationMode
) -> None:
    """A 503 is described where nobody can do a made-up task type; a 500 is described nowhere."""
    asked = CHECKS.get_by_names(ASKED)
    statuses: set[int] = set()

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        deadline=None,
        database=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    def fuzz(case: schemathesis.Case) -> None:
        shorten_polls(case)
        answer = case.call(base_url=house.url, session=session, timeout=PATIENCE_SECONDS)
        statuses.add(answer.status_code)
        case.validate_response(answer, checks=asked)

    fuzz()
    assert statuses
    assert 500 not in statuses
    assert [line for line in house.telemetry.lines if line[1] == "Request failed unexpectedly"] == []
