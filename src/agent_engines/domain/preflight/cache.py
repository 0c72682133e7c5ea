"""Rules for Redis or Valkey. Nothing in it is the truth, so most of them are advice; who can read and write it is not."""

from __future__ import annotations

from .finding import FINE, Facts, Rule, Verdict, advice, fine, unsafe
from .nats import version_of

PART = "redis"
OLDEST = (6, 2, 0)
EVICTING = (
    "allkeys-lru",
    "allkeys-lfu",
    "allkeys-random",
    "volatile-lru",
    "volatile-lfu",
    "volatile-ttl",
    "volatile-random",
)


def _login(facts: Facts) -> Verdict:
    if facts["anonymous"] == "accepted":
        return unsafe("requirepass or an ACL user with the key prefix ae:*, and `user default off`")
    return FINE


def _tls(facts: Facts) -> Verdict:
    safe = facts["tls"] or facts["local"]
    return FINE if safe else unsafe("tls-port at the server, rediss:// in REDIS_URL")


def _memory(facts: Facts) -> Verdict:
    most, policy = facts["maxmemory"], facts["maxmemory_policy"]
    if most == 0:
        return advice("maxmemory 256mb: without a bound it takes the machine's memory")
    return FINE if policy in EVICTING else advice("maxmemory-policy allkeys-lru: a full cache must forget, not refuse")


def _version(facts: Facts) -> Verdict:
    return advice("Valkey 8 or Redis 7 or newer") if version_of(facts["version"]) < OLDEST else FINE


def _used(facts: Facts) -> Verdict:
    evicted = facts["evicted_keys"]
    return (
        fine(read={"evicted_keys": evicted})
        if evicted == 0
        else advice("a larger maxmemory, if outcomes are read from PostgreSQL too often")
    )


RULES = (
    Rule("login", ("anonymous",), "Cached outcomes hold results of tasks.", _login),
    Rule("tls", ("tls", "local"), "Results cross the network.", _tls),
    Rule(
        "memory",
        ("maxmemory", "maxmemory_policy"),
        "A cache is bounded and forgets.",
        _memory,
        "allow INFO to the user",
    ),
    Rule("version", ("version",), "Old servers have known holes.", _version, "allow INFO to the user"),
    Rule("evictions", ("evicted_keys",), "A cache that is too small helps nobody.", _used, "allow INFO to the user"),
)
