"""Fixtures for users' tests: put `pytest_plugins = ["agent_engines.testing.plugin"]` into the top conftest.py.

Both are functions that take your engines: `async with agent_stack(engine) as stack: ...`. Needs an asyncio plugin of pytest.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from .stack import Stack, in_process, local_stack

StackFactory = Callable[..., AbstractAsyncContextManager[Stack]]


@pytest.fixture
def agent_stack() -> StackFactory:
    """A system inside the test's own process; milliseconds."""
    return in_process


@pytest.fixture
def real_agent_stack(tmp_path: Path) -> StackFactory:
    """A system on real servers; seconds."""

    def make(*engines: object) -> AbstractAsyncContextManager[Stack]:
        return local_stack(*engines, data_dir=tmp_path)  # type: ignore[arg-type]

    return make
