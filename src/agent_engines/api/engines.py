"""Reports of the other engines: performance and scaling, policies and tuning."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from agent_engines.domain.errors import Conflict, NotFound, Unavailable
from agent_engines.domain.iso_times import with_iso_times
from agent_engines.ports.service import IntelligenceService

from .exchange import Call, Reply, json_reply
from .routing import Operation
from .tasks import JSON
from .times import parsed_time

REPORTS = (
    ("/v1/performance", "performance", "report", "Rates, latency percentiles, errors, queues and anomalies of each agent and task type"),
    ("/v1/scaling", "performance", "scaling", "How many replicas each agent should have, and why"),
    ("/v1/policies", "optimizing", "policies", "Routing policies with what they would have earned on recorded decisions"),
    ("/v1/tuning", "optimizing", "tuning", "Which settings the recorded work speaks for"),
)  # fmt: skip


class ReplayQuery(msgspec.Struct, frozen=True):
    since: Annotated[
        str | None, Meta(description="decided at or after: ISO 8601, or epoch seconds; without it, the last day")
    ] = None


class _Policy(msgspec.Struct):
    policy: str


class _Policies(msgspec.Struct):
    policies: list[_Policy]
    active: str | None = None


class EngineRoutes:
    """What the performance and optimizing engines answer; 503 when they do not run."""

    def __init__(self, service: IntelligenceService) -> None:
        self._service = service

    def operations(self) -> list[Operation]:
        return [
            *(
                Operation(
                    method="GET",
                    path=path,
                    handler=self._reader(engine, what),
                    summary=summary,
                    tag="engines",
                    replies={200: dict[str, Any]},
                    problems=(406, 503),
                )
                for path, engine, what, summary in REPORTS
            ),
            Operation(
                method="GET",
                path="/v1/policies/{version}:replay",
                handler=self.replay,
                summary="What a policy would have earned on recorded decisions: estimate, interval, effective sample size",
                tag="engines",
                query=ReplayQuery,
                replies={200: dict[str, Any]},
                problems=(404, 406, 422, 503),
            ),
            *(
                Operation(
                    method="POST",
                    path=f"/v1/policies/{{version}}:{verb}",
                    handler=self._refuser(verb),
                    summary=f"Not possible yet: always a 409 that says how to {verb} a policy by hand",
                    tag="engines",
                    replies={},
                    problems=(403, 404, 406, 409, 503),
                )
                for verb in ("promote", "rollback")
            ),
        ]

    async def replay(self, call: Call) -> Reply:
        call.accept(JSON)
        since = call.query(ReplayQuery).since
        moment = parsed_time(since, field="since") if since is not None else None
        return json_reply(200, await self._service.replay(call.params["version"], moment))

    def _reader(self, engine: str, what: str) -> Callable[[Call], Awaitable[Reply]]:
        async def read(call: Call) -> Reply:
            call.accept(JSON)
            return json_reply(200, with_iso_times(await self._service.report(engine, what)))

        return read

    def _refuser(self, verb: str) -> Callable[[Call], Awaitable[Reply]]:
        async def refuse(call: Call) -> Reply:
            call.accept(JSON)
            version = call.params["version"]
            if version not in _versions(await self._service.report("optimizing", "policies")):
                raise NotFound(f"there is no policy {version!r}; GET /v1/policies lists them")
            raise Conflict(
                f"cannot {verb} {version!r}: this version of the optimizing engine compares policies and changes nothing "
                "by itself; the routing policy is a setting of the intelligence engine, applied at its start"
            )

        return refuse


def _versions(report: dict[str, Any]) -> set[str | None]:
    """Every name the report knows a policy by. Raises Unavailable when it cannot be read."""
    try:
        read = msgspec.convert(report, _Policies)
    except msgspec.ValidationError as error:
        raise Unavailable(f"the optimizing engine's answer could not be read: {error}") from None
    return {read.active, *(policy.policy for policy in read.policies)}
