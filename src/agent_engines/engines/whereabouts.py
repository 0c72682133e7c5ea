"""Where replicas are: the fleet's picture with the addresses discovery knows. For people; nothing is decided by it."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from agent_engines.ports.discovery import Discovery
from agent_engines.ports.service import AgentView


def located(views: Sequence[AgentView], discovery: Discovery | None) -> list[AgentView]:
    """The same views; replicas that are known to discovery by the same agent and name have their `url`."""
    urls = {} if discovery is None else {(peer.agent, peer.replica): peer.url for peer in discovery.peers()}
    if not urls:
        return list(views)
    return [
        replace(
            view,
            replicas=tuple(replace(one, url=urls.get((view.name, one.replica))) for one in view.replicas),
        )
        for view in views
    ]
