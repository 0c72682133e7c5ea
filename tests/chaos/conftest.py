"""Fault runs, by `make chaos` only: a fresh `engines up` with the fault engine for each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

# The end-to-end tests know how to run a system.
sys.path.append(str(Path(__file__).resolve().parents[1] / "e2e"))

from fault_house import AGENT, environment
from running_system import System, system

Start = Callable[..., AbstractContextManager[System]]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """`with start(replicas=3) as running`: ephemeral servers, the built-in engines and the fault engine."""

    @contextmanager
    def starting(*, replicas: int = 2, **variables: str) -> Iterator[System]:
        options = ["--ephemeral", "--engine", f"{AGENT}*{replicas}"]
        with system(tmp_path, *options, environment=environment(tmp_path, **variables)) as running:
            yield running

    return starting
