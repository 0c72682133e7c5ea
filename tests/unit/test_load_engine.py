"""What `engines run module:attr` takes for an engine, and how it says what is wrong."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_engines.bootstrap.custom import load_engine
from agent_engines.domain.errors import ConfigurationError

MODULE = """
from agent_engines import Engine

engine = Engine("hello")
ran = []

@engine.task("greet")
async def greet(payload: dict) -> dict:
    return payload

@engine.task("tick")
def tick():
    ran.append(1)

def make():
    return Engine("made")

def with_arguments(name):
    return Engine(name)

async def later():
    return engine
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "engines_to_load.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("engines_to_load", None)


@pytest.mark.parametrize(("attribute", "agent"), [("engine", "hello"), ("make", "made")])
def test_an_engine_or_a_function_that_makes_one(attribute: str, agent: str) -> None:
    assert load_engine(f"engines_to_load:{attribute}").config.agent_id == agent


@pytest.mark.parametrize(
    ("attribute", "told"),
    [
        ("greet", "'greet' of 'engines_to_load' is a handler, name its engine; it has engine"),
        ("tick", "'tick' of 'engines_to_load' is a handler, name its engine; it has engine"),
        ("with_arguments", "wants arguments: missing a required argument: 'name'"),
        ("later", "it is an `async def`, write a plain function"),
        ("nothing", "has no engine called 'nothing'; it has engine"),
    ],
)
def test_anything_else_is_told_in_one_line_and_no_handler_runs(attribute: str, told: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_engine(f"engines_to_load:{attribute}")
    assert told in str(caught.value)
    assert sys.modules["engines_to_load"].ran == []
