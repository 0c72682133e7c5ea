"""The system the end-to-end tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from running_system import System, system, wait_until

__all__ = ["System", "system", "wait_until"]


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """One system for all tests that do no lasting harm to it: echo agents and the misbehaving ones.

    What a test kills is started again by the supervisor, and what it held comes back after a short lease.
    """
    options = ["--ephemeral", "--engine", "agent_engines.engines.echo:echo_engine", "--engine", "misbehaving:engine*2"]
    environment = {"LOG_LEVEL": "INFO", "ENGINES_LEASE_SECONDS": "5"}
    with system(tmp_path_factory.mktemp("fleet"), *options, environment=environment) as running:
        yield running
