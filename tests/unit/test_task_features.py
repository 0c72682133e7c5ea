"""What a learner sees of a task: the caller's numbers first, embeddings in few columns, texts only where asked for."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest

from agent_engines.bootstrap.routing import routing_options
from agent_engines.config import load_config
from agent_engines.domain.errors import ConfigurationError
from agent_engines.domain.hints import Hints
from agent_engines.domain.tasks import Task
from agent_engines.learning.task_features import EMBEDDED, REQUIRED, hashed_text, task_vector
from agent_engines.runtime.task_text import TaskTexts


def test_without_numbers_there_is_no_vector() -> None:
    assert task_vector(None, None, payload_bytes=100, requirements={"region": "eu"}) is None


def test_declared_numbers_come_first_then_the_embedding_the_size_and_the_requirements() -> None:
    vector = task_vector([1.0, 2.0], [0.5] * 3, payload_bytes=1023, requirements={"region": "eu"})
    assert vector is not None
    assert len(vector) == 2 + EMBEDDED + 1 + REQUIRED
    assert vector[:2].tolist() == [1.0, 2.0]
    assert vector[2:5].tolist() == [0.5] * 3
    assert vector[2 + EMBEDDED] == 10.0
    assert sorted(np.abs(vector[-REQUIRED:]).tolist()) == [0.0, 0.0, 0.0, 1.0]


def test_a_long_embedding_keeps_its_distances_in_few_columns_on_every_router() -> None:
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((20, 768))
    short = np.array([task_vector(None, row.tolist(), payload_bytes=0, requirements={}) for row in rows])[:, :EMBEDDED]
    again = task_vector(None, rows[0].tolist(), payload_bytes=0, requirements={})
    assert again is not None
    assert (again[:EMBEDDED] == short[0]).all()
    before = np.linalg.norm(rows[0] - rows[1:], axis=1)
    after = np.linalg.norm(short[0] - short[1:], axis=1)
    assert np.abs(after / before - 1.0).mean() < 0.25


def test_texts_that_share_words_are_near_and_others_are_not() -> None:
    one, same, other = map(hashed_text, ("sort a list in python", "python: sort the list", "weather in paris today"))
    assert np.dot(one, same) > 0.5 > np.dot(one, other)
    assert np.linalg.norm(one) == pytest.approx(1.0)
    assert set(hashed_text("...")) == {0.0}


def a_task(payload: object, **changes: object) -> Task:
    raw = msgspec.Raw(json.dumps(payload).encode())
    return msgspec.structs.replace(Task(task_id="t", request_id="r", task_type="ask", payload=raw), **changes)


def test_words_are_read_where_the_router_is_told_to_and_a_given_embedding_goes_before_them() -> None:
    texts = TaskTexts({"ask": "prompt"})
    assert texts.context(a_task({"prompt": "hello world"}), "r").embedding == hashed_text("hello world")
    given = a_task({"prompt": "hello"}, hints=Hints(embedding=(1.0,)))
    assert texts.context(given, "r").embedding == (1.0,)
    assert TaskTexts().context(a_task({"prompt": "hello"}), "r").embedding is None


@pytest.mark.parametrize("payload", [None, 7, ["prompt"], {"prompt": 7}, {"prompt": ""}, {"other": "x"}])
def test_a_payload_without_the_text_is_no_error(payload: object) -> None:
    assert TaskTexts({"ask": "prompt"}).context(a_task(payload), "r").embedding is None


def test_routing_is_read_from_the_environment() -> None:
    config = load_config(
        {
            "ROUTING_STRATEGY": "random",
            "ROUTING_STRATEGIES": "summarize=c3, ocr=cost_aware",
            "ROUTING_TEXT": "ask=prompt",
            "ROUTING_PRICE": "2.5",
        }
    )
    options = routing_options(config)
    assert (options.choice.default, options.choice.fallback, options.price) == ("random", "least_loaded", 2.5)
    assert options.choice.by_task_type == {"summarize": "c3", "ocr": "cost_aware"}
    assert options.texts == {"ask": "prompt"}
    assert routing_options(load_config({})).choice.default == "adaptive"


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"ROUTING_STRATEGY": "magic"}, "ROUTING_STRATEGY='magic'"),
        ({"ROUTING_STRATEGIES": "ocr=magic"}, "ROUTING_STRATEGIES='magic'"),
        ({"ROUTING_FALLBACK": "magic"}, "ROUTING_FALLBACK='magic'"),
    ],
)
def test_a_strategy_that_is_not_there_stops_the_start_with_those_that_are(
    environment: dict[str, str], named: str
) -> None:
    with pytest.raises(ConfigurationError, match="adaptive") as refused:
        routing_options(load_config(environment))
    assert named in str(refused.value)


@pytest.mark.parametrize(
    "environment", [{"ROUTING_STRATEGIES": "ocr"}, {"ROUTING_STRATEGIES": "a=b,a=c"}, {"ROUTING_PRICE": "-1"}]
)
def test_values_that_make_no_sense_name_their_variable(environment: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(environment))):
        load_config(environment)
