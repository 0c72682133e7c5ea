"""Nobody can report on what was not dispatched to it."""

from __future__ import annotations

import hmac
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_engines.domain.capability import KEY_ID_LENGTH, MAC_BYTES, Capabilities, Flaw
from agent_engines.domain.messages import Report, ReportKind
from agent_engines.domain.tasks import TaskStatus

OLD, NEW, OTHER = b"o" * 32, b"n" * 40, b"x" * 100
TEXTS = st.text(min_size=1, max_size=40)
KEYS = st.binary(min_size=32, max_size=200)
DISPATCHES = st.tuples(TEXTS, st.integers(1, 1_000_000), TEXTS)


def reported(task_id: str, generation: int, agent: str | None, capability: str) -> Report:
    return Report(
        kind=ReportKind.FINAL,
        status=TaskStatus.SUCCESS,
        task_id=task_id,
        request_id="r",
        task_type="echo",
        agent=agent,
        generation=generation,
        capability=capability,
    )


@given(KEYS, DISPATCHES)
def test_a_report_on_its_own_dispatch_is_believed(key: bytes, dispatch: tuple[str, int, str]) -> None:
    capabilities = Capabilities([key])
    assert capabilities.flaw(reported(*dispatch, capabilities.sign(*dispatch))) is None


@given(KEYS, DISPATCHES)
def test_the_mark_is_hmac_sha256_of_the_key(key: bytes, dispatch: tuple[str, int, str]) -> None:
    task_id, generation, agent = dispatch
    message = f"{generation}|{len(agent)}|{agent}{task_id}".encode()
    mark = Capabilities([key]).sign(*dispatch)
    assert mark[KEY_ID_LENGTH + 1 :] == hmac.digest(key, message, "sha256")[:MAC_BYTES].hex()


@given(DISPATCHES, DISPATCHES)
def test_a_mark_is_good_for_one_dispatch_only(one: tuple[str, int, str], other: tuple[str, int, str]) -> None:
    capabilities = Capabilities([NEW])
    flaw = capabilities.flaw(reported(*other, capabilities.sign(*one)))
    assert flaw is (None if one == other else Flaw.FORGED)


@given(DISPATCHES, st.data())
def test_a_mark_with_any_character_changed_is_refused(dispatch: tuple[str, int, str], data: Any) -> None:
    capabilities = Capabilities([NEW])
    mark = capabilities.sign(*dispatch)
    place = data.draw(st.integers(0, len(mark) - 1))
    character = data.draw(st.characters().filter(lambda one: one != mark[place]))
    altered = mark[:place] + character + mark[place + 1 :]
    assert capabilities.flaw(reported(*dispatch, altered)) in (Flaw.FORGED, Flaw.UNKNOWN_KEY)


@given(st.text(max_size=100))
def test_no_text_from_outside_breaks_the_check(text: str) -> None:
    flaw = Capabilities([NEW]).flaw(reported("t", 1, "a", text))
    assert flaw is (Flaw.UNKNOWN_KEY if text else Flaw.MISSING)


def test_a_report_of_nobody_is_refused() -> None:
    capabilities = Capabilities([NEW])
    assert capabilities.flaw(reported("t", 1, None, capabilities.sign("t", 1, ""))) is Flaw.FORGED


def test_keys_change_while_tasks_are_under_way() -> None:
    before, both, after = Capabilities([OLD]), Capabilities([NEW, OLD]), Capabilities([NEW])
    old = reported("t", 1, "a", before.sign("t", 1, "a"))
    new = reported("t", 2, "a", both.sign("t", 2, "a"))
    assert (both.flaw(old), both.flaw(new), after.flaw(new)) == (None, None, None)
    assert (after.flaw(old), before.flaw(new)) == (Flaw.UNKNOWN_KEY, Flaw.UNKNOWN_KEY)
    assert Capabilities([OTHER]).flaw(new) is Flaw.UNKNOWN_KEY


@pytest.mark.parametrize("keys", [[], [b"short"], [OLD, NEW, OTHER]])
def test_no_key_a_short_key_and_three_keys_are_refused(keys: list[bytes]) -> None:
    with pytest.raises(ValueError, match="key"):
        Capabilities(keys)
