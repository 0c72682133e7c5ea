"""Adapters raise finer errors than callers know: a refusal names the class that is in domain/errors.py."""

from __future__ import annotations

from agent_engines.adapters.jetstream.requests import NobodyThere
from agent_engines.domain.errors import QueueFull
from agent_engines.runtime.answers import refusal


def test_an_adapters_own_error_is_refused_under_its_public_name() -> None:
    said = refusal(NobodyThere("nobody serves this on the bus", retry_after=2.0))
    assert (said.kind, said.detail, said.retry_after) == ("Unavailable", "nobody serves this on the bus", 2.0)


def test_a_public_error_keeps_its_name() -> None:
    assert refusal(QueueFull("full", retry_after=1.0)).kind == "QueueFull"
