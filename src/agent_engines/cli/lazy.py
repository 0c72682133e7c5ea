"""Commands by name, loaded when they are called: `engines run` must not pay for what `engines top` needs.

This is the one place where modules are imported by their names. `engines --help` is written from this table alone.
"""

from __future__ import annotations

from pkgutil import resolve_name
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

ROOM = "agent_engines.cli"

COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("up:app", "Start servers, engines and agents here; Ctrl-C drains and stops."),
    "demo": ("demo:app", "See it work: real servers, real tasks, a summary."),
    "run": ("run:app", "Run one engine against configured servers."),
    "status": ("status:app", "What runs where, and how it is."),
    "submit": ("submit:app", "Submit one task, or many from a file."),
    "tasks": ("tasks:app", "List, show, cancel, retry and judge tasks."),
    "agents": ("agents:app", "List, show, drain, resume and quarantine agents."),
    "decisions": ("decisions:app", "Who was chosen, among whom, and why."),
    "schedules": ("schedules:app", "Tasks made again and again, by cron expressions."),
    "dead-letters": ("dead_letters:app", "Tasks that were given up."),
    "tenants": ("tenants:app", "Budgets and weights of tenants."),
    "policies": ("policies:app", "Routing policies and what they would have earned."),
    "replay": ("replay:app", "What another policy would have earned on recorded decisions."),
    "top": ("top:app", "Live view of agents, queues and rates."),
    "check": ("check:app", "Read the servers and name every setting that is not safe."),
    "diagnose": ("diagnose:app", "One file with all that helps after an incident, secrets masked."),
    "bench": ("bench:app", "Throughput and latency of this installation."),
    "chaos": ("chaos:app", "Harm a system under load and prove that nothing was lost."),
    "db": ("database:app", "Bring the database schema up, or show where it is."),
    "backup": ("backup:app", "Make a whole backup while all goes on, or verify one."),
    "restore": ("restore:app", "Bring a backup back into an empty place."),
    "config": ("settings:app", "Effective settings and where they come from."),
}


def load(name: str) -> Any:
    """The object `module:attribute` names."""
    return resolve_name(name)


class LazyGroup(TyperGroup):
    """Lists commands from the table; imports the module of the one that runs."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """For help: a stand-in with the table's text, so that nothing is imported."""
        entry = COMMANDS.get(cmd_name)
        return None if entry is None else TyperCommand(cmd_name, help=entry[1], short_help=entry[1])

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        # The names the suggestion for a mistyped one is chosen from.
        self.commands = dict.fromkeys(COMMANDS)  # pyright: ignore[reportAttributeAccessIssue]
        name, stand_in, rest = super().resolve_command(ctx, args)
        if name is None or stand_in is None:
            return name, stand_in, rest
        return name, typer.main.get_command(load(f"{ROOM}.{COMMANDS[name][0]}")), rest
