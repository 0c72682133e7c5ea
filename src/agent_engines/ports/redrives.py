"""Where redrives of many dead letters are kept, so that another router goes on with one whose router died."""

from __future__ import annotations

from typing import Protocol

from agent_engines.domain.redrives import Redrive, RedriveState


class RedriveStore(Protocol):
    """Part of the ledger. Every call may be repeated and raises Unavailable past its deadline."""

    async def begin(self, redrive: Redrive) -> None:
        """Raises Conflict while another one runs."""
        ...

    async def latest(self) -> Redrive | None:
        """The one that runs, or ran last."""
        ...

    async def claim(self, router: str, now: float, until: float) -> Redrive | None:
        """The running one, when nobody holds it or its holder fell silent; nobody else gets it before `until`."""
        ...

    async def note(self, redrive: Redrive, router: str, until: float) -> bool:
        """Keep how far it got, and hold on to it. False when it is not running any more, or somebody else took it over."""
        ...

    async def end(self, redrive_id: str, state: RedriveState, now: float) -> Redrive | None:
        """End the running one of that id. None when it was not running."""
        ...
