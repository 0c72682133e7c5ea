"""Values: everything that outcomes taught about kinds of agents; shared between routers, changed by lessons only.

    state = f(snapshot, sequence of lessons)

Nothing a decision does changes it. Two routers that took the same lessons in the same order have the same `digest`, also when
one of them was restored from a snapshot on the way. A lesson given twice counts twice: whoever keeps the sequence drops
duplicates (see Lesson).
"""

from __future__ import annotations

import hashlib

import msgspec
import numpy as np

from .arrays import Floats, Rows
from .calibration import Calibration, CalibrationState
from .drift import Drift, DriftState
from .family import CHILD_VARIANCE, Family, FamilyState
from .intercepts import Intercepts, InterceptsState
from .lesson import Lesson
from .ridge import NEWCOMER
from .snapshot import FORMAT, READABLE, Array

AVERAGE = 0.05
"""Weight of a new sample in the moving averages of cost and seconds."""
MOST_BELIEVED = 64
"""Task types whose predictions are kept until the next lesson."""
MOST_FAMILIES = 64
"""Families that are kept; the one that was not taught for the longest time makes room."""


WIDENED, LEFT = 10.0, 10.0
"""A drift alarm multiplies the variance of what is believed of the kind by this, or leaves so many outcomes' worth of it."""
ALARM_LESSONS = 500
ALARM_FLOOR = 0.02
"""For so many lessons after an alarm every kind keeps its part of this share of decisions."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How wide what is believed is, in standard deviations of one outcome: for ridge families and for the table.

    `forgetting`: weight that what is known of a kind keeps at each of its lessons.
    """

    ridge_width: float = 0.2
    table_width: float = 1.0
    forgetting: float = 1.0


class ValuesState(msgspec.Struct, frozen=True):
    format: int
    lessons: int
    kinds: tuple[str, ...]
    averages: Array
    table: InterceptsState
    families: tuple[FamilyState, ...]
    calibration: CalibrationState
    drifts: tuple[DriftState, ...]
    alarmed_until: int
    alarms: int


class Values:
    """What is known of each kind. Kinds have numbers from 1 up in order of their first lesson; 0 is whoever is new."""

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings or Settings()
        self._kinds: dict[str, int] = {}
        self._costs, self._seconds = [0.0], [0.0]
        self._table = Intercepts(forgetting=self._settings.forgetting)
        self._families: dict[tuple[str, int], Family] = {}
        self._calibration = Calibration()
        self._drifts: list[Drift] = []
        self._alarmed_until = 0
        self._believed: dict[str, tuple[Rows, Floats, Floats]] = {}
        self.lessons = 0
        self.alarms = 0
        """Drift alarms so far."""

    @property
    def floor(self) -> float:
        """Share of decisions that belongs to all kinds alike because one of them has drifted."""
        return ALARM_FLOOR if self.lessons < self._alarmed_until else 0.0

    @property
    def kinds(self) -> int:
        """How many kinds have been taught about."""
        return len(self._kinds)

    def number(self, kind: str, parent: str | None = None) -> int:
        """The kind's number; its parent's when it is new; 0 when nothing is known of either."""
        found = self._kinds.get(kind)
        if found is None and parent is not None:
            found = self._kinds.get(parent)
        return NEWCOMER if found is None else found

    def predict(self, kinds: Rows, task_type: str, features: Floats | None) -> tuple[Floats, Floats]:
        """(expected quality, standard deviation of that expectation) of kinds by number, to be read only."""
        if features is not None:
            family = self._families.get((task_type, len(features)))
            if family is not None:
                return family.predict(kinds, features, self._settings.ridge_width)
        believed = self._believed.get(task_type)
        if believed is not None and believed[0] is kinds:
            return believed[1], believed[2]
        means, widths = self._table.predict(kinds, task_type)
        if self._settings.table_width != 1.0:
            widths *= self._settings.table_width
        if len(self._believed) >= MOST_BELIEVED:
            self._believed.clear()
        self._believed[task_type] = (kinds, means, widths)
        return means, widths

    def confidence(self, raw: float, task_type: str = "", size: int = 0) -> float:
        """P(success) of a choice whose expected quality was `raw`, for a task with `size` features."""
        family = self._families.get((task_type, size)) if size else None
        return (self._calibration if family is None else family.calibration)(raw)

    def cost(self, kind: int) -> float:
        """Moving average of what a task of it costs."""
        return self._costs[kind]

    def seconds(self, kind: int) -> float:
        """Moving average of how long it works on a task."""
        return self._seconds[kind]

    def learn(self, lesson: Lesson) -> None:
        """Take in the next lesson of the sequence. Raises ValueError naming the field of a lesson that cannot be used."""
        lesson.check()
        self.take(lesson)

    def take(self, lesson: Lesson) -> None:
        """The same for a lesson that was checked already."""
        self._believed.clear()
        self.lessons += 1
        kind = self._known(lesson)
        quality = float(lesson.quality)
        if lesson.cost is not None:
            _follow(self._costs, kind, lesson.cost)
        if lesson.seconds is not None:
            _follow(self._seconds, kind, lesson.seconds)
        self._table.learn(kind, lesson.task_type, quality)
        calibration = self._calibration
        if lesson.features:
            family = self._family(lesson.task_type, len(lesson.features))
            family.learn(kind, lesson.features, quality)
            calibration = family.calibration
        if lesson.raw is not None:
            told = calibration(lesson.raw) if lesson.confidence is None else lesson.confidence
            calibration.learn(lesson.raw, quality)
            drift = self._drifts[kind - 1]
            if drift.told(quality, told):
                self._alarm(kind, max(WIDENED, drift.lessons / LEFT))
                drift.lessons = 0

    def digest(self) -> str:
        """SHA-256 of the state, as hexadecimal digits."""
        return hashlib.sha256(self.snapshot()).hexdigest()

    def snapshot(self) -> bytes:
        """The whole state; the same bytes for the same state."""
        return msgspec.msgpack.encode(
            ValuesState(
                FORMAT,
                self.lessons,
                tuple(self._kinds),
                Array.of(np.array([self._costs, self._seconds])),
                self._table.state(),
                tuple(family.state() for family in self._families.values()),
                self._calibration.state(),
                tuple(drift.state() for drift in self._drifts),
                self._alarmed_until,
                self.alarms,
            )
        )

    def restore(self, snapshot: bytes) -> None:
        """Become what `snapshot` was taken of. Raises ValueError when it is damaged or of another format."""
        try:
            state = msgspec.msgpack.decode(snapshot, type=ValuesState)
        except msgspec.DecodeError as error:
            raise ValueError(f"the snapshot of values cannot be read: {error}") from error
        if state.format not in READABLE:
            raise ValueError(f"the snapshot of values has format {state.format}, this version reads {READABLE}")
        self._believed.clear()
        families = [Family.of(one, self._settings.forgetting) for one in state.families]
        self.lessons = state.lessons
        self._kinds = {name: number for number, name in enumerate(state.kinds, 1)}
        self._costs, self._seconds = state.averages.values().tolist()
        self._table.load(state.table)
        self._families = {(one.task_type, one.scale.size): one for one in families}
        self._calibration = Calibration.of(state.calibration)
        # Before format 3 they held sums that meant something else.
        self._drifts = [Drift.of(one) if state.format == FORMAT else Drift(one.lessons) for one in state.drifts]
        self._alarmed_until, self.alarms = state.alarmed_until, state.alarms

    def _alarm(self, kind: int, times: float) -> None:
        """What was believed of this kind no longer holds."""
        self.alarms += 1
        self._alarmed_until = self.lessons + ALARM_LESSONS
        self._table.widen(kind, times)
        for family in self._families.values():
            family.widen(kind, times)

    def _known(self, lesson: Lesson) -> int:
        """The kind's number; a new one gets the next, and its parent's experience where there is any."""
        number = self._kinds.get(lesson.kind)
        if number is not None:
            return number
        number = self._kinds[lesson.kind] = len(self._kinds) + 1
        self._costs.append(0.0)
        self._seconds.append(0.0)
        self._table.grow(number + 1)
        self._drifts.append(Drift())
        parent = self._kinds.get(lesson.parent or "")
        if parent is not None:
            self._table.adopt(number, parent, CHILD_VARIANCE)
        for family in self._families.values():
            family.grow(number + 1)
            if parent is not None:
                family.adopt(number, parent)
        return number

    def _family(self, task_type: str, size: int) -> Family:
        """The family, made when it is new; it becomes the most recently taught."""
        family = self._families.pop((task_type, size), None)
        if family is None:
            if len(self._families) >= MOST_FAMILIES:
                del self._families[next(iter(self._families))]
            family = Family(task_type, size, self._settings.forgetting)
            family.grow(len(self._kinds) + 1)
        self._families[task_type, size] = family
        return family


def _follow(averages: list[float], kind: int, value: float) -> None:
    before = averages[kind]
    averages[kind] = before + AVERAGE * (value - before) if before else float(value)
