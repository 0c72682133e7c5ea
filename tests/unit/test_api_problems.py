"""Errors become problems by one table."""

from __future__ import annotations

import msgspec
import pytest

from agent_engines.api.problems import PROBLEMS, kind_of, problem, problem_of
from agent_engines.domain import errors
from agent_engines.domain.errors import (
    AgentEnginesError,
    Conflict,
    InvalidRequest,
    Malformed,
    NoEligibleAgent,
    NotFound,
    QueueFull,
    TooLarge,
    Unavailable,
)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Malformed("x"), 400),
        (NotFound("x"), 404),
        (Conflict("x"), 409),
        (TooLarge("x"), 413),
        (InvalidRequest("x"), 422),
        (QueueFull("x"), 429),
        (Unavailable("x"), 503),
        (NoEligibleAgent("x"), 503),
        (AgentEnginesError("x"), 500),
        (ValueError("x"), 500),
    ],
)
def test_every_error_has_its_status(error: Exception, status: int) -> None:
    assert problem(error, "r").status == status


def test_an_error_and_its_refusal_over_the_bus_are_the_same_problem() -> None:
    """A refusal carries only the class's name; the caller must not see a difference."""
    for error in (QueueFull("full", retry_after=2.5), NoEligibleAgent("none"), Conflict("c")):
        refused = problem_of(
            type(error).__name__, str(error), "r", None, retry_after=getattr(error, "retry_after", None)
        )
        assert refused == problem(error, "r")


def test_each_problem_leads_to_its_own_paragraph() -> None:
    slugs = [kind.slug for kind in PROBLEMS.values()]
    assert len(set(slugs)) == len(slugs)
    assert problem(QueueFull("x"), "r").type == "/docs#problem-queue-full"


def test_the_field_is_named() -> None:
    written = msgspec.json.decode(msgspec.json.encode(problem(InvalidRequest("bad", field="priority"), "r-1")))
    assert written == {
        "type": "/docs#problem-invalid-request",
        "title": "Invalid request",
        "status": 422,
        "detail": "bad",
        "request_id": "r-1",
        "field": "priority",
    }


@pytest.mark.parametrize(("asked", "told"), [(0.01, 1), (1.0, 1), (1.2, 2), (30.0, 30)])
def test_retry_after_is_whole_seconds_and_never_too_early(asked: float, told: int) -> None:
    assert problem(Unavailable("x", retry_after=asked), "r").retry_after == told


def test_an_unexpected_error_tells_nothing_of_itself() -> None:
    told = problem(RuntimeError("password=hunter2"), "r")
    assert "hunter2" not in repr(told)
    assert told.status == 500


def test_what_cannot_be_written_as_utf8_is_replaced() -> None:
    assert problem(InvalidRequest("half a pair: \ud800"), "r").detail == "half a pair: ?"


def test_every_public_error_is_in_the_table_or_is_a_fault_of_ours() -> None:
    """A new error must be given a status on purpose."""
    faults = {
        "AgentEnginesError",
        "TaskFailed",
        "ContractViolation",
        "ConfigurationError",
        "EmbeddedServerError",
        "BackupFailed",
        # Only clients raise it: there was no answer.
        "Unreachable",
    }
    for name, error in vars(errors).items():
        if isinstance(error, type) and issubclass(error, AgentEnginesError) and name not in faults:
            kind = PROBLEMS.get(error)
            assert kind is not None, name
            assert kind_of(error.__new__(error)) is kind
