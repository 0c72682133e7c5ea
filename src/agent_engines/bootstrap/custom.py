"""The process of a custom engine: `engines run module:attr`. No database, no cache, no web framework."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from agent_engines.adapters.file_spool import FileSpool
from agent_engines.config import Config
from agent_engines.domain.errors import ConfigurationError
from agent_engines.runtime.engine import Engine

from .connect import connect_bus, telemetry_for
from .observer import observed
from .process import Hosted, run


def run_custom(target: str, config: Config) -> int:
    """Host the engine `module:attr` names until a signal comes; returns the exit code."""

    async def assemble() -> Hosted:
        return await host_custom(load_engine(target), config)

    return run(assemble)


def load_engine(target: str) -> Engine:
    """Import `module:attr`, an engine or a function that makes one; the current folder is searched too.

    Raises ConfigurationError naming what is wrong.
    """
    module_name, _, attribute = target.partition(":")
    if not module_name or not attribute:
        raise ConfigurationError([f"{target!r} is not an engine: write module:attribute, for example hello:engine"])
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise ConfigurationError([f"there is no module {module_name!r} in {here} or the environment"]) from error
        raise ConfigurationError([f"module {module_name!r} needs {error.name!r}, which is not installed"]) from error
    named = getattr(module, attribute, None)
    found = {name: value for name, value in vars(module).items() if isinstance(value, Engine)}
    hint = f"; it has {', '.join(sorted(found))}" if found else ""
    # Only a function that can make an engine is called: a handler would do its work here, without any task.
    if callable(named) and not isinstance(named, type | Engine):
        if any(engine.performs(named) for engine in found.values()):
            raise ConfigurationError([f"{attribute!r} of {module_name!r} is a handler, name its engine{hint}"])
        named = _made(named, f"{module_name}:{attribute}")
    if isinstance(named, Engine):
        return named
    raise ConfigurationError([f"{module_name!r} has no engine called {attribute!r}{hint}"])


def _made(make: Callable[..., object], target: str) -> object:
    """What the function returns. Raises ConfigurationError for one that cannot be called with nothing and answer at once."""
    try:
        inspect.signature(make).bind()
    except (TypeError, ValueError) as error:
        raise ConfigurationError([f"{target} makes no engine, it wants arguments: {error}"]) from error
    if inspect.iscoroutinefunction(make):
        raise ConfigurationError([f"{target} makes no engine: it is an `async def`, write a plain function"])
    return make()


async def host_custom(engine: Engine, config: Config) -> Hosted:
    """Join one engine with the bus and its probes. Raises ConfigurationError, Unavailable."""
    adopt_settings(engine, config)
    telemetry = telemetry_for(config, engine.agent_type)
    connections = await connect_bus(config, telemetry, engine.config.agent_id)
    if config.engines_spool_dir:
        spool = FileSpool(Path(config.engines_spool_dir), engine.config.agent_id)
        connections = replace(connections, spool=spool)
    return observed(engine, connections, config, telemetry)


def adopt_settings(engine: Engine, config: Config) -> None:
    """What the environment sets explicitly wins over what the code says."""
    chosen = {
        field: getattr(config, variable.lower())
        for variable, field in {
            "AGENT_ID": "agent_id",
            "AGENT_MAX_CONCURRENT_TASKS": "max_concurrent_tasks",
            "AGENT_QUEUE_SIZE": "queue_size",
            "AGENT_TASK_TIMEOUT_SECONDS": "task_timeout_seconds",
            "AGENT_HEARTBEAT_INTERVAL": "heartbeat_interval",
            "AGENT_SHUTDOWN_GRACE_SECONDS": "shutdown_grace_seconds",
            "CIRCUIT_BREAKER_THRESHOLD": "breaker_threshold",
            "CIRCUIT_BREAKER_TIMEOUT": "breaker_timeout",
        }.items()
        if config.explicit(variable)
    }
    if chosen:
        engine.config = replace(engine.config, **chosen)
