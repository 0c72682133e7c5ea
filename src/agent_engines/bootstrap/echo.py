"""The process of the built-in echo agent: `engines run echo`."""

from __future__ import annotations

from agent_engines.config import Config
from agent_engines.engines.echo import echo_engine

from .custom import host_custom
from .process import Hosted, run


def run_echo(config: Config) -> int:
    """Host it until a signal comes; returns the exit code."""

    async def assemble() -> Hosted:
        return await host_custom(echo_engine(), config)

    return run(assemble)
