"""Reading what NATS says about itself to a client: account, streams, consumers. The monitoring port is in monitor.py."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import msgspec

from agent_engines.domain.errors import Unavailable
from agent_engines.domain.preflight.finding import Unread
from agent_engines.runtime.plain_log import PlainLog

from .api import JetStreamApi
from .connection import Address, Connection, Security
from .greeting import read_greetings
from .monitor import read_monitors
from .requests import ApiError, NobodyThere, Requests
from .streams import Limits, wanted_streams

PAGE = 256
MOST_CONSUMERS = 5_000
ACCOUNT_SECONDS = 2.0
NEEDED = ("storage", "retention", "discard")

Facts = dict[str, Any]


async def read_nats(servers: str, security: Security, facts: Facts, *, monitors: tuple[str, ...] = ()) -> None:
    """Fill in what rules ask about (domain/preflight/nats.py), and `servers_away`: who of the list did not answer, and why.

    Raises Unavailable (none answers, or our login is refused), ConfigurationError. What was read stays in `facts`.
    """
    address = Address.parse(servers)
    facts["our.streams"] = {one["name"]: {name: one[name] for name in NEEDED} for one in wanted_streams(Limits())}
    facts["servers_named"] = len(address.urls)
    greetings, facts["servers_away"] = await read_greetings(address, security)
    facts["servers"] = [one.shown() for one in greetings]
    _from_monitors(facts, await read_monitors(address, greetings, monitors), [one.info for one in greetings])
    connection = Connection(address, "agent-engines-check", security, PlainLog("check"))
    await connection.open()
    try:
        facts["max_payload"] = connection.max_payload
        requests = Requests(connection)
        await requests.open()
        api = JetStreamApi(requests)
        await asyncio.gather(_account(requests, facts), _jetstream(api, facts))
        if facts.get("jetstream") is True:
            await _streams(api, facts)
            await _consumers(api, facts)
    finally:
        await connection.close()


def _from_monitors(facts: Facts, found: list[dict[str, Any]], infos: list[dict[str, Any]]) -> None:
    """A server alone names no cluster; one of many is best counted by the cluster itself."""
    facts["monitors"] = found or Unread("no monitoring port answered")
    counted = [one["cluster_size"] for one in found if one["cluster_size"]]
    hosts = {url.rpartition(":")[0] for info in infos for url in info.get("connect_urls") or ()}
    if counted or infos:
        alone = not any(info.get("cluster") for info in infos)
        facts["cluster_size"] = max(counted, default=0) or (1 if alone else max(1, len(hosts)))


async def _account(requests: Requests, facts: Facts) -> None:
    try:
        reply = await requests.request("$SYS.REQ.USER.INFO", b"", ACCOUNT_SECONDS)
        facts["account"] = msgspec.json.decode(reply.data)["data"]["account"]
    except (Unavailable, msgspec.MsgspecError, KeyError, TypeError) as error:
        facts["account"] = Unread(f"the server does not tell this user ({error})")


async def _jetstream(api: JetStreamApi, facts: Facts) -> None:
    try:
        told = await api.call("INFO")
    except (ApiError, NobodyThere):
        facts["jetstream"] = False
        return
    except Unavailable as error:
        facts |= {
            name: Unread(f"no right, or no answer: {error}") for name in ("jetstream", "account_limits", "account_used")
        }
        return
    facts |= {"jetstream": True, "account_limits": told.get("limits", {})}
    facts["account_used"] = {name: told.get(name, 0) for name in ("storage", "memory", "streams", "consumers")}


async def _streams(api: JetStreamApi, facts: Facts) -> None:
    names = list(facts["our.streams"])
    answers = await asyncio.gather(*(api.find(f"STREAM.INFO.{name}") for name in names), return_exceptions=True)
    found: dict[str, dict[str, Any]] = {}
    for name, answer in zip(names, answers, strict=True):
        if isinstance(answer, BaseException):
            facts["streams"] = Unread(f"no right, or no answer: {answer}")
            return
        if answer is not None:
            found[name] = answer
    facts["streams"] = found
    peers = [1 + len((one.get("cluster") or {}).get("replicas") or ()) for one in found.values()]
    if "cluster_size" in facts:
        facts["cluster_size"] = max([facts["cluster_size"], *peers])


async def _consumers(api: JetStreamApi, facts: Facts) -> None:
    found: list[dict[str, Any]] = []
    streams = facts["streams"]
    if isinstance(streams, Unread):
        facts["consumers"] = streams
        return
    try:
        for stream in streams:
            offset = 0
            while len(found) < MOST_CONSUMERS:
                page = await api.call(f"CONSUMER.LIST.{stream}", {"offset": offset})
                listed = page.get("consumers") or []
                found.extend(_consumer(one) for one in listed)
                offset += PAGE
                if offset >= page.get("total", 0) or not listed:
                    break
    except Unavailable as error:
        facts["consumers"] = Unread(f"no right, or no answer: {error}")
        return
    facts["consumers"] = found


def _consumer(told: dict[str, Any]) -> dict[str, Any]:
    moments = [told.get("delivered", {}).get("last_active"), told.get("ack_floor", {}).get("last_active")]
    last = max((_seconds(one) for one in moments if one), default=_seconds(told["created"]))
    return {
        "stream": told["stream_name"],
        "name": told["name"],
        "pending": told.get("num_pending", 0),
        "ack_pending": told.get("num_ack_pending", 0),
        "redelivered": told.get("num_redelivered", 0),
        "waiting": told.get("num_waiting", 0),
        "max_ack_pending": told["config"].get("max_ack_pending", 0),
        # By the server's own clock, whatever ours says.
        "still_seconds": round(_seconds(told["ts"]) - last, 1),
    }


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
