"""A server this process depends on: once it has failed several times, nobody waits for it until a probe came back.

Whoever can do without an answer asks `refusal` first and fails at once; whoever must get through (the recorder) does not
ask, and what it learns counts as well. One probe at a time, by the server's keeper, decides when it is asked again.
"""

from __future__ import annotations

from random import Random

from agent_engines.domain.breaker import Breaker, BreakerRule, BreakerState, Permit
from agent_engines.domain.errors import Unavailable
from agent_engines.ports.clock import Clock
from agent_engines.ports.telemetry import Telemetry

METRIC = "dependency_breaker_state"
RULE = BreakerRule(threshold=5, error_share=2.0, open_seconds=1.0, jitter=0.2)
"""Five failures without an answer between them; a share of errors above one never opens it. Probed about once a second."""


class Dependency:
    """The breaker of one server, of this process alone. Every change is logged and shown in `dependency_breaker_state`."""

    def __init__(
        self, name: str, *, clock: Clock, telemetry: Telemetry, rng: Random | None = None, rule: BreakerRule = RULE
    ) -> None:
        self.name = name
        self._clock = clock
        self._telemetry = telemetry
        self._log = telemetry.log("dependencies")
        self._breaker = Breaker(rule, rng or Random())
        self._shown = BreakerState.CLOSED
        telemetry.gauge(METRIC, float(BreakerState.CLOSED), dependency=name)

    @property
    def away(self) -> bool:
        """Known to be away: not closed."""
        return self._shown is not BreakerState.CLOSED

    def refusal(self) -> Unavailable | None:
        """What a caller who does not insist is told at once; None: ask the server."""
        if not self.away:
            return None
        wait = max(1.0, self._breaker.open_until - self._clock.monotonic())
        return Unavailable(f"{self.name} does not answer ({self._breaker.cause})", retry_after=wait)

    def worked(self) -> None:
        """An answer came, of whatever content."""
        if self.away:
            self._breaker.close()
            self._show()
            return
        now = self._clock.monotonic()
        permit = self._breaker.permit(now)
        if permit is not None:
            self._breaker.succeeded(permit, now)

    def failed(self, why: str) -> None:
        """No answer came."""
        if self.away:
            return
        now = self._clock.monotonic()
        permit = self._breaker.permit(now)
        if permit is not None:
            self._breaker.failed(permit, now, why)
        self._show()

    def silent(self, why: str) -> None:
        """A probe that was sent because nobody got an answer got none either."""
        if not self.away:
            self._breaker.open(self._clock.monotonic(), cause=why)
            self._show()

    def probe(self) -> Permit | None:
        """Permission to look whether it is back; one at a time, about once a second, while it is away."""
        if not self.away:
            return None
        permit = self._breaker.permit(self._clock.monotonic())
        self._show()
        return permit

    def probed(self, permit: Permit, good: bool, why: str = "") -> None:
        """What the probe found."""
        now = self._clock.monotonic()
        if good:
            self._breaker.succeeded(permit, now)
        else:
            self._breaker.failed(permit, now, why)
        self._show()

    def unused(self, permit: Permit) -> None:
        """The probe was cancelled."""
        self._breaker.unused(permit)

    def _show(self) -> None:
        # An open breaker counts as open until somebody probes: time alone brings nobody back.
        before, self._shown = self._shown, self._breaker.state(self._clock.monotonic())
        if before is self._shown:
            return
        self._telemetry.gauge(METRIC, float(self._shown), dependency=self.name)
        if self._shown is BreakerState.OPEN and before is BreakerState.CLOSED:
            self._log.warning(
                "A dependency is away and not waited for", dependency=self.name, cause=self._breaker.cause
            )
        elif self._shown is BreakerState.CLOSED:
            self._log.info("A dependency is back", dependency=self.name)
