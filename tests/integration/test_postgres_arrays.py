"""Arrays written by the kernel arrive at a real PostgreSQL as asyncpg's own do."""

from __future__ import annotations

import string
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import asyncpg
import pytest

from agent_engines.adapters.postgres import arrays
from agent_engines.adapters.postgres.pool import UNSTORABLE, Connection, Pool
from kernel_house import loaded

LETTERS = string.printable + 'é€𝄞{}",\\NULL'
EXTREMES: dict[str, list[Any]] = {
    "text": ["", " ", "NULL", "{", '"', "\\", "a,b", "é€𝄞", "x" * 100_000, "\x01\x7f\ufffe"],
    "int": [0, 1, -1, 2**31 - 1, -(2**31), True],
    "bigint": [0, 2**63 - 1, -(2**63), 2**31, -1],
    "float8": [0.0, -0.0, 1.5, 5e-324, 1.7976931348623157e308, float("inf"), float("-inf"), float("nan"), 7, 0.1],
    "bool": [True, False],
    "bytea": [b"", b"\0", bytes(range(256)), bytearray(b"ab"), memoryview(b"cd")],
}
NUL = ["a\0b"]
WRONG: list[tuple[str, Any]] = [
    ("text", ["a", 1]),
    ("text", ["\ud800"]),
    ("text", NUL),
    ("text", "text"),
    ("int", [2**31]),
    ("int", ["1"]),
    ("bigint", [2**63]),
    ("float8", ["x"]),
    ("float8", [10**400]),
    ("bool", [1]),
    ("bytea", ["text"]),
]


@pytest.fixture
async def taught(postgres_url: str, built: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pool]:
    """Connections as ours are, with the kernel of today's source."""
    monkeypatch.setattr(arrays, "compiled", loaded(built, "agent_engines.adapters.postgres"))
    monkeypatch.setattr(arrays, "COMPILED", True)
    pool = await Pool.connect(postgres_url, minimum=1, maximum=1)
    yield pool
    await pool.close()


@pytest.fixture
async def plain(postgres_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(postgres_url, ssl=False)
    yield connection
    await connection.close()


def samples(kind: str) -> list[list[Any]]:
    random = Random(kind)
    found: list[list[Any]] = [[], [None], [None, None], EXTREMES[kind], [*EXTREMES[kind], None]]
    for _ in range(100):
        some = random.choices([*EXTREMES[kind], None], k=random.randrange(1, 20))
        if kind == "text":
            some.append("".join(random.choices(LETTERS, k=random.randrange(50))))
        if kind in ("int", "bigint"):
            some.append(random.getrandbits(31 if kind == "int" else 63) * random.choice([-1, 1]))
        if kind == "float8":
            some.append(random.uniform(-1, 1) * 10.0 ** random.randrange(-300, 300))
        found.append(some)
    return found


@pytest.mark.parametrize("kind", sorted(EXTREMES))
async def test_what_is_sent_is_what_is_there(taught: Pool, plain: asyncpg.Connection, kind: str) -> None:
    # As text, the server's own words for it, and back again through each of the two.
    query = f"SELECT $1::{kind}[]::text AS words, $1::{kind}[] AS back, cardinality($1::{kind}[]) AS size"
    for array in samples(kind):
        ours = (await taught.run(lambda connection, array=array: connection.fetch(query, array)))[0]
        theirs = await plain.fetchrow(query, array)
        assert ours["words"] == theirs["words"]
        assert repr(ours["back"]) == repr(theirs["back"])
        assert ours["size"] == len(array)


async def test_arrays_of_more_dimensions_are_read_as_before(taught: Pool, plain: asyncpg.Connection) -> None:
    query = """
        SELECT '{{1,2},{3,NULL}}'::int[] AS a, '[5:6]={x,y}'::text[] AS b, '{}'::text[] AS c, '{{{t}}}'::bool[] AS d,
            ARRAY[NULL, 'z']::text[] AS e, ARRAY['k', 'l']::varchar[] AS f, ARRAY[1.5]::real[] AS g, NULL::int[] AS h,
            ROW(ARRAY['m', NULL], 3) AS i
    """
    ours = (await taught.run(lambda connection: connection.fetch(query)))[0]
    assert repr(dict(ours)) == repr(dict(await plain.fetchrow(query)))


@pytest.mark.parametrize(("kind", "array"), WRONG)
async def test_what_cannot_be_stored_is_told_as_before(
    taught: Pool, plain: asyncpg.Connection, kind: str, array: Any
) -> None:
    query = f"SELECT $1::{kind}[]"
    with pytest.raises(UNSTORABLE) as theirs:
        await plain.fetch(query, array)
    with pytest.raises(type(theirs.value)):
        await taught.run(lambda connection: connection.fetch(query, array))
    assert await taught.run(lambda connection: connection.fetch("SELECT $1::text[] AS still", ["here"]))


async def test_a_connection_is_taught_for_good(taught: Pool) -> None:
    async def refused(connection: Connection) -> None:
        with pytest.raises(asyncpg.DataError, match="expected str, got list"):
            await connection.fetch("SELECT $1::text[]", [["an array in an array"]])

    async def work(connection: Connection) -> None:
        await refused(connection)
        # As asyncpg does after a migration under a prepared statement.
        await connection.reload_schema_state()
        await refused(connection)

    await taught.run(work)
