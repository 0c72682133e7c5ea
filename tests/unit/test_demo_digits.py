"""The digit agents: honest models that see pixels only, behind ordinary engines."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from agent_engines.bootstrap.custom import load_engine
from agent_engines.demo import digit_models, digits
from agent_engines.domain.tasks import TaskRequest


def request(label: int | None, *, row: int = 0) -> TaskRequest:
    _, _, images, _ = digit_models.digits()
    return TaskRequest(task_type=digits.TASK_TYPE, payload={"pixels": [int(v) for v in images[row]], "label": label})


def test_every_digit_is_either_learned_from_or_work() -> None:
    train, _, work, labels = digit_models.digits()
    assert (len(train), len(work), len(labels)) == (600, 1197, 1197)
    learned = {image.tobytes() for image in train}
    assert not any(image.tobytes() in learned for image in work)


def test_the_models_differ_and_dearer_ones_are_better() -> None:
    known = digits.references()
    quality = [one.quality for one in known.single]
    cost = [one.cost for one in known.single]
    assert [one.name for one in known.single] == ["nearest_centroid", "logistic", "forest", "svm"]
    assert quality == sorted(quality)
    assert cost == sorted(cost)
    assert 0.85 < quality[0] < 0.92
    assert 0.97 < quality[-1] < 1.0
    assert known.best_single.name == "svm"
    assert known.oracle.quality > known.best_single.quality
    assert known.oracle.cost < known.best_single.cost


def test_learning_twice_gives_the_same_reader() -> None:
    _, _, images, _ = digit_models.digits()
    for learn in (digit_models.forest, digit_models.svm):
        assert np.array_equal(learn()(images[:200] / 16), learn()(images[:200] / 16))


@pytest.mark.parametrize("agent", digits.AGENTS, ids=lambda agent: agent.config.agent_id)
async def test_a_digit_is_read_and_judged(agent: digits.DigitAgent) -> None:
    _, _, _, labels = digit_models.digits()
    answer = await agent.handle_task(request(int(labels[0])))
    assert answer["status"] == "success"
    assert answer["result"] == {"digit": answer["result"]["digit"], "correct": answer["result"]["digit"] == labels[0]}


async def test_the_label_cannot_change_what_is_read() -> None:
    read = {(await digits.logistic.handle_task(request(label)))["result"]["digit"] for label in (None, *range(10))}
    assert len(read) == 1
    unlabelled = await digits.logistic.handle_task(request(None))
    assert unlabelled["result"]["correct"] is None


@pytest.mark.parametrize(
    "payload", [None, {"pixels": [0] * 63}, {"pixels": [17] * 64}, {"pixels": [0] * 64, "label": 10}]
)
async def test_what_is_no_picture_fails_without_a_retry(payload: object) -> None:
    answer = await digits.logistic.handle_task(TaskRequest(task_type=digits.TASK_TYPE, payload=payload))
    assert answer["status"] == "failed"
    assert answer["error"]["type"] == "InvalidPayload"
    assert answer["attempts"] == 1


def test_requests_start_over_when_more_are_wanted_than_there_are() -> None:
    many = list(digits.requests(1200))
    assert len(list(digits.requests())) == 1197
    assert many[1197].payload == many[0].payload
    assert all(type(value) is int for value in many[0].payload["pixels"])


@pytest.mark.parametrize("name", ["nearest_centroid", "logistic", "forest", "svm"])
def test_engines_run_finds_each_agent_by_its_name(name: str) -> None:
    assert load_engine(digits.TARGETS[name]).config.agent_id == name


def test_importing_the_module_learns_nothing() -> None:
    code = "from agent_engines.demo import digits; print([a._model for a in digits.AGENTS])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[None, None, None, None]"
