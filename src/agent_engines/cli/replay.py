"""`engines replay`: what another policy would have earned on recorded decisions."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from .session import Session, command
from .tables import pick, show_details, show_rows

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
COLUMNS = ("method", "value", "interval", "standard_error", "effective_sample_size", "warnings")


@command(app)
async def replay(
    session: Session,
    policy: Annotated[
        str, typer.Option(help="uniform, always:<agent>, adaptive, or another shipped strategy.", show_default=False)
    ],
    since: Annotated[
        str | None, typer.Option(help="Decided at or after (ISO 8601); else the last day.", show_default=False)
    ] = None,
) -> None:
    """Estimate, interval and effective sample size, from decisions with their exact propensities."""
    async with session.client() as client:
        answer = await client.transport.read(f"policies/{quote(policy, safe=':')}:replay", {"since": since})
    session.print(answer, lambda: _show(answer))


def _show(answer: dict[str, Any]) -> None:
    show_details({name: value for name, value in answer.items() if name != "estimates"})
    rows = [pick(one, *COLUMNS) for one in answer.get("estimates", [])]
    show_rows(COLUMNS, rows, empty="no decision with an outcome and a usable propensity in that time")
