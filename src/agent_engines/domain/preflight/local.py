"""Rules for our own side: secrets on disk, keys, who can reach us, and numbers that contradict each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from agent_engines.domain.capability import MIN_KEY_LENGTH

from .finding import FINE, Facts, Rule, Verdict, advice, fine, unsafe

PART = "local"
FEW_FILES = 4_096
WELL_KNOWN = frozenset(
    {
        "postgres",
        "password",
        "guest",
        "admin",
        "secret",
        "changeme",
        "default",
        "root",
        "test",
        "nats",
        "redis",
        "agent_engines",
        "12345678",
        "123456",
    }
)
SHORT_PASSWORD = 12


def secret_strength(user: str, secret: str) -> str:
    """`default` for passwords everybody tries first, `short` under 12 characters, else `long enough`."""
    if secret.lower() in WELL_KNOWN or secret == user:
        return "default"
    return "short" if len(secret) < SHORT_PASSWORD else "long enough"


def _passwords(facts: Facts) -> Iterator[Verdict]:
    for name, strength in facts["secrets"].items():
        read = {"strength": strength}
        if strength == "default":
            yield unsafe("a random password of 20 characters or more", of=name, read=read)
        else:
            yield fine(of=name, read=read) if strength != "short" else advice("a longer one", of=name, read=read)
    if not facts["secrets"]:
        yield fine(read={"secrets": "none set"})


def _files(facts: Facts) -> Iterator[Verdict]:
    for file in facts["secret_files"]:
        read = {"mode": f"{file['mode']:04o}", "holds": file["holds"]}
        if file["mode"] & 0o077:
            yield unsafe(f"chmod {'0700' if file['folder'] else '0600'} {file['path']}", of=file["path"], read=read)
        else:
            yield fine(of=file["path"], read=read)
    if not facts["secret_files"]:
        yield fine(read={"files with secrets": "none"})


def _plain(facts: Facts) -> Verdict:
    names = facts["secrets_in_dotenv"]
    read = {"secrets in .env": ", ".join(names) or "none"}
    return (
        advice("the variables' _FILE forms with files from a secret manager", read=read) if names else fine(read=read)
    )


def _capability(facts: Facts) -> Verdict:
    lengths: list[int] = facts["capability_key_lengths"]
    if not lengths:
        return advice(
            "ENGINES_CAPABILITY_KEY_FILE: keeps the key out of the ledger and its backups",
            read={"key": "shared in the ledger"},
        )
    short = min(lengths) < MIN_KEY_LENGTH
    read = {"keys": len(lengths), "shortest": min(lengths)}
    return unsafe(f"a random key of at least {MIN_KEY_LENGTH} characters", read=read) if short else fine(read=read)


def _reach(facts: Facts) -> Verdict:
    return (
        FINE
        if facts["http_local"]
        else unsafe(
            "AGENT_HTTP_HOST=127.0.0.1 behind a proxy that asks who it is; or a network policy, and --accept local.http"
        )
    )


def _slots(facts: Facts) -> Verdict:
    slots, queue = facts["our.agent_max_concurrent_tasks"], facts["our.agent_queue_size"]
    read = {"AGENT_MAX_CONCURRENT_TASKS": slots, "AGENT_QUEUE_SIZE": queue}
    most = facts["our.max_ack_pending"]
    if slots + queue > most:
        return advice(f"together at most {most}: that many deliveries of one agent are out at a time", read=read)
    return (
        advice("AGENT_QUEUE_SIZE at least AGENT_MAX_CONCURRENT_TASKS, or slots wait for work", read=read)
        if queue < slots
        else fine(read=read)
    )


def _grace(facts: Facts) -> Verdict:
    return (
        FINE
        if facts["our.agent_shutdown_grace_seconds"] >= min(facts["our.agent_task_timeout_seconds"], 30.0)
        else advice("AGENT_SHUTDOWN_GRACE_SECONDS=30: tasks that do not end in it run again elsewhere")
    )


def _tells(read: dict[str, Any], wrong: bool, remedy: str) -> Verdict:
    return advice(remedy, read=read) if wrong else fine(read=read)


RULES = (
    Rule("passwords", ("secrets",), "The first passwords that are tried are the default ones.", _passwords),
    Rule("files", ("secret_files",), "Every account of the machine can read them.", _files),
    Rule("dotenv", ("secrets_in_dotenv",), "A .env file is copied, backed up and committed by mistake.", _plain),
    Rule(
        "capability_key",
        ("capability_key_lengths",),
        "It is what keeps an agent from reporting on others' tasks.",
        _capability,
    ),
    Rule(
        "http",
        ("http_host", "http_local"),
        "The HTTP side asks nobody for a credential: who reaches it submits, cancels and reads.",
        _reach,
    ),
    Rule(
        "slots",
        ("our.agent_max_concurrent_tasks", "our.agent_queue_size", "our.max_ack_pending"),
        "Both bound what one replica holds.",
        _slots,
    ),
    Rule(
        "grace",
        ("our.agent_shutdown_grace_seconds", "our.agent_task_timeout_seconds"),
        "Every deployment stops agents.",
        _grace,
    ),
    Rule(
        "spool",
        ("spool",),
        "Finished results wait here while the bus is away.",
        lambda facts: _tells(
            {"ENGINES_SPOOL_DIR": facts["spool"] or "not set"},
            not facts["spool"],
            "ENGINES_SPOOL_DIR on a disk: in memory they die with the process",
        ),
    ),
    Rule(
        "open_files",
        ("open_files",),
        "Each client and each agent is an open file.",
        lambda facts: _tells(
            {"limit": facts["open_files"]},
            0 < facts["open_files"] < FEW_FILES,
            "ulimit -n 65536 (systemd: LimitNOFILE)",
        ),
    ),
)
