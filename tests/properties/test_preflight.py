"""The rules of `engines check`: over values as they are read, each bad one is named and nothing unread is called fine."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_engines.bootstrap.preflight import PARTS
from agent_engines.domain.preflight.finding import Finding, Severity, Unread, judged
from agent_engines.domain.preflight.local import secret_strength
from agent_engines.domain.preflight.nats import version_of
from agent_engines.domain.preflight.report import Profile, Report

STREAM = {
    "config": {
        "num_replicas": 3,
        "storage": "file",
        "retention": "limits",
        "discard": "new",
        "max_consumers": 100_000,
        "max_msgs": 100,
    },
    "state": {"messages": 1, "bytes": 1, "consumer_count": 2},
    "cluster": {"leader": "n1", "replicas": [{"name": "n2", "current": True}, {"name": "n3", "current": True}]},
}
SERVER = {
    "host": "n1:4222",
    "version": "2.15.1",
    "auth_required": True,
    "anonymous": "refused",
    "tls": "required",
    "local": False,
}
MONITOR = {
    "host": "n1:8222", "sync_always": True, "sync_seconds": 0.0, "max_storage": 100, "storage": 1, "health": "ok",
    "http_host": "127.0.0.1", "https": False,
}  # fmt: skip
CONSUMER = {
    "stream": "TASKS_LOW", "name": "a", "pending": 0, "ack_pending": 0, "waiting": 1, "max_ack_pending": 20_000, "still_seconds": 500.0,
}  # fmt: skip
ROLE = {"rolname": "ae", "rolsuper": False, "rolcreaterole": False, "rolbypassrls": False, "rolreplication": False}
GOOD: dict[str, dict[str, Any]] = {
    "postgres": {
        "fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "synchronous_commit.source": "default",
        "synchronous_standby_names": "", "overrides": [], "wal_level": "replica", "archive_mode": "on", "standbys": 1,
        "data_checksums": "on", "server_version_num": 170_000, "in_recovery": False, "schema.current": "0006",
        "schema.head": "0006", "schema.pending": [], "max_connections": 200, "superuser_reserved_connections": 3,
        "our.postgres_pool_max": 20, "role": ROLE, "tls": True, "tls_version": "TLSv1.3", "local": False,
        "our.sslmode": "verify-full", "password_encryption": "scram-sha-256", "hba": [], "autovacuum": "on",
        "transaction_id_age": 10, "autovacuum_freeze_max_age": 200_000_000, "idle_in_transaction_session_timeout": 1,
        "statement_timeout": 1, "oldest_transaction_seconds": 0.0, "clock_difference_seconds": 0.01,
        "disk.free_bytes": 1 << 40, "disk.total_bytes": 1 << 41,
    },
    "nats": {
        "servers_named": 3,
        "servers": [SERVER], "jetstream": True, "account": "APP", "monitors": [{**MONITOR, "host": f"n{number}:8222"} for number in (1, 2, 3)], "our.bus_sync": "always",
        "streams": {"RESULTS": STREAM}, "cluster_size": 3, "account_limits": {"max_storage": -1}, "account_used": {"storage": 5},
        "our.streams": {"RESULTS": {"storage": "file", "retention": "limits", "discard": "new"}}, "max_payload": 8 << 20,
        "our.max_body_bytes": 1 << 20, "consumers": [CONSUMER],
    },
    "redis": {"anonymous": "refused", "tls": True, "local": False, "maxmemory": 1, "maxmemory_policy": "allkeys-lru", "version": "9.1.2", "evicted_keys": 0},
    "consul": {"leader": True, "anonymous": "refused", "tls": True, "local": False, "version": "1.20.1"},
    "local": {
        "secrets": {"NATS_URL": "long enough"}, "secret_files": [{"path": "f", "mode": 0o600, "holds": "x", "folder": False}],
        "secrets_in_dotenv": [], "capability_key_lengths": [32], "http_host": "127.0.0.1", "http_local": True,
        "our.agent_max_concurrent_tasks": 100, "our.agent_queue_size": 1000, "our.max_ack_pending": 20_000,
        "our.agent_shutdown_grace_seconds": 30.0, "our.agent_task_timeout_seconds": 300.0, "spool": "/var/spool", "open_files": 65_536,
    },
}  # fmt: skip
RULES = [(part, rule) for part, rules in PARTS.items() for rule in rules]


def findings(part: str, facts: dict[str, Any], accepted: tuple[str, ...] = ()) -> list[Finding]:
    return judged(part, PARTS[part], facts, accepted)


def broken(part: str, *path: Any, value: Any) -> list[Finding]:
    """What is said when one value, found by its path, is another."""
    facts: Any = deepcopy(GOOD[part])
    place = facts
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return [one for one in findings(part, facts) if one.severity is not Severity.FINE]


@pytest.mark.parametrize("part", GOOD)
def test_a_good_server_has_nothing_but_fine_findings(part: str) -> None:
    assert {one.severity for one in findings(part, GOOD[part])} == {Severity.FINE}


UNSAFE: list[tuple[str, tuple[Any, ...], Any, str]] = [
    ("postgres", ("fsync",), "off", "fsync"),
    ("postgres", ("full_page_writes",), "off", "full_page_writes"),
    ("postgres", ("synchronous_commit",), "off", "synchronous_commit"),
    ("postgres", ("overrides",), [{"role": "r", "database": "", "setting": "synchronous_commit=off"}], "overrides"),
    ("postgres", ("wal_level",), "minimal", "wal_level"),
    ("postgres", ("data_checksums",), "off", "data_checksums"),
    ("postgres", ("server_version_num",), 130_005, "version"),
    ("postgres", ("in_recovery",), True, "standby"),
    ("postgres", ("schema.pending",), ["0007"], "schema"),
    ("postgres", ("max_connections",), 25, "connections"),
    ("postgres", ("role", "rolsuper"), True, "role"),
    ("postgres", ("tls",), False, "tls"),
    ("postgres", ("password_encryption",), "md5", "password_encryption"),
    (
        "postgres",
        ("hba",),
        [{"type": "host", "address": "all", "auth_method": "trust", "error": None, "line_number": 3}],
        "hba",
    ),
    ("postgres", ("autovacuum",), "off", "autovacuum"),
    ("postgres", ("transaction_id_age",), 2_000_000_000, "wraparound"),
    ("postgres", ("clock_difference_seconds",), -6.0, "clock"),
    ("postgres", ("disk.free_bytes",), 1 << 29, "disk"),
    ("nats", ("servers", 0, "version"), "2.14.9", "version"),
    ("nats", ("servers", 0, "anonymous"), "accepted", "login"),
    ("nats", ("servers", 0, "tls"), "none", "tls"),
    ("nats", ("jetstream",), False, "jetstream"),
    ("nats", ("monitors", 0, "sync_always"), False, "sync_interval"),
    ("nats", ("streams", "RESULTS", "config", "num_replicas"), 1, "replicas"),
    ("nats", ("cluster_size",), 1, ""),
    ("nats", ("streams", "RESULTS", "cluster", "leader"), "", "copies"),
    ("nats", ("streams", "RESULTS", "config", "storage"), "memory", "storage"),
    ("nats", ("streams", "RESULTS", "config", "discard"), "old", "storage"),
    ("nats", ("streams", "RESULTS", "config", "persist_mode"), "async", "persistence"),
    ("nats", ("streams", "RESULTS", "state", "consumer_count"), 99_000, "max_consumers"),
    ("nats", ("streams", "RESULTS", "state", "messages"), 95, "fullness"),
    ("nats", ("account_limits", "max_storage"), 5, "account_limits"),
    ("nats", ("monitors", 0, "storage"), 99, "store"),
    ("nats", ("monitors", 0, "health"), "write error", "health"),
    ("nats", ("max_payload",), 1 << 19, "max_payload"),
    ("redis", ("anonymous",), "accepted", "login"),
    ("redis", ("tls",), False, "tls"),
    ("consul", ("anonymous",), "accepted", "login"),
    ("consul", ("tls",), False, "tls"),
    ("local", ("secrets",), {"POSTGRES_URL": "default"}, "passwords"),
    ("local", ("secret_files", 0, "mode"), 0o644, "files"),
    ("local", ("capability_key_lengths",), [32, 31], "capability_key"),
    ("local", ("http_local",), False, "http"),
]


@pytest.mark.parametrize(("part", "path", "value", "rule"), UNSAFE)
def test_each_unsafe_setting_is_named_alone_with_what_to_do(
    part: str, path: tuple[Any, ...], value: Any, rule: str
) -> None:
    said = broken(part, *path, value=value)
    assert [(one.id, one.severity) for one in said] == ([(f"{part}.{rule}", Severity.UNSAFE)] if rule else [])
    assert all(one.remedy and one.why and one.read for one in said)


ADVICE: list[tuple[str, tuple[Any, ...], Any, str]] = [
    ("postgres", ("server_version_num",), 140_010, "version"),
    ("postgres", ("our.sslmode",), "require", "tls"),
    ("postgres", ("oldest_transaction_seconds",), 301.0, "oldest_transaction"),
    ("nats", ("servers", 0, "tls"), "available", "tls"),
    ("nats", ("account",), "$G", "account"),
    ("nats", ("servers_named",), 2, "addresses"),
    ("nats", ("streams", "RESULTS", "cluster", "replicas", 1, "current"), False, "copies"),
    ("nats", ("streams", "RESULTS", "state", "messages"), 75, "fullness"),
    ("nats", ("consumers", 0), {**CONSUMER, "pending": 3, "waiting": 0}, "consumers"),
    ("nats", ("consumers", 0), {**CONSUMER, "ack_pending": 20_000}, "consumers"),
    ("redis", ("maxmemory",), 0, "memory"),
    ("redis", ("maxmemory_policy",), "noeviction", "memory"),
    ("local", ("capability_key_lengths",), [], "capability_key"),
    ("local", ("our.agent_queue_size",), 20_000, "slots"),
]


@pytest.mark.parametrize(("part", "path", "value", "rule"), ADVICE)
def test_what_is_only_unwise_is_advice(part: str, path: tuple[Any, ...], value: Any, rule: str) -> None:
    assert [(one.id, one.severity) for one in broken(part, *path, value=value)] == [(f"{part}.{rule}", Severity.ADVICE)]


@pytest.mark.parametrize(("part", "rule"), RULES, ids=lambda one: one if isinstance(one, str) else one.name)
def test_what_could_not_be_read_is_never_fine(part: str, rule: Any) -> None:
    for name in rule.reads:
        for facts in (
            {**GOOD[part], name: Unread("no right")},
            {key: value for key, value in GOOD[part].items() if key != name},
        ):
            (said,) = judged(part, [rule], facts)
            assert said.severity is Severity.UNREAD
            assert "could not be read" in said.read[name]


@settings(max_examples=30)
@given(st.data())
def test_any_set_of_missing_readings_silences_only_the_rules_that_need_them(data: st.DataObject) -> None:
    part = data.draw(st.sampled_from(sorted(GOOD)))
    gone = data.draw(st.sets(st.sampled_from(sorted(GOOD[part]))))
    facts = {name: Unread("no right") if name in gone else value for name, value in GOOD[part].items()}
    expected = {f"{part}.{rule.name}" for rule in PARTS[part] if gone & set(rule.reads)}
    assert {one.id for one in findings(part, facts) if one.severity is Severity.UNREAD} == expected


def test_a_login_that_could_not_be_tried_is_not_taken_for_a_refused_one() -> None:
    (said,) = broken("nats", "servers", 0, "anonymous", value="could not be tried: SSLError")
    assert said.severity is Severity.UNREAD


def test_a_server_whose_disk_nobody_asked_about_keeps_the_question_open() -> None:
    said = broken("nats", "monitors", value=[MONITOR, MONITOR])
    assert [(one.id, one.severity) for one in said] == [("nats.sync_interval", Severity.UNREAD)]


def test_an_accepted_finding_is_still_told_and_fails_nothing() -> None:
    facts = {**GOOD["local"], "http_local": False}
    told = findings("local", facts, ("local.http", "local.spool"))
    report = Report(profile=Profile.PRODUCTION, parts={}, findings=told)
    assert [one.id for one in told if one.accepted] == ["local.http"]
    assert (report.exit_code, report.counts()["accepted"], report.counts()["unsafe"]) == (0, 1, 0)


CASES: list[tuple[Profile, bool, dict[str, str], int]] = [
    (Profile.PRODUCTION, True, {}, 1),
    (Profile.PRODUCTION, False, {}, 0),
    (Profile.DEVELOPMENT, True, {}, 0),
    (Profile.DEVELOPMENT, False, {"nats": "no answer"}, 3),
    (Profile.PRODUCTION, True, {"nats": "no answer"}, 3),
]


@pytest.mark.parametrize(("profile", "bad", "away", "code"), CASES)
def test_the_exit_code_follows_profile_and_reach(profile: Profile, bad: bool, away: dict[str, str], code: int) -> None:
    told = findings("postgres", {**GOOD["postgres"], **({"fsync": "off"} if bad else {})})
    assert Report(profile=profile, parts={}, findings=told, unreachable=away).exit_code == code


@pytest.mark.parametrize("name", ["v2.15.1", "2.15.1-RC.3", "2.15.10"])
def test_versions_compare_by_their_numbers(name: str) -> None:
    assert version_of(name) >= (2, 15, 1)


def test_names_of_findings_are_unique_so_that_accepting_one_accepts_nothing_else() -> None:
    names = [f"{part}.{rule.name}" for part, rule in RULES]
    assert len(names) == len(set(names))


def test_the_guide_names_every_finding() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "guides" / "check-and-diagnose.md").read_text()
    assert [
        f"{part}.{rule.name}" for part, rule in RULES if f"| `{part}.{rule.name}` | {rule.why} |" not in guide
    ] == []


STRENGTHS: list[tuple[str, str, str]] = [
    ("ae", "postgres", "default"),
    ("someone", "someone", "default"),
    ("ae", "0123456789a", "short"),
    ("ae", "0123456789ab", "long enough"),
]
Strength = Callable[[str, str], str]


@pytest.mark.parametrize(("user", "secret", "strength"), STRENGTHS)
def test_passwords_that_are_tried_first_are_called_default(user: str, secret: str, strength: str) -> None:
    assert secret_strength(user, secret) == strength
