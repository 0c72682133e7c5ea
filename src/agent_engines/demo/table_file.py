"""A table of prompts with what each agent would have reached and cost: read from CSV or JSON lines, plain or gzipped.

One row is one task. Columns:

- `prompt` (needed): the text; any other column of a row that belongs to no agent is ignored, except
- `task_type` (optional): each row's task type, otherwise `answer` for all;
- for each agent its quality, 0..1, and its cost, 0 or more, named one of these ways:
  `<agent>_quality` and `<agent>_cost`; `quality_<agent>` and `cost_<agent>`; `<agent>` and `<agent>_cost`.

Where the names are others, say which column is what: `AGENT=QUALITY_COLUMN,COST` for each agent, COST being a column or a
number that every task costs; `prompt=COLUMN` and `task_type=COLUMN` likewise.
"""

from __future__ import annotations

import csv
import gzip
import math
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import msgspec

from agent_engines.domain.agents import validated_agent_id
from agent_engines.domain.errors import InvalidRequest

DEFAULT_TASK_TYPE = "answer"
LONGEST_FIELD = 1 << 20
MOST_ROWS = 1_000_000
NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]+")


class AgentColumns(msgspec.Struct, frozen=True):
    """Where one agent's numbers are; `cost` is a column or a fixed price."""

    agent: str
    quality: str
    cost: str | float


class Columns(msgspec.Struct, frozen=True):
    """What each column of a table means; no agents: to be found by their names."""

    prompt: str = "prompt"
    task_type: str | None = None
    agents: tuple[AgentColumns, ...] = ()


class TableRow(msgspec.Struct, frozen=True):
    """One task; qualities and costs in the order of the table's agents."""

    prompt: str
    task_type: str
    quality: tuple[float, ...]
    cost: tuple[float, ...]


class Table(msgspec.Struct, frozen=True):
    """Agents and rows, checked."""

    agents: tuple[str, ...]
    rows: tuple[TableRow, ...]

    @property
    def task_types(self) -> tuple[str, ...]:
        return tuple(sorted({row.task_type for row in self.rows}))

    def quality(self) -> dict[str, list[float]]:
        return {agent: [row.quality[i] for row in self.rows] for i, agent in enumerate(self.agents)}

    def cost(self) -> dict[str, list[float]]:
        return {agent: [row.cost[i] for row in self.rows] for i, agent in enumerate(self.agents)}


def parse_columns(entries: Iterable[str]) -> Columns:
    """`AGENT=QUALITY_COLUMN,COST`, `prompt=COLUMN`, `task_type=COLUMN`. Raises InvalidRequest showing the bad entry."""
    plain: dict[str, str] = {}
    agents: list[AgentColumns] = []
    for entry in entries:
        name, found, value = (part.strip() for part in entry.partition("="))
        if not found or not name or not value:
            raise InvalidRequest(f"{entry!r} is no column mapping: write AGENT=QUALITY_COLUMN,COST", field="columns")
        if name in ("prompt", "task_type"):
            plain[name] = value
            continue
        quality, comma, cost = (part.strip() for part in value.rpartition(","))
        if not comma or not quality or not cost:
            raise InvalidRequest(f"{entry!r} names no cost: write {name}=QUALITY_COLUMN,COST", field="columns")
        agents.append(AgentColumns(_agent_id(name), quality, _number_or_name(cost)))
    return Columns(prompt=plain.get("prompt", "prompt"), task_type=plain.get("task_type"), agents=tuple(agents))


def read_table(path: Path, columns: Columns | None = None) -> Table:
    """Read `.csv`, `.csv.gz`, `.jsonl` or `.jsonl.gz`. Raises InvalidRequest naming file, row and column."""
    try:
        with _opened(path) as file:
            names, records = _records(path, file)
            return _table(path, names, records, columns or Columns())
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise InvalidRequest(f"{path} cannot be read: {error}", field="table") from error


def found_columns(names: Sequence[str]) -> tuple[AgentColumns, ...]:
    """Agents by the naming rules above, in the order of the columns."""
    known = set(names)
    found: list[AgentColumns] = []
    for name in names:
        agent, quality = name, name
        cost = f"{name}_cost"
        if name.endswith("_quality"):
            agent = name.removesuffix("_quality")
            cost = f"{agent}_cost"
        elif name.startswith("quality_"):
            agent = name.removeprefix("quality_")
            cost = f"cost_{agent}"
        if agent and cost in known:
            found.append(AgentColumns(_agent_id(agent), quality, cost))
    return tuple(found)


def _opened(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _records(path: Path, file: IO[str]) -> tuple[list[str], Iterator[tuple[int, dict[str, Any]]]]:
    """Column names, and (row number from 1, record); the header of a CSV file is no row."""
    kind = path.name.removesuffix(".gz").rpartition(".")[2].lower()
    if kind == "csv":
        csv.field_size_limit(LONGEST_FIELD)
        reader = csv.DictReader(file, strict=True)
        names = list(reader.fieldnames or [])
        return names, enumerate(reader, start=1)
    if kind in ("jsonl", "ndjson"):
        lines = _json_lines(path, file)
        first = next(lines, None)
        if first is None:
            return [], iter(())
        return list(first[1]), _again(first, lines)
    raise InvalidRequest(f"{path.name} is no table: use .csv or .jsonl, with or without .gz", field="table")


def _again(first: tuple[int, dict[str, Any]], rest: Iterator[tuple[int, dict[str, Any]]]) -> Iterator[Any]:
    yield first
    yield from rest


def _json_lines(path: Path, file: IO[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    for number, line in enumerate(file, start=1):
        if line.strip():
            try:
                yield number, decode(line)
            except msgspec.MsgspecError as error:
                raise InvalidRequest(f"{path}, row {number}: {error}", field="table") from error


def _table(
    path: Path, names: Sequence[str], records: Iterator[tuple[int, Mapping[str, Any]]], columns: Columns
) -> Table:
    agents = columns.agents or found_columns(names)
    if not agents:
        raise InvalidRequest(
            f"{path} has no agents: needed are columns <agent>_quality and <agent>_cost, there are {', '.join(names)}",
            field="table",
        )
    if len({one.agent for one in agents}) < len(agents):
        raise InvalidRequest(f"{path} names an agent twice", field="table")
    wanted = [columns.prompt, *([columns.task_type] if columns.task_type else [])]
    wanted += [name for one in agents for name in (one.quality, one.cost) if isinstance(name, str)]
    if missing := [name for name in wanted if name not in names]:
        raise InvalidRequest(
            f"{path} lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}", field="table"
        )
    kind = columns.task_type or ("task_type" if "task_type" in names else None)
    rows: list[TableRow] = []
    for number, record in records:
        if len(rows) >= MOST_ROWS:
            raise InvalidRequest(f"{path} has more than {MOST_ROWS:,} rows", field="table")
        rows.append(_row(f"{path}, row {number}", record, Columns(columns.prompt, kind, agents)))
    if not rows:
        raise InvalidRequest(f"{path} has no rows", field="table")
    return Table(tuple(one.agent for one in agents), tuple(rows))


def _row(place: str, record: Mapping[str, Any], columns: Columns) -> TableRow:
    prompt = record.get(columns.prompt)
    if not isinstance(prompt, str):
        raise InvalidRequest(f"{place}: {columns.prompt} is no text", field="table")
    kind = DEFAULT_TASK_TYPE if columns.task_type is None else record.get(columns.task_type)
    if not isinstance(kind, str) or not kind:
        raise InvalidRequest(f"{place}: {columns.task_type} is no text", field="table")
    return TableRow(
        prompt,
        kind,
        tuple(_number(place, one.quality, record.get(one.quality), most=1.0) for one in columns.agents),
        tuple(
            _number(place, one.cost, record.get(one.cost)) if isinstance(one.cost, str) else one.cost
            for one in columns.agents
        ),
    )


def _number(place: str, name: str, value: Any, *, most: float = math.inf) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (0.0 <= number <= most and math.isfinite(number)):
        allowed = "from 0 to 1" if most == 1.0 else "0 or more"
        raise InvalidRequest(f"{place}: {name} is {value!r}, it must be a number {allowed}", field="table")
    return number


def _number_or_name(text: str) -> str | float:
    try:
        number = float(text)
    except ValueError:
        return text
    if not math.isfinite(number) or number < 0:
        raise InvalidRequest(f"a fixed cost must be 0 or more, not {text}", field="columns")
    return number


def _agent_id(name: str) -> str:
    """The agent's name with what cannot stand in one replaced: `gpt-4.1 mini` becomes `gpt-4-1-mini`."""
    return validated_agent_id(NOT_IN_NAMES.sub("-", name.strip()).strip("-")[:64])
