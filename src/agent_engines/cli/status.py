"""`engines status`: what runs where, and how each part is."""

from __future__ import annotations

import os
from typing import Any

import typer

from agent_engines.config.client_url import read_endpoints
from agent_engines.domain.errors import Unreachable
from agent_engines.domain.redaction import redacted_text

from .session import DataDirOption, Session, command
from .tables import console, show_details, show_rows

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
URLS = ("http_url", "nats_url", "postgres_url", "redis_url")


@command(app)
async def status(session: Session, data_dir: DataDirOption = None) -> None:
    """What runs where, health of each part. Exit 1 when a part is ill, 3 when nothing answers."""
    data, well = await gathered(session)
    session.print(data, lambda: _show(data))
    if not well:
        raise typer.Exit(1)


async def gathered(session: Session) -> tuple[dict[str, Any], bool]:
    """What --json prints, and whether all is well. Raises Unreachable."""
    endpoints = read_endpoints(session.config)
    processes = [
        {"name": name, "pid": pid, "state": "running" if _alive(pid) else "dead"}
        for name, pid in sorted(endpoints.get("pids", {}).items())
    ]
    transport = session.transport()
    try:
        health_code, health = await transport.probe("/health")
        ready_code, ready = await transport.probe("/ready")
    finally:
        await transport.close()
    if not isinstance(health, dict) or not isinstance(ready, dict):
        raise Unreachable(f"{session.http_url} answers, but not like an engine")
    data = {
        **endpoints,
        "http_url": session.http_url,
        "health": health,
        "ready": ready,
        "processes": processes,
    }
    dead = any(one["state"] == "dead" for one in processes)
    return data, health_code == 200 and ready_code == 200 and not dead


def _show(data: dict[str, Any]) -> None:
    # Passwords are in --json and in endpoints.json, for programs; not on a screen somebody may look at.
    show_details(
        {
            **{name: redacted_text(str(data[name])) for name in URLS if data.get(name)},
            "health": data["health"].get("status"),
            **{f"  {name}": "ok" if up else "down" for name, up in data["health"].get("checks", {}).items()},
            "ready": data["ready"].get("status"),
            "detail": data["ready"].get("detail"),
        }
    )
    if data["processes"]:
        console().print()
        show_rows(("process", "pid", "state"), [[one["name"], one["pid"], one["state"]] for one in data["processes"]])


def _alive(pid: Any) -> bool:
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        # It is there and belongs to somebody else, as the database does when we run as root.
        return True
    return True
