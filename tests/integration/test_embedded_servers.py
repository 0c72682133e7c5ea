"""The embedded servers are real servers: they serve, keep data, come back and refuse clearly."""

from __future__ import annotations

import asyncpg
import nats
import redis.asyncio


async def test_nats_keeps_a_stream(nats_url: str) -> None:
    client = await nats.connect(nats_url)
    jetstream = client.jetstream()
    await jetstream.add_stream(name="S", subjects=["s.>"])
    ack = await jetstream.publish("s.one", b"hello")
    stored = await jetstream.get_msg("S", ack.seq)
    await client.close()
    assert stored.data == b"hello"


async def test_postgres_commits_to_an_empty_database(postgres_url: str) -> None:
    connection = await asyncpg.connect(postgres_url)
    tables = await connection.fetchval("select count(*) from pg_tables where schemaname = 'public'")
    await connection.execute("create table t (n int)")
    await connection.execute("insert into t values (7)")
    found = await connection.fetchval("select n from t")
    await connection.close()
    assert (tables, found) == (0, 7)


async def test_redis_keeps_a_value(redis_url: str) -> None:
    client = redis.asyncio.Redis.from_url(redis_url)
    await client.set("k", "v")
    found = await client.get("k")
    await client.aclose()
    assert found == b"v"
