"""The compiled arithmetic, numpy's and plain loops agree: to the last bit in all that lessons leave behind."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_engines.adapters.postgres import arrays
from agent_engines.domain import looks
from agent_engines.learning import arithmetic
from agent_engines.learning.adaptive import Adaptive, Options
from agent_engines.learning.arrays import together
from kernel_house import SCRIPT, kernel_file, loaded

BOTH = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="session")
def compiled(built: Path) -> ModuleType:
    return loaded(built, "agent_engines.learning")


@pytest.fixture(params=["numpy", "compiled"])
def kernel(request: pytest.FixtureRequest) -> ModuleType:
    return arithmetic if request.param == "numpy" else request.getfixturevalue("compiled")


def believed(random: np.random.Generator, rows: int, size: int) -> Any:
    """Beliefs as lessons make them: covariances that are positive."""
    made = np.zeros((rows, size * (size + 1) // 2 + size))
    made[:, arithmetic.triangle(size).diagonal] = 1.0
    for row in range(rows):
        for _ in range(int(random.integers(0, 2 * size))):
            arithmetic.ridge_learn(made, row, random.normal(size=size), float(random.random()))
    return made


def learned(belief: list[float], x: list[float], quality: float) -> list[float]:
    """Recursive least squares in plain loops; every sum in the order of the index."""
    size = len(x)
    places = [(i, j) for i in range(size) for j in range(i, size)]
    covariance = {place: belief[at] for at, place in enumerate(places)}
    weights = belief[len(places) :]
    gain: list[float] = []
    for i in range(size):
        terms = [covariance[min(i, j), max(i, j)] * x[j] for j in range(size)]
        gain.append(in_order(terms))
    scale = 1.0 / (1.0 + in_order([a * b for a, b in zip(x, gain, strict=True)]))
    error = quality - in_order([a * b for a, b in zip(weights, x, strict=True)])
    packed = [covariance[i, j] - gain[i] * (gain[j] * scale) for i, j in places]
    return [*packed, *(weight + g * (scale * error) for weight, g in zip(weights, gain, strict=True))]


def in_order(terms: list[float]) -> float:
    total = terms[0]
    for term in terms[1:]:
        total += term
    return total


@BOTH
@given(seed=st.integers(0, 10**6), size=st.integers(1, 70))
def test_a_lesson_leaves_the_bits_of_plain_loops(kernel: ModuleType, seed: int, size: int) -> None:
    random = np.random.default_rng(seed)
    beliefs = believed(random, 2, min(size, 12)) if size <= 12 else believed(random, 1, size).repeat(2, axis=0)
    size = min(size, 12) if size <= 12 else size
    before = beliefs.tolist()
    point, quality = random.normal(size=size), float(random.random())
    kernel.ridge_learn(beliefs, 1, point, quality)
    assert beliefs[1].tolist() == learned(before[1], point.tolist(), quality)
    assert beliefs[0].tolist() == before[0]


@BOTH
@given(seed=st.integers(0, 10**6), size=st.integers(1, 70))
def test_features_are_scaled_to_the_bits_of_plain_loops(kernel: ModuleType, seed: int, size: int) -> None:
    random = np.random.default_rng(seed)
    raw, scale, limit = random.normal(size=size) * 9.0, random.normal(size=(2, size)), float(random.random())
    found = np.empty(size + 1)
    kernel.encode(raw, scale, limit, found)
    wanted = [
        min(max((value - centre) * factor, -limit), limit)
        for value, centre, factor in zip(raw.tolist(), *scale.tolist(), strict=True)
    ]
    assert found.tolist() == [*wanted, 1.0]
    again = np.empty(size + 1)
    kernel.encode(tuple(raw.tolist()), scale, limit, again)
    assert again.tolist() == found.tolist()


@BOTH
@given(seed=st.integers(0, 10**6), kinds=st.integers(1, 9))
def test_a_cell_learns_to_the_bits_of_plain_arithmetic(kernel: ModuleType, seed: int, kinds: int) -> None:
    random = np.random.default_rng(seed)
    cells, row = random.random((3, kinds)) * 9.0, int(random.integers(kinds))
    before = cells.tolist()
    quality, keep, prior = random.random(3).tolist()
    grown = kernel.table_learn(cells, row, quality, keep, prior)
    count, total = before[0][row], before[1][row]
    more, whole = count * keep + 1.0, total * keep + quality
    before[0][row], before[1][row], before[2][row] = more, whole, 1.0 / (more + prior)
    assert cells.tolist() == before
    assert grown == (more - count, whole - total)


@BOTH
@given(seed=st.integers(0, 10**6), size=st.integers(1, 40), together_=st.booleans())
def test_a_prediction_is_that_of_the_whole_covariance(
    kernel: ModuleType, seed: int, size: int, together_: bool
) -> None:
    random = np.random.default_rng(seed)
    beliefs = believed(random, 7, size)
    rows = together(np.arange(2, 6)) if together_ else random.integers(0, 7, 9)
    point = random.normal(size=size)
    count = 4 if together_ else 9
    means, widths = np.empty(count), np.empty(count)
    kernel.ridge_predict(beliefs, rows, point, 0.2, means, widths)
    upper = arithmetic.triangle(size)
    whole = np.zeros((7, size, size))
    whole[:, upper.rows, upper.columns] = whole[:, upper.columns, upper.rows] = beliefs[:, : len(upper.rows)]
    assert means == pytest.approx(beliefs[rows, len(upper.rows) :] @ point, abs=1e-9)
    assert widths == pytest.approx(0.2 * np.sqrt((whole[rows] @ point) @ point), abs=1e-9)


@BOTH
@given(seed=st.integers(0, 10**6), kinds=st.integers(1, 40), known=st.booleans(), together_=st.booleans())
def test_the_tables_are_blended_as_the_formula_says(
    kernel: ModuleType, seed: int, kinds: int, known: bool, together_: bool
) -> None:
    random = np.random.default_rng(seed)
    every, cells = random.random((3, kinds + 3)), random.random((3, kinds + 3))
    rows = slice(2, kinds + 2) if together_ else random.permutation(kinds + 3)[:kinds]
    means, widths = np.empty(kinds), np.empty(kinds)
    kernel.table_predict(every, cells if known else None, rows, (0.7, 0.1), means, widths)
    own = (every[1, rows] + arithmetic.KIND_PRIOR * 0.7) * every[2, rows]
    spread = every[2, rows] + 1.0 / arithmetic.CELL_PRIOR
    if known:
        counts, sums, inverse = cells[:, rows]
        harder = (sums.sum() - (own * counts).sum()) / (counts.sum() + arithmetic.TYPE_PRIOR)
        own, spread = ((own + harder) * arithmetic.CELL_PRIOR + sums) * inverse, every[2, rows] + inverse
    assert means == pytest.approx(own)
    assert widths == pytest.approx(np.sqrt(spread * 0.1))


@BOTH
@given(
    seed=st.integers(0, 10**6),
    several=st.booleans(),
    timed=st.booleans(),
    silent=st.booleans(),
    suspected=st.booleans(),
    together_=st.booleans(),
)
def test_a_decision_is_that_of_plain_loops(
    kernel: ModuleType, seed: int, several: bool, timed: bool, silent: bool, suspected: bool, together_: bool
) -> None:
    random = np.random.default_rng(seed)
    kinds = int(random.integers(1, 41))
    sizes = random.integers(1, 5, kinds) if several else np.ones(kinds, dtype=np.intp)
    starts, count = np.cumsum(sizes) - sizes, int(sizes.sum())
    # Few values, so that several replicas are equally quick and several kinds equally good: the first of them is taken.
    numbers = random.integers(0, 3, (6, count + 4)).astype(float)
    means, widths = random.integers(0, 4, kinds) / 4.0, random.integers(0, 2, kinds) * 0.5
    costs, draws = random.integers(0, 3, kinds) / 3.0, random.normal(1.0, 0.25, 32 * kinds)
    rows = slice(1, count + 1) if together_ else random.permutation(count + 4)[:count]
    works, bars, floor = (2.0, 0.3), (0.5, 0.25, 2.0, 1.5), float(random.random()) * 0.2 + 1e-3
    filled = np.minimum(np.arange(int(sizes.max()))[None, :], sizes[:, None] - 1) + starts[:, None]

    places = starts.tolist()
    finish = [0.0] * kinds
    worth = [mean - cost * 0.5 for mean, cost in zip(means.tolist(), costs.tolist(), strict=True)]
    if timed:
        times = plain_times(numbers, np.arange(count + 4)[rows].tolist(), works, silent, suspected)
        parts = [times[a : a + size] for a, size in zip(starts.tolist(), sizes.tolist(), strict=True)]
        finish = [min(part) for part in parts]
        places = [a + part.index(min(part)) for a, part in zip(starts.tolist(), parts, strict=True)]
        worth = [
            value - 0.25 * seconds - (2.0 if seconds > 1.5 else 0.0)
            for value, seconds in zip(worth, finish, strict=True)
        ]
    won: list[int] = []
    for row in draws.reshape(32, kinds).tolist():
        drawn = [v + w * d for v, w, d in zip(worth, widths.tolist(), row, strict=True)]
        won.append(drawn.index(max(drawn)))
    shares = [won.count(kind) * ((1.0 - floor) / 32) + floor / kinds for kind in range(kinds)] if kinds > 1 else [1.0]

    for grid in (filled, None):
        for chance in (0.0, floor * 0.99, floor, 0.5, 1.0 - 2.0**-53):
            best, room = starts.copy(), np.zeros((3, kinds))
            terms = (*works, silent, suspected, *bars, floor, chance)
            fleet = (costs, rows, starts, sizes, grid)
            taken, first, quality, seconds, probability = kernel.weigh(
                (means, widths), fleet, numbers if timed else None, terms, draws, best, room
            )
            assert room.tolist() == [finish, worth, shares]
            assert best.tolist() == places
            assert first == worth.index(max(worth))
            assert (quality, seconds, probability) == (means[taken], finish[taken], shares[taken])
            if kinds == 1:
                assert taken == 0
            elif chance < floor:
                assert taken == int(chance / floor * kinds)
            else:
                assert taken == won[min(int((chance - floor) / (1.0 - floor) * 32), 31)]


def plain_times(
    numbers: Any, rows: list[int], works: tuple[float, float], silent: bool, suspected: bool
) -> list[float]:
    """When each replica would be done."""
    times: list[float] = []
    for row in rows:
        time = numbers[arithmetic.PACE, row] * works[0] + numbers[arithmetic.WAIT, row] * works[1]
        times.append(float(time + numbers[arithmetic.SILENCE, row] if silent else time))
    if not suspected:
        return times
    lost = min(times) + arithmetic.LOST_WORKS * works[1]
    return [time + float(numbers[arithmetic.ODDS, row]) * lost for time, row in zip(times, rows, strict=True)]


PLAY = """
import importlib.machinery, importlib.util, json, sys
name, path = "agent_engines.learning._kernel", sys.argv[1]
if path == "numpy":
    sys.modules[name] = None
else:
    loader = importlib.machinery.ExtensionFileLoader(name, path)
    sys.modules[name] = module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    loader.exec_module(module)
from random import Random
from agent_engines.learning import kernel
from agent_engines.learning.adaptive import Adaptive, Options
rng, policy, chosen = Random(5), Adaptive(Options(forgetting=0.999), seed=5, routers=2), []
agents = [{"agent": f"{k}/{n}", "cls": k, "cost": 0.1 * n, "slots": 2} for k in "abcdefg" for n in range(3)]
for number in range(700):
    size = rng.choice([0, 4, 17])
    context = {
        "task_id": str(number), "task_type": rng.choice("xy"), "now": 0.1 * number, "work_hint": rng.choice([None, 1.0]),
        "features": [rng.gauss(0, 3) for _ in range(size)], "deadline_s": rng.choice([None, 0.1 * number + 1.0]),
    }
    choice = policy.choose(context, agents)
    chosen.append((choice.agent, choice.probability, choice.confidence, choice.explored))
    error = rng.random() < 0.1
    quality = None if error else float(rng.random() < 0.5 + 0.05 * "abcdefg".index(choice.kind))
    outcome = {"quality": quality, "error": error, "service": rng.random(), "latency": 1.0, "now": 0.1 * number}
    # What is taught was decided elsewhere, by another arithmetic: its numbers are data.
    lesson = policy.lesson(context, agents[choice.position], outcome)
    policy.values.learn(type(lesson)(**{f: getattr(lesson, f) for f in lesson.__struct_fields__} | {"raw": 0.5, "confidence": 0.5}))
    policy.report(rng.choice(agents)["agent"], rng.randrange(4), 0.1 * number)
print(json.dumps([kernel.COMPILED, policy.values.digest(), chosen]))
"""


def test_routers_with_and_without_the_kernel_learn_the_same_and_choose_the_same(built: Path) -> None:
    compiled, numpy = (
        json.loads(subprocess.run([sys.executable, "-c", PLAY, path], capture_output=True, check=True).stdout)
        for path in (str(kernel_file(built, "agent_engines.learning")), "numpy")
    )
    assert (compiled[0], numpy[0]) == (True, False)
    assert compiled[1] == numpy[1], "the digest of what was learned"
    assert [one[0] for one in compiled[2]] == [one[0] for one in numpy[2]]
    assert [one[3] for one in compiled[2]] == [one[3] for one in numpy[2]]
    for place in (1, 2):
        assert [one[place] for one in compiled[2]] == pytest.approx([one[place] for one in numpy[2]], abs=1e-12)
    assert len({one[0] for one in compiled[2]}) > 10


@BOTH
@given(st.lists(st.floats(), min_size=1, max_size=40))
def test_a_vector_is_finite_when_all_its_numbers_are(kernel: ModuleType, numbers: list[float]) -> None:
    assert kernel.all_finite(np.array(numbers)) is all(map(math.isfinite, numbers))


@pytest.mark.parametrize("chooser", ["learning.kernel", "domain.kernel", "adapters.postgres.arrays"])
def test_a_kernel_of_another_version_is_not_used(chooser: str) -> None:
    package, _, name = f"agent_engines.{chooser}".rpartition(".")
    text = (
        f"import sys, types; made = types.ModuleType('{package}._kernel'); made.VERSION = -1;"
        f"sys.modules[made.__name__] = made; from {package} import {name}; print({name}.COMPILED)"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("twin", [arithmetic, looks, arrays])
def test_both_have_the_same_version(twin: ModuleType, built: Path) -> None:
    assert loaded(built, twin.__name__.rpartition(".")[0]).VERSION == twin.VERSION


def wrong_questions() -> list[tuple[Any, ...]]:
    """A right one, and all that can be made of it by a part that belongs to another fleet."""
    three, four, places = np.zeros(3), np.zeros(4), np.array([0, 2, 3])
    frozen = np.zeros((3, 3))
    frozen.setflags(write=False)
    right: list[Any] = [
        (three, three),
        (three, slice(0, 4), places, np.array([2, 1, 1]), None),
        np.zeros((6, 4)),
        (0.0,) * 10,
        np.zeros(96),
        np.zeros(3, dtype=np.intp),
        np.zeros((3, 3)),
    ]
    costs, rows, starts, sizes, _ = right[1]
    wrong: list[tuple[int, Any]] = [
        (0, (three, four)),
        (0, (three,)),
        (1, (four, rows, starts, sizes, None)),
        (1, (costs, slice(0, 5), starts, np.array([2, 1, 2]), None)),
        (1, (costs, slice(0, 2), starts, sizes, None)),
        (1, (costs, rows, np.array([0, 2, 4]), sizes, None)),
        (1, (costs, rows, np.array([-1, 2, 3]), sizes, None)),
        (1, (costs, rows, starts, np.array([2, 0, 1]), None)),
        (1, (costs, rows, starts, np.array([2, 1, 2**62]), None)),
        (1, (costs, rows, starts, four.astype(np.intp), None)),
        (1, (costs, rows, starts, sizes)),
        (2, np.zeros((5, 4))),
        (3, (0.0,) * 9),
        (4, np.zeros(2)),
        (5, np.zeros(2, dtype=np.intp)),
        (6, np.zeros((2, 3))),
        (6, frozen),
    ]
    return [(*right[:at], part, *right[at + 1 :]) for at, part in wrong]


def test_the_compiled_functions_refuse_arrays_that_do_not_belong_together(compiled: ModuleType) -> None:
    three, four = np.zeros(3), np.zeros(4)
    beliefs = np.zeros((2, 6 + 3))
    wrong: list[tuple[str, tuple[Any, ...]]] = [
        ("encode", (three, np.zeros((2, 4)), 1.0, four)),
        ("encode", (three, np.zeros((2, 3)), 1.0, three)),
        ("ridge_learn", (beliefs, 2, three, 1.0)),
        ("ridge_learn", (beliefs, -1, three, 1.0)),
        ("ridge_learn", (beliefs, 0, four, 1.0)),
        ("ridge_learn", (beliefs, 0, three, "much")),
        ("ridge_learn", (beliefs.astype(np.float32), 0, three, 1.0)),
        ("ridge_predict", (beliefs, np.array([0, 2]), three, 1.0, np.zeros(2), np.zeros(2))),
        ("ridge_predict", (beliefs, slice(0, 2), three, 1.0, np.zeros(2), three)),
        ("table_predict", (np.zeros((2, 3)), None, slice(0, 3), (0.0, 0.0), three, three)),
        ("table_predict", (np.zeros((3, 3)), np.zeros((3, 2)), slice(0, 3), (0.0, 0.0), three, three)),
        ("encode", ((1.0, "x"), np.zeros((2, 2)), 1.0, three)),
        ("table_learn", (np.zeros((3, 3)), 3, 1.0, 1.0, 1.0)),
        ("table_learn", (np.zeros((2, 3)), 0, 1.0, 1.0, 1.0)),
        ("weigh", (three, three)),
        *(("weigh", one) for one in wrong_questions()),
    ]
    for name, given_ in wrong:
        with pytest.raises((ValueError, TypeError, IndexError, BufferError)):
            getattr(compiled, name)(*given_)


def test_without_a_compiler_nothing_is_left_behind_and_the_reason_is_told(tmp_path: Path) -> None:
    for compiler in ("/nowhere/cc", "false"):
        environment = {**os.environ, "CC": compiler}
        script = [sys.executable, str(SCRIPT), str(tmp_path)]
        done = subprocess.run(script, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 1
        assert done.stderr.count("Python will do its work") == 3
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_tuple_of_candidates_is_chosen_from_as_a_list_is() -> None:
    lists, tuples = Adaptive(Options(), seed=3), Adaptive(Options(), seed=3)
    agents = [{"agent": name, "cost": 0.01 * at} for at, name in enumerate("abcde")]
    fewer = tuple(agents[1:])
    whole = tuple(agents)
    for number in range(200):
        context = {"task_id": str(number), "task_type": "t", "now": float(number), "work_hint": 1.0}
        given_ = (agents[1:], fewer) if number % 7 == 0 else (agents, whole)
        first, second = lists.choose(context, given_[0]), tuples.choose(context, given_[1])
        assert (first.agent, first.probability) == (second.agent, second.probability)
        for policy, choice, some in ((lists, first, given_[0]), (tuples, second, given_[1])):
            policy.learn(context, some[choice.position], {"quality": float(number % 3 > 0), "service": 1.0})


@pytest.mark.parametrize("large", [1e200, math.ldexp(1.0, 1023)])
def test_large_features_are_not_taken_for_infinite_ones(large: float) -> None:
    policy = Adaptive(Options(), seed=0)
    agents = [{"agent": "a"}, {"agent": "b"}]
    context = {"task_id": "1", "features": [large, large, 1.0]}
    choice = policy.choose(context, agents)
    lesson = policy.lesson(context, agents[choice.position], {"quality": 1.0})
    assert lesson is not None
    assert lesson.features == (large, large, 1.0)
    for wrong in (math.inf, -math.inf, math.nan):
        with pytest.raises(ValueError, match=r"features\[2\] is not a finite number"):
            policy.choose({"task_id": "2", "features": [large, -large, wrong]}, agents)
