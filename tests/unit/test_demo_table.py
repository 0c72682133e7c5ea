"""Tables of prompts, qualities and costs: what is read, what is refused, and how their agents answer."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from agent_engines.bootstrap.custom import load_engine
from agent_engines.demo import table_replay
from agent_engines.demo.table_file import parse_columns, read_table
from agent_engines.domain.errors import ConfigurationError, InvalidRequest
from agent_engines.domain.tasks import TaskRequest

PLAIN = 'prompt,small_quality,small_cost,big_quality,big_cost\nHi,0.5,1,1,4\n"a, b",0,1,0.75,6\n'


def written(folder: Path, text: str, name: str = "t.csv") -> Path:
    path = folder / name
    data = text.encode()
    path.write_bytes(gzip.compress(data, mtime=0) if name.endswith(".gz") else data)
    return path


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
def test_a_table_of_qualities_and_costs_is_read(tmp_path: Path, name: str) -> None:
    table = read_table(written(tmp_path, PLAIN, name))
    assert table.agents == ("small", "big")
    assert [(row.prompt, row.quality, row.cost) for row in table.rows] == [
        ("Hi", (0.5, 1.0), (1.0, 4.0)),
        ("a, b", (0.0, 0.75), (1.0, 6.0)),
    ]
    assert table.task_types == ("answer",)


@pytest.mark.parametrize(
    "header",
    ["prompt,quality_small,cost_small,quality_big,cost_big", "prompt,small,small_cost,big,big_cost"],
)
def test_the_other_ways_to_name_columns_mean_the_same(tmp_path: Path, header: str) -> None:
    body = PLAIN.partition("\n")[2]
    assert read_table(written(tmp_path, f"{header}\n{body}")) == read_table(written(tmp_path, PLAIN, "other.csv"))


def test_json_lines_and_task_types(tmp_path: Path) -> None:
    rows = [{"prompt": p, "task_type": k, "m_quality": 1, "m_cost": 0} for p, k in (("x", "math"), ("y", "code"))]
    path = written(tmp_path, "\n".join(json.dumps(row) for row in rows) + "\n\n", "t.jsonl.gz")
    table = read_table(path)
    assert table.task_types == ("code", "math")
    assert [one.task_type for one in table_replay.requests(table)] == ["math", "code"]


def test_columns_may_be_named_and_a_price_fixed(tmp_path: Path) -> None:
    path = written(tmp_path, "question,gpt right,words\nHi,1,50\n")
    table = read_table(path, parse_columns(["prompt=question", "gpt-4.1=gpt right,0.03"]))
    assert table.agents == ("gpt-4-1",)
    assert table.rows[0].cost == (0.03,)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("prompt,small,big\nHi,1,1\n", "has no agents"),
        ("text,m_quality,m_cost\nHi,1,1\n", "lacks the column prompt"),
        ("prompt,m_quality,m_cost\nHi,1,-0.5\n", "row 1: m_cost is '-0.5', it must be a number 0 or more"),
        ("prompt,m_quality,m_cost\nHi,1,1\nHo,nan,1\n", "row 2: m_quality is 'nan'"),
        ("prompt,m_quality,m_cost\nHi,1.5,1\n", "row 1: m_quality is '1.5', it must be a number from 0 to 1"),
        ("prompt,m_quality,m_cost\nHi,1,inf\n", "row 1: m_cost is 'inf'"),
        ("prompt,m_quality,m_cost\nHi,1\n", "row 1: m_cost is None"),
        ("prompt,m_quality,m_cost\nHi,,1\n", "row 1: m_quality is ''"),
        ("prompt,m_quality,m_cost\n", "has no rows"),
        ("", "has no agents"),
        ("prompt,m_quality,m_cost,quality_m,cost_m\nHi,1,1,1,1\n", "names an agent twice"),
        ('prompt,m_quality,m_cost\n"Hi,1,1\n', "cannot be read"),
    ],
)
def test_a_wrong_table_is_refused_with_the_place(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(InvalidRequest, match=r"t\.csv") as refusal:
        read_table(written(tmp_path, text))
    assert problem in refusal.value.detail


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("t.csv.gz", b"this is not gzip"),
        ("t.csv.gz", gzip.compress(PLAIN.encode(), mtime=0)[:-12]),
        ("t.csv", b"prompt,m_quality,m_cost\n\xff\xfe,1,1\n"),
        ("t.jsonl", b'{"prompt": "x", "m_quality": 1, "m_cost": 1}\n[1]\n'),
        ("t.parquet", b""),
    ],
)
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InvalidRequest, match=name):
        read_table(tmp_path / name)
    with pytest.raises(InvalidRequest, match=r"missing\.csv"):
        read_table(tmp_path / "missing.csv")


@pytest.mark.parametrize("entry", ["", "x", "x=", "=y,1", "m=quality", "m=quality,", "m=q,-1", "m=q,nan", "...=q,1"])
def test_a_column_mapping_that_says_too_little_is_refused(entry: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_columns([entry])


async def test_an_agent_answers_with_the_quality_of_its_row(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, PLAIN))
    small, big = table_replay.replay_engines(table)
    first, second = table_replay.requests(table)
    assert (await big.handle_task(second))["result"] == {"agent": "big", "quality": 0.75}
    assert (await small.handle_task(first))["result"] == {"agent": "small", "quality": 0.5}
    assert (small.metadata["cost_per_task"], big.metadata["cost_per_task"]) == (1.0, 5.0)


@pytest.mark.parametrize(
    "payload", [{"prompt": "Hi", "row": 1}, {"prompt": "Hi", "row": 9}, {"prompt": "Hi", "row": -2}]
)
async def test_a_row_of_another_table_is_never_answered(tmp_path: Path, payload: dict[str, object]) -> None:
    small = table_replay.replay_engines(read_table(written(tmp_path, PLAIN)))[0]
    answer = await small.handle_task(TaskRequest(task_type="answer", payload=payload))
    assert answer["status"] == "failed"
    assert answer["attempts"] == 1


def test_references_are_counted_over_the_tasks_that_are_sent(tmp_path: Path) -> None:
    known = table_replay.references(read_table(written(tmp_path, PLAIN)), 3)
    assert known.best_single.name == "big"
    assert known.best_single.quality == pytest.approx((1 + 0.75 + 1) / 3)
    assert len(list(table_replay.requests(read_table(written(tmp_path, PLAIN)), 3))) == 3


def test_engines_run_finds_an_agent_the_table_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, "q,m\nHi,1\n")
    for name, value in table_replay.environment(path, ("prompt=q", "m=m,2")).items():
        monkeypatch.setenv(name, value)
    engine = load_engine("agent_engines.demo.table_replay:m")
    assert engine.config.agent_id == "m"
    with pytest.raises(InvalidRequest, match="has no agent 'n'; it has m"):
        load_engine("agent_engines.demo.table_replay:n")
    monkeypatch.delenv("AE_DEMO_TABLE")
    with pytest.raises(ConfigurationError, match="no engine called 'm'"):
        load_engine("agent_engines.demo.table_replay:m")
