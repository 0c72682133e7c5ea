"""Four agents that read digits, as ordinary custom engines: `engines run agent_engines.demo.digits:svm`.

Task type `classify-digit`. Payload `{"pixels": [64 whole numbers 0..16], "label": digit | null}`; the model sees the
pixels only. A separate step compares its answer with the label and reports quality 1 or 0. Result `{"digit", "correct"}`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from agent_engines.domain.tasks import TaskRequest
from agent_engines.ports.connections import Connections
from agent_engines.runtime.agent_config import AgentConfig
from agent_engines.runtime.context import TaskContext
from agent_engines.runtime.engine import Engine

from . import digit_models
from .digit_models import BRIGHTEST, PIXELS, Model
from .results import References

TASK_TYPE = "classify-digit"

Pixel = Annotated[int, Meta(ge=0, le=BRIGHTEST)]


class DigitImage(msgspec.Struct, frozen=True):
    """An 8 x 8 picture, row by row, and what it shows if that is known."""

    pixels: Annotated[list[Pixel], Meta(min_length=PIXELS, max_length=PIXELS)]
    label: Annotated[int, Meta(ge=0, le=9)] | None = None


class DigitAnswer(msgspec.Struct, frozen=True):
    """`correct` is null when nobody told what the picture shows."""

    digit: int
    correct: bool | None


class DigitAgent(Engine):
    """One model behind a queue. It learns when the process starts, never when the module is imported."""

    def __init__(self, name: str, learn: Callable[[], Model], *, cost: float, slots: int = 2) -> None:
        config = AgentConfig(agent_id=name, max_concurrent_tasks=slots)
        super().__init__(config, agent_type="classifier", metadata={"cost_per_task": cost, "model": name})
        self._learn = learn
        self.price = cost
        self._model: Model | None = None
        self.task(TASK_TYPE, max_attempts=3, idempotent=True)(self.classify)

    async def on_start(self, connections: Connections) -> None:
        digit_models.one_thread()
        self._model = await asyncio.to_thread(self._learn)

    def classify(self, context: TaskContext, payload: DigitImage) -> DigitAnswer:
        """Read one digit. Runs in a thread: it computes."""
        digit = self.read(payload.pixels)
        context.cost(self.price)
        return judged(context, digit, payload.label)

    def read(self, pixels: Sequence[int]) -> int:
        """What the model sees in the pixels, and nothing else."""
        return int(self.learned()(np.array([pixels], dtype=np.float64) / BRIGHTEST)[0])

    def learned(self) -> Model:
        """The model, learning now if nobody has started this engine."""
        if self._model is None:
            self._model = self._learn()
        return self._model


def judged(context: TaskContext, digit: int, label: int | None) -> DigitAnswer:
    """The validator: compare with the label, after the answer is fixed, and report the quality."""
    if label is None:
        return DigitAnswer(digit, None)
    context.quality(1.0 if digit == label else 0.0)
    return DigitAnswer(digit, digit == label)


nearest_centroid = DigitAgent("nearest_centroid", digit_models.nearest_centroid, cost=0.0001)
logistic = DigitAgent("logistic", digit_models.logistic, cost=0.0004)
forest = DigitAgent("forest", digit_models.forest, cost=0.002)
svm = DigitAgent("svm", digit_models.svm, cost=0.004)
AGENTS = (nearest_centroid, logistic, forest, svm)
TARGETS = {agent.config.agent_id: f"{__name__}:{agent.config.agent_id}" for agent in AGENTS}
"""What `engines run` is given for each; the demo runs svm twice."""


def requests(count: int | None = None) -> Iterator[TaskRequest]:
    """The digits nobody has learned from, as tasks: all 1,197 once, or `count` of them, starting over at the end."""
    _, _, images, labels = digit_models.digits()
    for index in range(len(labels) if count is None else count):
        row = index % len(labels)
        pixels = [int(value) for value in images[row]]
        # What the router may learn from: how dark each part of the picture is, never what it shows.
        features = (images[row] / BRIGHTEST).tolist()
        payload = {"pixels": pixels, "label": int(labels[row])}
        yield TaskRequest(task_type=TASK_TYPE, payload=payload, features=features)


def references(count: int | None = None) -> References:
    """What each agent alone would have reached on the same tasks, counted by asking every model about every digit."""
    digit_models.one_thread()
    _, _, images, labels = digit_models.digits()
    rows = np.arange(len(labels) if count is None else count) % len(labels)
    right = {
        agent.config.agent_id: (agent.learned()(images / BRIGHTEST) == labels)[rows].astype(float).tolist()
        for agent in AGENTS
    }
    return References.of(right, {agent.config.agent_id: [agent.price] * len(rows) for agent in AGENTS})
