"""Replays a table (`table_file`): one agent for each of its quality columns, whose handler looks the row up.

Every process reads the same file: the environment names it. `AE_DEMO_TABLE=answers.csv.gz engines run
agent_engines.demo.table_replay:gpt_4` hosts the agent `gpt_4`; `AE_DEMO_COLUMNS` takes the entries of `parse_columns`,
separated by semicolons. Looking up takes no time, so latencies of such a run say nothing about the agents.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import msgspec

from agent_engines.domain.errors import InvalidRequest, PermanentFailure
from agent_engines.domain.tasks import TaskRequest
from agent_engines.runtime.agent_config import AgentConfig
from agent_engines.runtime.context import TaskContext
from agent_engines.runtime.engine import Engine

from .results import References
from .table_file import Columns, Table, parse_columns, read_table

TABLE_VARIABLE = "AE_DEMO_TABLE"
COLUMNS_VARIABLE = "AE_DEMO_COLUMNS"


class Prompt(msgspec.Struct, frozen=True):
    """What is sent: the text, and which row of the table it is."""

    prompt: str
    row: int


class Answer(msgspec.Struct, frozen=True):
    """What comes back: who answered, and how well by the table."""

    agent: str
    quality: float


class TableAgent(Engine):
    """One column of the table as an agent. Declares its mean cost."""

    def __init__(self, table: Table, agent: str, *, slots: int = 100) -> None:
        self._table = table
        self._column = table.agents.index(agent)
        costs = [row.cost[self._column] for row in table.rows]
        super().__init__(
            AgentConfig(agent_id=agent, max_concurrent_tasks=slots),
            agent_type="replay",
            metadata={"cost_per_task": sum(costs) / len(costs)},
        )
        for task_type in table.task_types:
            self.task(task_type, max_attempts=3, idempotent=True)(self.look_up)

    async def look_up(self, context: TaskContext, payload: Prompt) -> Answer:
        """Quality and cost of the row. Raises PermanentFailure when this table has no such row."""
        rows = self._table.rows
        if not 0 <= payload.row < len(rows) or rows[payload.row].prompt != payload.prompt:
            raise PermanentFailure(f"row {payload.row} of this agent's table is another prompt")
        row = rows[payload.row]
        context.quality(row.quality[self._column])
        context.cost(row.cost[self._column])
        return Answer(self.config.agent_id, row.quality[self._column])


def replay_engines(table: Table) -> list[TableAgent]:
    """One engine for each agent of the table."""
    return [TableAgent(table, agent) for agent in table.agents]


def targets(table: Table) -> dict[str, str]:
    """What `engines run` is given for each agent; the environment must name the table."""
    return {agent: f"{__name__}:{agent}" for agent in table.agents}


def environment(path: Path, columns: tuple[str, ...] = ()) -> dict[str, str]:
    """The variables a process of such an agent needs."""
    return {TABLE_VARIABLE: str(path.resolve()), COLUMNS_VARIABLE: ";".join(columns)}


def requests(table: Table, count: int | None = None) -> Iterator[TaskRequest]:
    """The rows as tasks: all once, or `count` of them, starting over at the end."""
    for index in range(len(table.rows) if count is None else count):
        number = index % len(table.rows)
        row = table.rows[number]
        yield TaskRequest(task_type=row.task_type, payload={"prompt": row.prompt, "row": number})


def references(table: Table, count: int | None = None) -> References:
    """What each agent alone, and the oracle, would reach on the same tasks."""
    rows = range(len(table.rows) if count is None else count)
    quality, cost = table.quality(), table.cost()

    def repeated(column: list[float]) -> list[float]:
        return [column[index % len(column)] for index in rows]

    return References.of(
        {agent: repeated(quality[agent]) for agent in table.agents},
        {agent: repeated(cost[agent]) for agent in table.agents},
    )


def __getattr__(name: str) -> TableAgent:
    """`module:attr` for agents that only the table knows."""
    path = os.environ.get(TABLE_VARIABLE)
    if name.startswith("__") or not path:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r} (is {TABLE_VARIABLE} set?)")
    entries = os.environ.get(COLUMNS_VARIABLE, "")
    table = _read(path, tuple(entry for entry in entries.split(";") if entry.strip()))
    if name not in table.agents:
        raise InvalidRequest(f"{path} has no agent {name!r}; it has {', '.join(table.agents)}", field="agent_id")
    return TableAgent(table, name)


@lru_cache(maxsize=1)
def _read(path: str, entries: tuple[str, ...]) -> Table:
    return read_table(Path(path), parse_columns(entries) if entries else Columns())
