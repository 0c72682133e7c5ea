"""Poison: tasks that end the process they run in, and how to be sure that it was them.

What counts is *starts* without an end, not deliveries: a task that only waited in a process that died is innocent.
A first delivery runs beside anything and is not noted. From the second one on each start is noted before the handler runs.

noted starts   place
0              SHARED   beside anything
1              SINGLE   beside anything but another suspect: one more each `LANE_SECONDS`, most poison acts at once
2 or more      ALONE    nothing else runs in its process
2 of them alone    BURIED: nobody else can have done it, and an operator's kill does not hit the same task twice

So a task that always ends its process ends five of them (the first, SHARED, SINGLE, ALONE, ALONE), and no task is buried that
was not, twice in a row, the only one running.
"""

from __future__ import annotations

from enum import Enum

import msgspec

ALONE_STARTS = 2
SHARED_STARTS = 2
STARTS_BEFORE_BURIAL = SHARED_STARTS + ALONE_STARTS
"""Noted starts of a task that is buried; at least."""
LANE_SECONDS = 5.0
HOLD_SECONDS = 5.0
CHAIN_SECONDS = 1.0
"""Short tasks run alone one after the other for this long before others are let in again."""
MAX_HOLD_SECONDS = 7 * 86_400.0
"""The longest time limit an agent may set: a hold this long outlasts every neighbour."""
KEPT_PLACES = 8
UNNOTED_ALONE = 8
"""Deliveries a task may use up while starts cannot be noted (the longest wait of the reconciler is twelve leases)."""
UNNOTED_MOST = 16


class Place(Enum):
    """Beside whom a redelivered task may run."""

    SHARED = "shared"
    SINGLE = "single"
    ALONE = "alone"
    LATER = "later"
    """Nobody can say now: ask again in a while."""
    BURIED = "buried"


class Starts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The note about one task: how often it was started, without an end, beside others and alone.

    It is about one `attempt` number: the report that led to the next one came from a living process. A task sent again for
    want of news keeps its number, and so its guilt. `buried`: when it was given up (epoch seconds, 0: it was not); what was
    dispatched before that shares its fate, what came after it was redriven.
    """

    attempt: int
    shared: int = 0
    alone: int = 0
    places: tuple[str, ...] = ()
    """Where it was started, the latest last: `<replica>` or `<replica> alone`."""
    buried: float = 0.0

    def about(self, attempt: int, dispatched_at: float) -> Starts:
        """This note if it is about that attempt and that dispatch (epoch seconds), else a blank one."""
        if self.attempt != attempt or 0.0 < self.buried < dispatched_at:
            return Starts(attempt=attempt)
        return self

    @property
    def place(self) -> Place:
        """Where the next start belongs."""
        if self.buried or self.alone >= ALONE_STARTS:
            return Place.BURIED
        if self.shared >= SHARED_STARTS:
            return Place.ALONE
        return Place.SINGLE if self.shared else Place.SHARED

    def started(self, replica: str) -> Starts:
        """The note with one more start at its place."""
        alone = self.place is Place.ALONE
        where = f"{replica} alone" if alone else replica
        return msgspec.structs.replace(
            self,
            shared=self.shared + (not alone),
            alone=self.alone + alone,
            places=(*self.places, where)[-KEPT_PLACES:],
        )

    def withdrawn(self) -> Starts:
        """The note without its latest start: the process ended it in an orderly way."""
        if not self.places:
            return self
        alone = self.places[-1].endswith(" alone")
        return msgspec.structs.replace(
            self,
            shared=max(0, self.shared - (not alone)),
            alone=max(0, self.alone - alone),
            places=self.places[:-1],
        )

    @property
    def reason(self) -> str:
        """Why it is buried, for the dead letter."""
        times = self.shared + self.alone
        return (
            f"its process ended {times} times while it ran, {self.alone} of them with nothing else running: "
            + ", ".join(self.places)
        )


def unnoted(deliveries: int) -> Place:
    """The place of a task whose note cannot be read: by deliveries, so that it runs, and not for ever."""
    if deliveries <= 2:
        return Place.SHARED
    if deliveries == 3:
        return Place.SINGLE
    if deliveries <= UNNOTED_ALONE:
        return Place.ALONE
    return Place.LATER if deliveries <= UNNOTED_MOST else Place.BURIED


class Company:
    """Who of the suspects runs now, and whether the doors are open for others. Times: seconds that do not run backwards.

    Solitude comes by shutting the doors until everybody else has left. That is not waited for without bound: after
    `HOLD_SECONDS` the doors open for as long, then a hold twice as long follows. After runs alone they open for as long
    as they were shut. So others have at least half of the time, and solitude comes when a hold outlasts the neighbours' limits.
    """

    __slots__ = ("_alone", "_hold", "_newest", "_open_until", "_shut_at", "_singles")

    def __init__(self) -> None:
        self._alone = False
        self._singles = 0
        self._newest = float("-inf")
        self._hold = HOLD_SECONDS
        self._shut_at: float | None = None
        self._open_until = float("-inf")

    @property
    def shut(self) -> bool:
        """May nobody new begin now?"""
        return self._alone or self._shut_at is not None

    def wait_alone(self, now: float) -> None:
        """Somebody waits to run alone: move the doors as the rule says. Called now and then."""
        if self._alone:
            return
        if self._shut_at is None:
            if now >= self._open_until:
                self._shut_at = now
        elif now - self._shut_at >= self._hold:
            self._hold = min(self._hold * 2.0, MAX_HOLD_SECONDS)
            self._reopen(now)

    def nobody_waits(self, now: float) -> None:
        """Nobody waits to run alone any more."""
        if self._shut_at is not None and not self._alone:
            self._reopen(now)

    def may_begin(self, place: Place, others: int, now: float) -> bool:
        """May a suspect begin at this place, beside `others` tasks that run now?"""
        if place is Place.ALONE:
            return not self._alone and self._shut_at is not None and others == 0
        if self.shut:
            return False
        return place is not Place.SINGLE or self._singles == 0 or now - self._newest >= LANE_SECONDS

    def begin(self, place: Place, now: float) -> None:
        if place is Place.ALONE:
            self._alone = True
        elif place is Place.SINGLE:
            self._singles += 1
            self._newest = now

    def end(self, place: Place, now: float) -> None:
        if place is Place.ALONE:
            self._alone = False
            self._hold = HOLD_SECONDS
            if self._shut_at is not None and now - self._shut_at >= CHAIN_SECONDS:
                self._reopen(now)
        elif place is Place.SINGLE:
            self._singles -= 1

    def _reopen(self, now: float) -> None:
        if self._shut_at is not None:
            self._open_until = now + (now - self._shut_at)
        self._shut_at = None
