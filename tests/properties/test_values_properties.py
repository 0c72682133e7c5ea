"""What outcomes taught is a function of (snapshot, sequence of lessons), to the last bit, wherever it was cut."""

from __future__ import annotations

import math
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_engines.learning.adaptive import Adaptive, Options
from agent_engines.learning.lesson import Lesson
from agent_engines.learning.snapshot import FORMAT
from agent_engines.learning.values import MOST_FAMILIES, Values


def lessons(seed: int, count: int) -> list[Lesson]:
    """Lessons of all shapes: with and without features, of several lengths, of kinds that come later, with errors and parents."""
    rng = Random(seed)
    made: list[Lesson] = []
    for number in range(count):
        size = rng.choice([0, 0, 3, 7])
        kind = rng.randrange(2 + number * 6 // count)
        made.append(
            Lesson(
                id=str(number),
                kind=f"kind-{kind}",
                task_type=rng.choice(["sum", "sort", ""]),
                features=tuple(rng.gauss(5.0, 100.0) for _ in range(size)) or None,
                quality=rng.choice([0.0, 1.0, rng.random()]),
                raw=rng.choice([None, rng.random()]),
                confidence=rng.choice([None, rng.random()]),
                cost=rng.choice([None, rng.random()]),
                seconds=rng.choice([None, rng.expovariate(1.0)]),
                parent=rng.choice([None, "kind-0"]),
            )
        )
    return made


def taught(values: Values, some: list[Lesson]) -> Values:
    for lesson in some:
        values.learn(lesson)
    return values


@pytest.mark.parametrize("seed", range(10))
def test_a_snapshot_and_the_rest_of_the_lessons_give_the_same_bits_as_a_straight_run(seed: int) -> None:
    rng = Random(seed)
    sequence = lessons(seed, 600)
    straight = taught(Values(), sequence).digest()
    for _ in range(10):
        cut = rng.randrange(len(sequence) + 1)
        restored = Values()
        restored.restore(taught(Values(), sequence[:cut]).snapshot())
        assert taught(restored, sequence[cut:]).digest() == straight
    assert taught(Values(), sequence[1:]).digest() != straight


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000))
def test_decisions_leave_what_is_known_of_kinds_alone(seed: int) -> None:
    rng = Random(seed)
    policy = Adaptive(Options(), seed=seed, values=taught(Values(), lessons(seed, 80)))
    before = policy.values.digest()
    candidates = [{"agent": f"r{n}", "cls": f"kind-{n % 9}", "cost": 0.1 * n} for n in range(12)]
    for number in range(20):
        features = rng.choice([None, [rng.gauss(0.0, 9.0) for _ in range(rng.choice([3, 5]))]])
        policy.choose({"task_id": str(number), "task_type": "sum", "features": features, "now": 1.0}, candidates)
        policy.report("r1", 3.0, float(number))
    assert policy.values.digest() == before


def test_two_routers_that_take_the_same_lessons_in_the_same_order_agree_whatever_each_decided() -> None:
    routers = [Adaptive(Options(), seed=seed, routers=2) for seed in (1, 2)]
    candidates = [{"agent": name, "cost": 0.0} for name in "abc"]
    rng = Random(3)
    for number in range(400):
        router = routers[number % 2]
        context: dict[str, Any] = {"task_id": str(number), "task_type": "t", "features": [rng.random(), rng.random()]}
        choice = router.choose(context, candidates)
        lesson = router.lesson(context, candidates[choice.position], {"quality": float(rng.random() < 0.7)})
        assert lesson is not None
        assert lesson.raw == choice.raw
        for each in routers:
            each.values.learn(lesson)
    assert routers[0].values.digest() == routers[1].values.digest()
    assert routers[0].values.lessons == 400


def test_families_are_bounded_and_the_least_recently_taught_goes() -> None:
    values = Values()
    for number in range(MOST_FAMILIES + 10):
        values.learn(Lesson(kind="a", task_type=str(number), features=(1.0, 2.0), quality=1.0))
        values.learn(Lesson(kind="a", task_type="0", features=(1.0, 2.0), quality=1.0))
    whole = values.snapshot()
    assert len(whole) < 1_000_000
    means, _ = values.predict(np.array([1]), "0", np.array([1.0, 2.0]))
    assert means[0] > 0.8


def test_a_new_version_of_a_kind_starts_from_its_parent_and_is_less_sure() -> None:
    rng = Random(1)
    values = Values()
    for _ in range(200):
        x = rng.gauss(0.0, 1.0)
        values.learn(Lesson(kind="old", task_type="t", features=(x, 1.0), quality=float(x > 0)))
    point = np.array([1.5, 1.0])
    before = values.predict(np.array([values.number("old")]), "t", point)
    assert values.number("new") == 0
    assert values.number("new", "old") == values.number("old")
    values.learn(Lesson(kind="new", task_type="t", features=(0.1, 1.0), quality=1.0, parent="old"))
    after = values.predict(np.array([values.number("new")]), "t", point)
    assert abs(after[0][0] - before[0][0]) < 0.1
    assert after[1][0] > before[1][0]


def test_without_numbers_a_new_version_starts_from_its_parent_too_and_is_less_sure() -> None:
    rng = Random(1)
    values = Values()
    for number in range(400):
        kind, skill = ("old", 0.3) if number % 2 else ("other", 0.95)
        values.learn(Lesson(kind=kind, task_type="t", quality=float(rng.random() < skill)))
    means, widths = values.predict(np.array([values.number("old")]), "t", None)
    values.learn(Lesson(kind="new", task_type="t", quality=1.0, parent="old"))
    values.learn(Lesson(kind="stranger", task_type="t", quality=1.0))
    (child, stranger), (doubt, more) = values.predict(
        np.array([values.number("new"), values.number("stranger")]), "t", None
    )
    assert child == pytest.approx(means[0], abs=0.05)
    assert stranger > child + 0.2
    assert widths[0] < doubt < more
    again = Values()
    again.restore(values.snapshot())
    assert again.digest() == values.digest()


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"quality": math.nan}, "quality is nan"),
        ({"quality": -0.1}, "quality is -0.1"),
        ({"cost": -1.0}, "cost is -1.0"),
        ({"cost": math.inf}, "cost is inf"),
        ({"seconds": math.nan}, "seconds is nan"),
        ({"raw": 1.5}, "raw is 1.5"),
        ({"features": (0.0, math.inf)}, r"features\[1\] is not a finite number"),
        ({"kind": ""}, "kind is empty"),
    ],
)
def test_a_lesson_that_cannot_be_used_is_refused_by_name_and_changes_nothing(
    changed: dict[str, Any], text: str
) -> None:
    values = taught(Values(), lessons(1, 20))
    before = values.digest()
    with pytest.raises(ValueError, match=text):
        values.learn(Lesson(**{"kind": "a", "quality": 1.0, **changed}))
    assert values.digest() == before


def test_a_snapshot_that_is_damaged_is_refused() -> None:
    values = Values()
    with pytest.raises(ValueError, match="cannot be read"):
        values.restore(values.snapshot()[:-3])
    with pytest.raises(ValueError, match="format 9"):
        values.restore(values.snapshot().replace(b"format" + bytes([FORMAT]), b"format\x09"))


def test_a_snapshot_of_format_1_is_read_and_gives_the_same_predictions() -> None:
    """Written by the version before the triangle: 150 lessons, seven kinds, whole squares of covariance."""
    values = Values()
    values.restore((Path(__file__).parents[1] / "golden" / "values-format-1.msgpack").read_bytes())
    assert (values.lessons, values.kinds) == (150, 7)
    kinds, some = np.arange(1, 8), [0, 2, 6]
    means, widths = values.predict(kinds, "sum", None)
    assert means[some] == pytest.approx([0.5931029738481132, 0.5635848799659666, 0.5907127890734115])
    assert widths[some] == pytest.approx([0.11434082203270972, 0.13182295138767786, 0.19019161068785367])
    means, widths = values.predict(kinds, "sum", np.array([5.0, 60.0, -80.0]))
    assert means[some] == pytest.approx([0.19213103943899934, 0.9639220866593496, 0.19213103943899934])
    assert widths[some] == pytest.approx([0.22720362830467772, 0.4132276140937875, 0.45440725660935544])
    means, widths = values.predict(kinds, "sort", 20.0 * np.arange(7) - 50.0)
    assert means[some] == pytest.approx([-0.7656785268131405, -0.7691874521894418, -0.2041314661085776])
    assert widths[some] == pytest.approx([1.2408938636684326, 0.48297130748995454, 2.148718497610264])
    again = Values()
    again.restore(values.snapshot())
    more = lessons(3, 60)
    assert taught(values, more).digest() == taught(again, more).digest()


def test_a_snapshot_of_format_2_is_read_without_its_sums_against_drift() -> None:
    """Written by the version before the bets: 150 lessons, seven kinds."""
    values = Values()
    values.restore((Path(__file__).parents[1] / "golden" / "values-format-2.msgpack").read_bytes())
    assert (values.lessons, values.kinds) == (150, 7)
    means, widths = values.predict(np.arange(1, 8), "sum", None)
    assert means[:3] == pytest.approx([0.4879570315607334, 0.5123484823495396, 0.36070633933005186])
    assert widths[:3] == pytest.approx([0.2492049699675171, 0.14606726845364112, 0.1508124852971179])
    means, widths = values.predict(np.arange(1, 8), "sum", np.array([5.0, 60.0, -80.0]))
    assert means[:3] == pytest.approx([0.21547322019032772, -0.4649102682256903, 0.31366782847234603])
    assert widths[:3] == pytest.approx([0.21862149344436516, 0.329873440582678, 0.2065484488349728])
    drifts = msgspec.msgpack.decode(values.snapshot())["drifts"]
    assert {(one["below"], one["above"]) for one in drifts} == {(1.0, 1.0)}
    assert any(one["lessons"] > 0 for one in drifts)


@pytest.mark.parametrize("features", [17, 64])
def test_what_is_known_of_a_kind_takes_under_20_kib_a_family(features: int) -> None:
    """By the bar of memory, at the most features a task is expected to have."""
    rng = Random(1)
    values = Values()
    for number in range(400):
        vector = tuple(rng.gauss(0.0, 1.0) for _ in range(features))
        values.learn(Lesson(kind=f"kind-{number % 50}", task_type="t", features=vector, quality=1.0))
    family = values._families["t", features]
    assert len(values.snapshot()) / 50 < 20 * 1024
    assert family.model._beliefs.nbytes / 50 < 20 * 1024


@pytest.mark.parametrize("seed", range(3))
def test_a_prediction_is_never_older_than_the_last_lesson(seed: int) -> None:
    asked, asked_once, kinds = Values(), Values(), np.arange(4)
    for at, lesson in enumerate(lessons(seed, 120)):
        for values in (asked, asked_once):
            values.learn(lesson)
        if asked.kinds < 3:
            continue
        found = [asked.predict(kinds, "sum", None) for _ in range(2)]
        if at % 40 == 39:
            found.append(asked_once.predict(kinds, "sum", None))
            restored = Values()
            restored.predict(np.arange(1), "sum", None)
            restored.restore(asked.snapshot())
            found.append(restored.predict(kinds, "sum", None))
        for means, widths in found[1:]:
            assert (means.tolist(), widths.tolist()) == (found[0][0].tolist(), found[0][1].tolist())
