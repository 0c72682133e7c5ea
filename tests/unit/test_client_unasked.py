"""Outcomes nobody has asked for: bounded, and each the latest word."""

from __future__ import annotations

import pytest

from agent_engines.client import unasked as unasked_module
from agent_engines.client.unasked import Unasked


def test_results_are_bounded_in_bytes_but_one_always_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unasked_module, "REMEMBERED_BYTES", 100)
    unasked: Unasked[str] = Unasked()
    for name, size in (("a", 60), ("b", 40), ("c", 1), ("d", 1000)):
        unasked.put(name, name.upper(), size)
    assert [unasked.take(name) for name in "abcd"] == [None, None, None, "D"]
    assert unasked.beside(["a"], 10) == ["b", "c"]


def test_bytes_are_counted_once_for_a_task_that_came_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unasked_module, "AHEAD_BYTES", 100)
    unasked: Unasked[str] = Unasked()
    for word in ("first", "second"):
        unasked.drop(["a", "b", "c"])
        assert unasked.beside(["a"], 10) == ["b", "c"]
        assert unasked.bring("b", f"b {word}", 50)
        assert unasked.bring("c", f"c {word}", 50)
    assert [unasked.take(name) for name in "bc"] == ["b second", "c second"]


def test_what_was_told_meanwhile_is_not_brought_again() -> None:
    unasked: Unasked[str] = Unasked()
    unasked.drop(["a", "b"])
    assert unasked.beside(["a"], 10) == ["b"]
    unasked.put("b", "told", 1)
    assert not unasked.bring("b", "brought", 1)
    assert [unasked.take("b"), unasked.take("b")] == ["told", None]


def test_what_an_answer_did_not_bring_is_asked_for_another_time() -> None:
    unasked: Unasked[str] = Unasked()
    unasked.drop(["a", "b", "c"])
    assert unasked.beside(["a"], 10) == ["b", "c"]
    unasked.missed(["a", "b", "c"])
    assert unasked.beside(["b"], 10) == ["c"]


def test_asking_ahead_stops_while_nothing_of_it_is_taken_and_begins_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unasked_module, "AHEAD", 8)
    unasked: Unasked[int] = Unasked()
    unasked.drop(f"t{n}" for n in range(400))
    ahead: list[int] = []
    for n in range(0, 60, 20):
        ids = unasked.beside([f"t{n}"], 499)
        for name in ids:
            unasked.bring(name, n, 1)
        ahead.append(len(ids))
    assert ahead == [8, 2, 2]
    asked = 0
    for n in range(100, 200):
        if unasked.take(f"t{n}") is None:
            asked += 1
            for name in unasked.beside([f"t{n}"], 499):
                unasked.bring(name, n, 1)
    assert asked <= 16
