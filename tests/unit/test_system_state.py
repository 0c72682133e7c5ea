"""What a choice was made from, as text in the ledger: as it always looked, and read back whole."""

from __future__ import annotations

import msgspec

from agent_engines.adapters.postgres.system_state import MOST_KEPT, States, SystemState
from agent_engines.domain.decisions import Candidate, Decision, Rejection


def candidate(agent: str, *, quality: float | None = None, score: float | None = None) -> Candidate:
    return Candidate(
        agent=agent,
        replicas=1,
        slots=4,
        in_flight=2,
        service_ms=10.0,
        completion_ms=12.5,
        success=0.75,
        cost=0.0,
        age_seconds=0.5,
        quality=quality,
        score=score,
    )


def decision(
    candidates: tuple[Candidate, ...], rejected: tuple[Rejection, ...] = (), eligible: tuple[str, ...] = ()
) -> Decision:
    return Decision(
        "r", "r", "echo", "a", 0.9, 1.0, "adaptive", "adaptive-3", "", candidates, rejected=rejected, eligible=eligible
    )


def read(text: str) -> SystemState:
    return msgspec.json.decode(text, type=SystemState)


def test_every_number_has_one_array_under_its_name_and_what_says_nothing_is_left_out() -> None:
    text = States().text(decision((candidate("a", score=0.5), candidate("b"))))
    assert msgspec.json.decode(text) == {
        "candidates": {
            "agent": ["a", "b"],
            "replicas": [1, 1],
            "slots": [4, 4],
            "in_flight": [2, 2],
            "service_ms": [10.0, 10.0],
            "completion_ms": [12.5, 12.5],
            "success": [0.75, 0.75],
            "cost": [0.0, 0.0],
            "age_seconds": [0.5, 0.5],
            "quality": [None, None],
            "doubt": [0.0, 0.0],
            "kind": ["", ""],
            "score": [0.5, None],
            "probability": [None, None],
        }
    }


def test_what_is_written_is_read_back() -> None:
    made = decision(
        (candidate("a", score=0.5), candidate("b", quality=0.25)), (Rejection("c", "offers no 'gpu'"),), ("a", "b", "d")
    )
    found = read(States().text(made))
    assert found.restore() == made.candidates
    assert (found.rejected, found.eligible) == (made.rejected, made.eligible)


def test_a_decision_without_candidates_is_written_too() -> None:
    assert read(States().text(decision(()))).restore() == ()


def written_as_they_are(states: States, number: int) -> bool:
    """Of tuples that are gone when this returns, so that the next ones lie where they lay."""
    fallen = (Rejection(f"c{number}", "lost"),)
    names = (f"a{number}", f"b{number}", f"d{number}")
    texts = [states.text(decision((candidate("a"),), fallen, names)) for _ in range(2)]
    return all((found.rejected, found.eligible) == (fallen, names) for found in map(read, texts))


def test_names_that_come_again_are_written_as_they_are_and_others_never_in_their_place() -> None:
    states = States()
    assert all(written_as_they_are(states, number) for number in range(3 * MOST_KEPT))
