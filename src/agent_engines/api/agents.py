"""Agent routes: the fleet as it is now, and what an operator may decide about an agent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from agent_engines.domain.agents import AgentMode
from agent_engines.ports.service import IntelligenceService

from .exchange import Call, Reply, json_reply
from .models import AgentBody, Listing
from .routing import Operation
from .tasks import JSON

VERBS = {
    "drain": (AgentMode.DRAINING, "Give an agent nothing new; it finishes what it has"),
    "resume": (AgentMode.ACTIVE, "Give an agent work again"),
    "quarantine": (AgentMode.QUARANTINED, "Take an agent out until someone resumes it"),
}


class AgentRoutes:
    """Everything under /v1/agents."""

    def __init__(self, service: IntelligenceService) -> None:
        self._service = service

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="GET",
                path="/v1/agents",
                handler=self.list,
                summary="Every agent heard from, with its replicas and their load",
                tag="agents",
                replies={200: Listing[AgentBody]},
                problems=(406, 503),
            ),
            Operation(
                method="GET",
                path="/v1/agents/{agent_id}",
                handler=self.show,
                summary="One agent",
                tag="agents",
                replies={200: AgentBody},
                problems=(404, 406, 503),
            ),
            *(
                Operation(
                    method="POST",
                    path=f"/v1/agents/{{agent_id}}:{verb}",
                    handler=self._mode_setter(mode),
                    summary=summary,
                    tag="agents",
                    replies={200: AgentBody},
                    problems=(403, 404, 406, 503),
                )
                for verb, (mode, summary) in VERBS.items()
            ),
        ]

    async def list(self, call: Call) -> Reply:
        call.accept(JSON)
        agents = [AgentBody.of(view) for view in self._service.agents()]
        return json_reply(200, Listing(agents, None))

    async def show(self, call: Call) -> Reply:
        call.accept(JSON)
        return json_reply(200, AgentBody.of(self._service.agent(call.params["agent_id"])))

    def _mode_setter(self, mode: AgentMode) -> Callable[[Call], Awaitable[Reply]]:
        async def set_mode(call: Call) -> Reply:
            call.accept(JSON)
            return json_reply(200, AgentBody.of(await self._service.set_mode(call.params["agent_id"], mode)))

        return set_mode
