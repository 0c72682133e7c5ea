"""Policy routes: by what tasks are routed, what another policy would have earned, and changing it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from agent_engines.domain.errors import Unavailable
from agent_engines.domain.guardrail import Earned
from agent_engines.domain.iso_times import with_iso_times
from agent_engines.domain.policy_word import BY_LENGTH, REASON_LENGTH, PolicyChange, PolicyOrder
from agent_engines.domain.promotion import Gain
from agent_engines.domain.validation import decode_json
from agent_engines.ports.service import IntelligenceService

from .exchange import Call, Reply, json_reply
from .limits import ApiLimits
from .routing import Operation
from .tasks import JSON
from .times import iso_always, parsed_time

POLICY = "/v1/policies/{version}"
CHANGING = (400, 403, 404, 406, 408, 409, 413, 415, 422, 503)

By = Annotated[str, Meta(max_length=BY_LENGTH, description="who says so; kept with the change")]
Reason = Annotated[str, Meta(max_length=REASON_LENGTH, description="why; kept with the change")]


class ReplayQuery(msgspec.Struct, frozen=True):
    since: Annotated[
        str | None, Meta(description="decided at or after: ISO 8601, or epoch seconds; without it, the last day")
    ] = None


class PromotionSubmission(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is said with a promotion; all of it may be left out."""

    by: By = ""
    reason: Reason = ""
    force: Annotated[bool, Meta(description="also when the recorded decisions do not speak for it; needs a reason")] = (
        False
    )
    guard: Annotated[bool, Meta(description="roll it back by itself when it earns measurably less than before")] = True


class RollbackSubmission(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is said with a rollback; all of it may be left out."""

    by: By = ""
    reason: Reason = ""


class PolicyChangeBody(msgspec.Struct, frozen=True, kw_only=True, rename={"source": "from"}):
    """A change of the active policy. `version`: of the policy it led to, "" where it was not known; `objections`: what the evidence
    said against it; `baseline`: what was earned before it, by which a guarded one is watched."""

    turn: int
    verb: Literal["promote", "rollback"]
    source: str
    to: str
    version: str
    at: str
    by: str
    reason: str
    forced: bool
    objections: tuple[str, ...]
    evidence: tuple[Gain, ...]
    guarded: bool
    baseline: tuple[Earned, ...]

    @classmethod
    def of(cls, change: PolicyChange) -> PolicyChangeBody:
        return cls(
            turn=change.turn,
            verb=change.verb,
            source=change.source,
            to=change.to,
            version=change.version,
            at=iso_always(change.at),
            by=change.by,
            reason=change.reason,
            forced=change.forced,
            objections=change.objections,
            evidence=change.evidence,
            guarded=change.guarded,
            baseline=change.baseline,
        )


_promotion = msgspec.json.Decoder(PromotionSubmission).decode
_rollback = msgspec.json.Decoder(RollbackSubmission).decode


class PolicyRoutes:
    """Everything under /v1/policies, and /v1/tuning; 503 when the optimizing engine is needed and does not run."""

    def __init__(self, service: IntelligenceService, limits: ApiLimits) -> None:
        self._service = service
        self._limits = limits

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="GET",
                path="/v1/policies",
                handler=self.list,
                summary="Which policy routes, on which router, and what others would have earned on recorded decisions",
                tag="engines",
                replies={200: dict[str, Any]},
                problems=(406, 503),
            ),
            Operation(
                method="GET",
                path="/v1/tuning",
                handler=self.tuning,
                summary="What was changed by whom, why and on which evidence, the newest first",
                tag="engines",
                replies={200: dict[str, Any]},
                problems=(406, 503),
            ),
            Operation(
                method="GET",
                path=f"{POLICY}:replay",
                handler=self.replay,
                summary="What a policy would have earned on recorded decisions: estimate, interval, effective sample size",
                tag="engines",
                query=ReplayQuery,
                replies={200: dict[str, Any]},
                problems=(404, 406, 409, 422, 503),
            ),
            self._change("promote", PromotionSubmission, "Route by this policy from now on, if the recorded decisions speak for it"),
            self._change("rollback", RollbackSubmission, "Leave this active policy for what was active before"),
        ]  # fmt: skip

    async def list(self, call: Call) -> Reply:
        call.accept(JSON)
        return json_reply(200, with_iso_times(await self._service.report("optimizing", "policies")))

    async def tuning(self, call: Call) -> Reply:
        call.accept(JSON)
        report = with_iso_times(await self._service.report("optimizing", "tuning"))
        try:
            changes = msgspec.convert(report.get("changes", []), list[PolicyChange])
        except msgspec.ValidationError as error:
            raise Unavailable(f"the optimizing engine's answer could not be read: {error}") from None
        return json_reply(200, {**report, "changes": [PolicyChangeBody.of(change) for change in changes]})

    async def replay(self, call: Call) -> Reply:
        call.accept(JSON)
        since = call.query(ReplayQuery).since
        moment = parsed_time(since, field="since") if since is not None else None
        return json_reply(200, await self._service.replay(call.params["version"], moment))

    async def promote(self, call: Call) -> Reply:
        call.accept(JSON)
        said = decode_json(await self._body(call), _promotion)
        order = PolicyOrder(by=said.by, reason=said.reason, force=said.force, guard=said.guard)
        change = await self._service.policies.promote(call.params["version"], order)
        return json_reply(200, PolicyChangeBody.of(change))

    async def rollback(self, call: Call) -> Reply:
        call.accept(JSON)
        said = decode_json(await self._body(call), _rollback)
        order = PolicyOrder(by=said.by, reason=said.reason)
        change = await self._service.policies.rollback(call.params["version"], order)
        return json_reply(200, PolicyChangeBody.of(change))

    async def _body(self, call: Call) -> bytes:
        """Nothing said is said by an empty body, too."""
        return await call.body(self._limits.body_bytes) or b"{}"

    def _change(self, verb: str, body: type, summary: str) -> Operation:
        return Operation(
            method="POST",
            path=f"{POLICY}:{verb}",
            handler=self.promote if verb == "promote" else self.rollback,
            summary=summary,
            tag="engines",
            body=body,
            body_needed=False,
            replies={200: PolicyChangeBody},
            problems=CHANGING,
        )
