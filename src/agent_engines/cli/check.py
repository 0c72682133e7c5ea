"""`engines check`: reads the servers and names every setting that is not safe."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any

import msgspec
import typer
from rich.markup import escape
from rich.table import Table

from agent_engines.bootstrap.preflight import PARTS, findings_by_part, preflight
from agent_engines.config import Config
from agent_engines.domain.errors import InvalidRequest
from agent_engines.domain.preflight.finding import Finding, Severity
from agent_engines.domain.preflight.report import Profile, Report

from .places import places_of
from .session import DataDirOption, Session, command
from .tables import cell, console

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
COLORS = {Severity.UNSAFE: "bold red", Severity.UNREAD: "magenta", Severity.ADVICE: "yellow", Severity.FINE: "green"}
WORDS = {Severity.UNREAD: "could not be read"}


class ProfileName(StrEnum):
    """As people write it."""

    PRODUCTION = "production"
    DEVELOPMENT = "development"
    DEV = "dev"


ProfileOption = Annotated[
    ProfileName | None,
    typer.Option("--profile", help="What unsafe settings mean (ENGINES_PROFILE).", show_default=False),
]
MonitorOption = Annotated[
    list[str] | None,
    typer.Option(
        "--nats-monitor",
        metavar="URL",
        help="Monitoring address of a NATS server; may be repeated.",
        show_default=False,
    ),
]


@command(
    app,
    epilog="Exit 1: something unsafe in the production profile. Exit 3: a server could not be reached; the others are reported.",
)
async def check(
    session: Session,
    profile: ProfileOption = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="PART", help=f"Only {', '.join(PARTS)}; may be repeated.", show_default=False),
    ] = None,
    accept: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="An unsafe setting you live with, such as local.http.", show_default=False),
    ] = None,
    monitor: MonitorOption = None,
    every: Annotated[bool, typer.Option("--all", help="Show what is fine, too.")] = False,
    data_dir: DataDirOption = None,
) -> None:
    """Read the servers and our own settings; name every unsafe one, why it matters and what to do."""
    _require_known(only or [], PARTS, "--only")
    _require_known(accept or [], [f"{part}.{rule.name}" for part, rules in PARTS.items() for rule in rules], "--accept")
    config = session.config
    with quiet():
        report = await preflight(
            config,
            places_of(config, monitors=tuple(monitor or ())),
            profile_of(config, profile),
            only=only or (),
            accepted=accept or (),
        )
    session.print(told(report), lambda: show(report, every=every))
    if report.exit_code:
        raise typer.Exit(report.exit_code)


@contextmanager
def quiet() -> Generator[None]:
    """Warnings of connections are not printed: what went wrong is in the report, in its place."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def profile_of(config: Config, given: ProfileName | None) -> Profile:
    """What was given, else ENGINES_PROFILE."""
    production = config.production if given is None else given is ProfileName.PRODUCTION
    return Profile.PRODUCTION if production else Profile.DEVELOPMENT


def told(report: Report) -> dict[str, Any]:
    """The report with its summary, for programs."""
    return {**msgspec.to_builtins(report), "counts": report.counts(), "exit_code": report.exit_code}


def show(report: Report, *, every: bool) -> None:
    """For people: what is wrong, one block for each server; what is fine only in numbers unless `every`."""
    screen = console()
    for part, findings in findings_by_part(report.findings).items():
        shown = _gathered([one for one in findings if every or one.severity is not Severity.FINE])
        screen.print(f"\n[bold]{part}[/bold]  {escape(report.parts[part])}")
        screen.print(_block(shown) if shown else "  [green]all fine[/green]")
    for name, why in report.unreachable.items():
        screen.print(f"\n[bold]{escape(name)}[/bold]  [bold red]not reached[/bold red]: {escape(why)}")
    screen.print(f"\n{_summary(report)}")


def _block(lines: list[_Line]) -> Table:
    made = Table(show_header=False, box=None, pad_edge=True)
    made.add_column(no_wrap=True)
    made.add_column(no_wrap=True)
    made.add_column(overflow="fold", ratio=1)
    for line in lines:
        finding = line.finding
        word = "accepted" if finding.accepted else WORDS.get(finding.severity, finding.severity.value)
        color = "dim" if finding.accepted else COLORS[finding.severity]
        read = ", ".join(f"{name} = {_plain(value)}" for name, value in finding.read.items())
        told = [f"{escape(', '.join(line.of))}: {read}" if line.of else read]
        if len(line.ids) == 1:
            told.append(f"[dim]{escape(finding.why)}[/dim]")
        if finding.remedy and not finding.accepted:
            told.append(f"[bold]->[/bold] {escape(finding.remedy)}")
        made.add_row(f"[{color}]{word}[/{color}]", escape("\n".join(line.ids)), "\n".join(told))
    return made


def _plain(value: Any) -> str:
    return cell("none" if value in ("", [], {}) else value)


@dataclass(slots=True)
class _Line:
    """Findings that say the same, shown once: `ids` and what they are `of`, none twice."""

    finding: Finding
    ids: dict[str, None] = field(default_factory=dict[str, None])
    of: dict[str, None] = field(default_factory=dict[str, None])


def _gathered(findings: list[Finding]) -> list[_Line]:
    """Eight streams with the same to say are one line that names them, and so are rules that lack the same reading."""
    lines: dict[tuple[str, ...], _Line] = {}
    for one in findings:
        name = "" if one.severity is Severity.UNREAD else one.id
        line = lines.setdefault((name, one.severity, one.remedy, str(one.read)), _Line(one))
        line.ids[one.id] = None
        if one.of:
            line.of[one.of] = None
    return list(lines.values())


def _summary(report: Report) -> str:
    parts = [
        f"{count} {WORDS.get(Severity(name), name) if name in list(Severity) else name}"
        for name, count in report.counts().items()
        if count
    ]
    text = f"{report.profile.value}: {', '.join(parts) or 'nothing was read'}"
    if report.exit_code == 0 and report.standing(Severity.UNSAFE):
        return f"{text}; unsafe settings fail the check with --profile production"
    return text


def _require_known(given: list[str], known: Any, option: str) -> None:
    for name in given:
        if name not in known:
            raise InvalidRequest(f"{option} {name} is not known; it is one of {', '.join(known)}", field=option)
