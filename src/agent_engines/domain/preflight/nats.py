"""Rules for NATS: servers, our streams and who waits on them. RELIABILITY says which settings are required and why."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from .finding import FINE, Facts, Rule, Severity, Verdict, advice, fine, unsafe

PART = "nats"
SAFE_VERSION = (2, 15, 1)
MAX_CONSUMERS_DEFAULT = 1_000
COPIES = 3
FULL, FILLING = 0.9, 0.7
STILL_SECONDS = 60.0
_MONITOR = "name the monitoring port: --nats-monitor http://HOST:8222 (NATS tells clients nothing of it)"


def version_of(text: str) -> tuple[int, ...]:
    """The three numbers of a version, zeros for what is no number."""
    found = re.match(r"v?(\d+)\.(\d+)\.(\d+)", text)
    return tuple(map(int, found.groups())) if found else (0, 0, 0)


def _versions(facts: Facts) -> Iterator[Verdict]:
    for server in facts["servers"]:
        read = {"version": server["version"]}
        old = version_of(server["version"]) < SAFE_VERSION
        yield (
            unsafe("nats-server 2.15.1 or newer, one server at a time", of=server["host"], read=read)
            if old
            else fine(of=server["host"], read=read)
        )


def _named(facts: Facts) -> Verdict:
    named, peers = facts["servers_named"], facts["cluster_size"]
    read = {"in NATS_URL": named, "in the cluster": peers}
    return advice("name every server in NATS_URL", read=read) if named < peers else fine(read=read)


def _login(facts: Facts) -> Iterator[Verdict]:
    for server in facts["servers"]:
        read = {"auth_required": server["auth_required"], "login without credentials": server["anonymous"]}
        if server["anonymous"] == "accepted":
            yield unsafe("accounts with users, nkeys or JWT; no_auth_user unset", of=server["host"], read=read)
        elif server["anonymous"] == "refused":
            yield fine(of=server["host"], read=read)
        else:
            yield Verdict(Severity.UNREAD, "check the certificates: NATS_CA", of=server["host"], read=read)


def _tls(facts: Facts) -> Iterator[Verdict]:
    for server in facts["servers"]:
        read = {"tls": server["tls"], "local": server["local"]}
        if server["tls"] == "required" or server["local"]:
            yield fine(of=server["host"], read=read)
        elif server["tls"] == "available":
            yield advice("tls { ... } without allow_non_tls, and tls:// in NATS_URL", of=server["host"], read=read)
        else:
            yield unsafe(
                "tls { cert_file, key_file, ca_file, verify: true }, and tls:// in NATS_URL",
                of=server["host"],
                read=read,
            )


def _account(facts: Facts) -> Verdict:
    if facts["account"] != "$G":
        return FINE
    return advice("accounts { ... }: one for the engines, one for the agents; leave $G unused")


def _sync(facts: Facts) -> Iterator[Verdict]:
    unseen = max(len(facts["servers"]), facts["cluster_size"]) - len(facts["monitors"])
    if unseen > 0:
        yield Verdict(Severity.UNREAD, _MONITOR, read={"servers without a monitoring port that answers": unseen})
    for server in facts["monitors"]:
        always = server["sync_always"]
        read = {"sync_interval": "always" if always else f"{server['sync_seconds']:g} s"}
        if always:
            yield fine(of=server["host"], read=read)
            continue
        claimed = facts["our.bus_sync"] == "always"
        said = "; ENGINES_BUS_SYNC says always, which is not so: take it away until it is" if claimed else ""
        yield unsafe(f"jetstream {{ sync_interval: always }}{said}", of=server["host"], read=read)


def _present(facts: Facts) -> Verdict:
    missing = [name for name in facts["our.streams"] if name not in facts["streams"]]
    read = {"found": len(facts["streams"]), "missing": ", ".join(missing) or "none"}
    return advice("they are made when the first engine starts", read=read) if missing else fine(read=read)


def _replicas(facts: Facts) -> Iterator[Verdict]:
    peers = facts["cluster_size"]
    for name, stream in facts["streams"].items():
        copies = stream["config"].get("num_replicas", 1)
        read = {"num_replicas": copies, "servers": peers}
        if peers >= COPIES and copies < COPIES:
            yield unsafe("ENGINES_BUS_REPLICAS=3 and start an engine, which widens the stream", of=name, read=read)
        elif copies < COPIES:
            yield unsafe("a cluster of three servers in three zones: one disk lost is a queue lost", of=name, read=read)
        else:
            yield fine(of=name, read=read)


def _peers(facts: Facts) -> Iterator[Verdict]:
    for name, stream in facts["streams"].items():
        cluster = stream.get("cluster") or {}
        behind = [
            one["name"] for one in cluster.get("replicas") or () if one.get("offline") or not one.get("current", False)
        ]
        read = {"leader": cluster.get("leader") or "none", "behind": ", ".join(behind) or "none"}
        if not cluster.get("leader"):
            yield unsafe(
                "bring the missing servers back: without a leader the stream takes nothing", of=name, read=read
            )
        elif behind:
            yield advice("wait until all copies are current before anything else is stopped", of=name, read=read)
        else:
            yield fine(of=name, read=read)


def _storage(facts: Facts) -> Iterator[Verdict]:
    for name, stream in facts["streams"].items():
        config, wanted = stream["config"], facts["our.streams"][name]
        read = {field: config.get(field) for field in ("storage", "retention", "discard")}
        wrong = [field for field in read if config.get(field) != wanted[field]]
        if wrong:
            needed = ", ".join(f"{field}={wanted[field]}" for field in wrong)
            yield unsafe(
                f"remove the stream when it is empty; an engine makes it again with {needed}", of=name, read=read
            )
        else:
            yield fine(of=name, read=read)


def _persistence(facts: Facts) -> Iterator[Verdict]:
    for name, stream in facts["streams"].items():
        mode = stream["config"].get("persist_mode") or "default"
        verdict = unsafe if mode == "async" else None
        read = {"persist_mode": mode}
        yield verdict("persist_mode: default", of=name, read=read) if verdict else fine(of=name, read=read)


def _consumer_limit(facts: Facts) -> Iterator[Verdict]:
    for name, stream in facts["streams"].items():
        most, now = stream["config"].get("max_consumers", -1), stream["state"].get("consumer_count", 0)
        read = {"max_consumers": most, "consumers": now}
        limit = most if most > 0 else MAX_CONSUMERS_DEFAULT
        if now >= limit * FULL:
            yield unsafe("max_consumers: 100000: the next agent finds no place", of=name, read=read)
        else:
            yield fine(of=name, read=read)


def _fullness(facts: Facts) -> Iterator[Verdict]:
    for name, stream in facts["streams"].items():
        shares = _shares(stream)
        fullest = max(shares.values(), default=0.0)
        read = {what: f"{share:.0%}" for what, share in shares.items()} or {"bounds": "none"}
        if stream["config"].get("discard") != "new":
            # What drops its oldest is meant to be full.
            yield fine(of=name, read=read)
        elif fullest >= FULL:
            yield unsafe(
                "more agents or a larger ENGINES_QUEUE_MAX_TASKS / ENGINES_BUS_STORE_BYTES", of=name, read=read
            )
        elif fullest >= FILLING:
            yield advice("it fills: more agents, or find what does not finish", of=name, read=read)
        else:
            yield fine(of=name, read=read)


def _shares(stream: dict[str, Any]) -> dict[str, float]:
    config, state = stream["config"], stream["state"]
    bounds = (("messages", "max_msgs", "messages"), ("bytes", "max_bytes", "bytes"))
    return {what: state.get(now, 0) / config[most] for what, most, now in bounds if config.get(most, -1) > 0}


def _account_limits(facts: Facts) -> Verdict:
    limits, used = facts["account_limits"], facts["account_used"]
    read = {"max_storage": limits.get("max_storage", -1), "storage": used["storage"]}
    most = limits.get("max_storage", -1)
    if most > 0 and used["storage"] >= most * FULL:
        return unsafe("a larger max_file for the account: streams refuse when it is full", read=read)
    return fine(read=read)


def _server_store(facts: Facts) -> Iterator[Verdict]:
    for server in facts["monitors"]:
        most, used = server["max_storage"], server["storage"]
        read = {"max_storage": most, "storage": used}
        full = most > 0 and used >= most * FULL
        yield (
            unsafe("a larger max_file_store, or a larger disk", of=server["host"], read=read)
            if full
            else fine(of=server["host"], read=read)
        )


def _healthy(facts: Facts) -> Iterator[Verdict]:
    for server in facts["monitors"]:
        read = {"healthz": server["health"]}
        yield (
            fine(of=server["host"], read=read)
            if server["health"] == "ok"
            else unsafe("the server's log says why; a `write error` means its disk", of=server["host"], read=read)
        )


def _monitoring(facts: Facts) -> Iterator[Verdict]:
    for server in facts["monitors"]:
        read = {"http_host": server["http_host"] or "every address"}
        open_to_all = server["http_host"] in ("", "0.0.0.0", "::") and not server["https"]  # noqa: S104 - compared, not bound
        yield (
            advice("http: 127.0.0.1:8222: the port asks nobody for a password", of=server["host"], read=read)
            if open_to_all
            else fine(of=server["host"], read=read)
        )


def _payload(facts: Facts) -> Verdict:
    most, body = facts["max_payload"], facts["our.max_body_bytes"]
    read = {"max_payload": most, "ENGINES_MAX_BODY_BYTES": body}
    return (
        unsafe(f"max_payload: {2 * body} or a smaller ENGINES_MAX_BODY_BYTES", read=read)
        if most < body
        else fine(read=read)
    )


def _stuck(facts: Facts) -> Iterator[Verdict]:
    stuck = list(_stuck_consumers(facts))
    yield from stuck
    if not stuck:
        yield fine(read={"consumers": len(facts["consumers"])})


def _stuck_consumers(facts: Facts) -> Iterator[Verdict]:
    for one in facts["consumers"]:
        of = f"{one['stream']} / {one['name']}"
        read = {field: one[field] for field in ("pending", "ack_pending", "waiting", "still_seconds")}
        still = one["still_seconds"] > STILL_SECONDS
        if one["pending"] and not one["waiting"] and still:
            yield advice("nobody pulls: start its agent, or cancel or redrive its tasks", of=of, read=read)
        elif one["ack_pending"] >= one["max_ack_pending"] > 0:
            yield advice("all deliveries are out and none is acknowledged: look at its agents", of=of, read=read)


RULES = (
    Rule("version", ("servers",), "Older servers lose acknowledged messages in known ways.", _versions),
    Rule(
        "jetstream",
        ("jetstream",),
        "Queues and results live in it.",
        lambda facts: FINE if facts["jetstream"] else unsafe("jetstream { store_dir: ... }"),
    ),
    Rule(
        "addresses",
        ("servers_named", "cluster_size"),
        "Only named servers are looked at, and tried when others are away.",
        _named,
    ),
    Rule("login", ("servers",), "Whoever reaches the port reads and forges tasks and results.", _login),
    Rule("tls", ("servers",), "Payloads and credentials cross the network.", _tls),
    Rule("account", ("account",), "Agents run what models wrote; an account of their own is the wall.", _account),
    Rule(
        "sync_interval",
        ("monitors", "our.bus_sync", "servers", "cluster_size"),
        "The server acknowledges before the disk has it unless told otherwise.",
        _sync,
        _MONITOR,
    ),
    Rule("streams", ("streams", "our.streams"), "What the engines work with.", _present),
    Rule(
        "replicas",
        ("streams", "cluster_size"),
        "With fewer than three copies a lost server is a lost queue.",
        _replicas,
        _MONITOR,
    ),
    Rule("copies", ("streams",), "A copy that is behind does not count.", _peers),
    Rule(
        "storage",
        ("streams", "our.streams"),
        "In memory it is gone with the server; `discard: old` drops accepted tasks.",
        _storage,
    ),
    Rule("persistence", ("streams",), "`async` acknowledges what is only in memory.", _persistence),
    Rule("max_consumers", ("streams",), "2.15 takes -1 for a thousand.", _consumer_limit),
    Rule("fullness", ("streams",), "A full stream refuses every submission.", _fullness),
    Rule(
        "account_limits",
        ("account_limits", "account_used"),
        "An account without room stops all streams.",
        _account_limits,
    ),
    Rule("store", ("monitors",), "A full store stops all streams.", _server_store, _MONITOR),
    Rule("health", ("monitors",), "A frozen stream shows here first.", _healthy, _MONITOR),
    Rule("monitoring", ("monitors",), "It tells accounts, subjects and addresses.", _monitoring, _MONITOR),
    Rule("max_payload", ("max_payload", "our.max_body_bytes"), "HTTP would accept what the bus refuses.", _payload),
    Rule("consumers", ("consumers",), "Tasks wait for somebody who does not come.", _stuck),
)
