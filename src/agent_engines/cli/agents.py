"""`engines agents`: the fleet, and what an operator decides about an agent."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .session import Session, command, group
from .tables import show_details, show_rows

app = group("List, show, drain, resume and quarantine agents.")
AgentName = Annotated[str, typer.Argument(help="The agent's name.", show_default=False)]
COLUMNS = ("agent", "status", "type", "breaker", "replicas", "running", "queued", "capabilities", "last_seen")


def row(agent: dict[str, Any]) -> list[Any]:
    """One line of the list."""
    loads = [replica.get("load", {}) for replica in agent.get("replicas", [])]
    return [
        agent.get("name"),
        agent.get("status"),
        agent.get("agent_type"),
        agent.get("breaker"),
        len(loads),
        sum(load.get("running", 0) for load in loads),
        sum(load.get("queued", 0) for load in loads),
        ", ".join(agent.get("capabilities", [])),
        agent.get("last_seen"),
    ]


@command(app, "list")
async def list_agents(session: Session) -> None:
    """Every agent heard from, and how busy it is."""
    async with session.client() as client:
        agents = await client.agents()
    session.print({"items": agents}, lambda: show_rows(COLUMNS, [row(one) for one in agents], empty="no agents"))


@command(app, "show")
async def show(session: Session, agent: AgentName) -> None:
    """One agent with its replicas."""
    async with session.client() as client:
        answer = await client.transport.read(f"agents/{agent}")
    session.print(answer, lambda: show_details(answer))


@command(app, "drain")
async def drain(session: Session, agent: AgentName) -> None:
    """Give it nothing new; it finishes what it has."""
    await _do(session, agent, "drain")


@command(app, "resume")
async def resume(session: Session, agent: AgentName) -> None:
    """Give it work again."""
    await _do(session, agent, "resume")


@command(app, "quarantine")
async def quarantine(session: Session, agent: AgentName) -> None:
    """Take it out until someone resumes it."""
    await _do(session, agent, "quarantine")


async def _do(session: Session, agent: str, verb: str) -> None:
    async with session.client() as client:
        answer = await client.transport.act(f"agents/{agent}:{verb}")
    session.print(answer, lambda: show_details({"agent": answer.get("name"), "status": answer.get("status")}))
