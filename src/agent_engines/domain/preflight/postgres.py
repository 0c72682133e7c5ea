"""Rules for PostgreSQL: what the ledger needs of the server that keeps it."""

from __future__ import annotations

from collections.abc import Iterator

from .finding import FINE, Facts, Rule, Verdict, advice, fine, must_be, unsafe

PART = "postgres"
OLDEST_SAFE, OLDEST_QUIET = 140_000, 150_000
"""Versions: below the first nothing was tested, below the second the project's own support ends soon."""
CLOCK_UNSAFE_SECONDS, CLOCK_ADVICE_SECONDS = 5.0, 0.5
LONG_TRANSACTION_SECONDS = 300.0
SPARE_CONNECTIONS = 5
"""For migrations, backups and a person with psql."""
OTHER_ENGINES = 8
"""Connections of the performance and the optimizing engine, and of probes, beside one router's pool."""
GIB = 1 << 30
XID_UNSAFE = 1_500_000_000
_READ_RIGHTS = "GRANT pg_read_all_settings, pg_read_all_stats TO the role, or run the check as an administrator"


def _synchronous_commit(facts: Facts) -> Verdict:
    value, source = facts["synchronous_commit"], facts["synchronous_commit.source"]
    where = {
        "user": "ALTER ROLE ... RESET synchronous_commit",
        "database": "ALTER DATABASE ... RESET synchronous_commit",
        "database user": "ALTER ROLE ... IN DATABASE ... RESET synchronous_commit",
    }.get(source, "ALTER SYSTEM SET synchronous_commit = on; SELECT pg_reload_conf()")
    if value == "off":
        return unsafe(where)
    weak = value in ("local", "remote_write") and facts.get("synchronous_standby_names")
    return advice(f"{where}: the standby has not written what is committed") if weak else FINE


def _overrides(facts: Facts) -> Iterator[Verdict]:
    bad = [one for one in facts["overrides"] if one["setting"].partition("=")[::2] == ("synchronous_commit", "off")]
    if not bad:
        yield fine(read={"overrides": len(facts["overrides"])})
    for one in bad:
        place = f"role {one['role'] or 'any'}, database {one['database'] or 'any'}"
        yield unsafe("ALTER ROLE or ALTER DATABASE ... RESET synchronous_commit", of=place, read=one)


def _version(facts: Facts) -> Verdict:
    number = facts["server_version_num"]
    if number < OLDEST_SAFE:
        return unsafe("upgrade to PostgreSQL 15 or newer")
    return advice("plan the upgrade to PostgreSQL 15 or newer") if number < OLDEST_QUIET else FINE


def _connections(facts: Facts) -> Verdict:
    pool, reserved = facts["our.postgres_pool_max"], facts["superuser_reserved_connections"]
    room, need = facts["max_connections"] - reserved, pool + OTHER_ENGINES + SPARE_CONNECTIONS
    read = {"max_connections": facts["max_connections"], "reserved": reserved, "POSTGRES_POOL_MAX": pool}
    if room < need:
        return unsafe(f"max_connections = {need + reserved} or more, or a smaller POSTGRES_POOL_MAX", read=read)
    if room < need + pool:
        return advice(
            "room for one router only; with n of them max_connections >= n * POSTGRES_POOL_MAX + 16", read=read
        )
    return fine(read=read)


def _role(facts: Facts) -> Verdict:
    powers = [name for name in ("rolsuper", "rolcreaterole", "rolbypassrls", "rolreplication") if facts["role"][name]]
    read = {"role": facts["role"]["rolname"], "powers": ", ".join(powers) or "none"}
    if "rolsuper" in powers:
        return unsafe(
            "make a role for the engines with rights on their tables only: ALTER ROLE ... NOSUPERUSER", read=read
        )
    return (
        advice("take away what the engines do not need: ALTER ROLE ... NOCREATEROLE NOREPLICATION", read=read)
        if powers
        else fine(read=read)
    )


def _tls(facts: Facts) -> Verdict:
    read = {"tls": facts["tls"], "version": facts["tls_version"] or "none", "local": facts["local"]}
    if facts["tls"]:
        if facts["our.sslmode"] not in ("verify-ca", "verify-full") and not facts["local"]:
            return advice("sslmode=verify-full in POSTGRES_URL, or anybody may answer in the server's place", read=read)
        return fine(read=read)
    return (
        fine(read=read)
        if facts["local"]
        else unsafe("ssl = on at the server, sslmode=verify-full in POSTGRES_URL", read=read)
    )


def _schema(facts: Facts) -> Verdict:
    read = {"revision": facts["schema.current"] or "none", "this program": facts["schema.head"]}
    if facts["schema.pending"]:
        return unsafe("engines db migrate", read=read)
    newer = (facts["schema.current"] or "") > facts["schema.head"]
    return advice("the database is ahead of this program: upgrade it too", read=read) if newer else fine(read=read)


def _clock(facts: Facts) -> Verdict:
    off = abs(facts["clock_difference_seconds"])
    if off > CLOCK_UNSAFE_SECONDS:
        return unsafe("synchronise the clocks of both machines (chrony, timesyncd)")
    return advice("synchronise the clocks of both machines") if off > CLOCK_ADVICE_SECONDS else FINE


def _wraparound(facts: Facts) -> Verdict:
    age, limit = facts["transaction_id_age"], facts["autovacuum_freeze_max_age"]
    if age > XID_UNSAFE:
        return unsafe("VACUUM (FREEZE) the oldest database now: at 2.1 thousand million the server stops taking writes")
    return advice("find what holds vacuum back: old transactions, replication slots") if age > 1.5 * limit else FINE


def _disk(facts: Facts) -> Verdict:
    free, total = facts["disk.free_bytes"], facts["disk.total_bytes"]
    read = {"free": f"{free / GIB:.1f} GiB", "of": f"{total / GIB:.1f} GiB"}
    if free < GIB or free < total * 0.05:
        return unsafe("make room before the database stops: a larger disk, a shorter ENGINES_RETENTION_DAYS", read=read)
    return advice("watch the disk: less than a fifth is free", read=read) if free < total * 0.2 else fine(read=read)


def _hba(facts: Facts) -> Iterator[Verdict]:
    weak = [one for one in facts["hba"] if one["auth_method"] in ("trust", "password", "md5") or one["error"]]
    if not weak:
        yield fine(read={"lines": len(facts["hba"])})
    for one in weak:
        method, local = (
            one["auth_method"],
            one["type"] == "local" or one["address"] in ("127.0.0.1", "::1", "localhost"),
        )
        place = f"line {one['line_number']}"
        if one["error"]:
            yield advice(f"repair pg_hba.conf: {one['error']}", of=place, read=one)
        elif method == "md5":
            yield advice("scram-sha-256 instead of md5 in pg_hba.conf", of=place, read=one)
        elif method == "password" and one["type"] == "hostssl":
            yield advice("scram-sha-256 instead of password in pg_hba.conf", of=place, read=one)
        else:
            weigh = advice if local else unsafe
            yield weigh(f"scram-sha-256 instead of {method} in pg_hba.conf", of=place, read=one)


def _archive(facts: Facts) -> Verdict:
    copied = facts["archive_mode"] != "off" or facts["standbys"] > 0
    return (
        FINE
        if copied
        else advice("archive_mode = on with an archive_command, or a standby: else a lost disk is a lost ledger")
    )


def _oldest_transaction(facts: Facts) -> Verdict:
    seconds = facts["oldest_transaction_seconds"]
    return (
        advice("end it (pg_terminate_backend): it keeps vacuum from cleaning")
        if seconds > LONG_TRANSACTION_SECONDS
        else FINE
    )


def _wal_level(facts: Facts) -> Verdict:
    return unsafe("wal_level = replica (needs a restart)") if facts["wal_level"] == "minimal" else FINE


RULES = (
    must_be("fsync", "on", "Without it a crash of the machine can leave the database beyond repair.", "fsync = on"),
    must_be("full_page_writes", "on", "Without it a power cut can leave half-written pages.", "full_page_writes = on"),
    Rule(
        "synchronous_commit",
        ("synchronous_commit", "synchronous_commit.source"),
        "A task is accepted when its commit is on disk; with `off` it is answered before, and a crash loses it.",
        _synchronous_commit,
    ),
    Rule(
        "overrides",
        ("overrides",),
        "A role or database may have settings of its own; engines may log in as it.",
        _overrides,
    ),
    Rule(
        "wal_level",
        ("wal_level",),
        "With `minimal` there is no base backup, no point-in-time restore and no standby.",
        _wal_level,
    ),
    Rule("archive", ("archive_mode", "standbys"), "The second copy of what was accepted.", _archive, _READ_RIGHTS),
    must_be(
        "data_checksums",
        "on",
        "Without checksums a rotten page is read as if it were right.",
        "pg_checksums --enable with the server stopped, or initdb --data-checksums",
    ),
    Rule("version", ("server_version_num",), "Versions without fixes lose data in known ways.", _version),
    Rule(
        "standby",
        ("in_recovery",),
        "The ledger is written to; a standby refuses that.",
        lambda facts: (
            unsafe("point POSTGRES_URL at the primary (target_session_attrs)") if facts["in_recovery"] else FINE
        ),
    ),
    Rule(
        "schema",
        ("schema.current", "schema.head", "schema.pending"),
        "Engines do not start on an older schema.",
        _schema,
        "GRANT SELECT ON alembic_version TO the role",
    ),
    Rule(
        "connections",
        ("max_connections", "superuser_reserved_connections", "our.postgres_pool_max"),
        "Pools that are larger than the server refuse work when it is most needed.",
        _connections,
    ),
    Rule("role", ("role",), "Whoever takes over an engine has the rights of its role.", _role),
    Rule("tls", ("tls", "tls_version", "local", "our.sslmode"), "Payloads and passwords cross the network.", _tls),
    must_be(
        "password_encryption",
        "scram-sha-256",
        "md5 passwords can be used without being cracked.",
        "password_encryption = 'scram-sha-256', then set the passwords again",
    ),
    Rule(
        "hba", ("hba",), "Who may log in with what proof.", _hba, "pg_hba_file_rules is for superusers: read it as one"
    ),
    must_be("autovacuum", "on", "Without it tables grow for ever and the server stops at last.", "autovacuum = on"),
    Rule(
        "wraparound",
        ("transaction_id_age", "autovacuum_freeze_max_age"),
        "Transaction ids run out unless old ones are frozen.",
        _wraparound,
    ),
    Rule(
        "idle_transactions",
        ("idle_in_transaction_session_timeout",),
        "Our sessions set 15 s; anybody else's forgotten transaction keeps locks and holds vacuum back.",
        lambda facts: (
            FINE
            if facts["idle_in_transaction_session_timeout"] > 0
            else advice("idle_in_transaction_session_timeout = '5min'")
        ),
    ),
    Rule(
        "statement_timeout",
        ("statement_timeout",),
        "Our sessions set 10 s; other sessions of this role run as long as they like.",
        lambda facts: (
            FINE if facts["statement_timeout"] > 0 else advice("ALTER ROLE ... SET statement_timeout = '60s'")
        ),
    ),
    Rule(
        "oldest_transaction",
        ("oldest_transaction_seconds",),
        "An old transaction keeps dead rows.",
        _oldest_transaction,
        _READ_RIGHTS,
    ),
    Rule("clock", ("clock_difference_seconds",), "Deadlines, leases and budgets compare both clocks.", _clock),
    Rule(
        "disk",
        ("disk.free_bytes", "disk.total_bytes"),
        "A full disk stops every acceptance.",
        _disk,
        "look at the disk of the database's own machine; from here it cannot be seen",
    ),
)
