"""Judgements: bounded, final for each source, and the same thing on the way as in the table."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_engines.domain.errors import Conflict, InvalidRequest
from agent_engines.domain.estimates import HOPED_QUALITY, Track
from agent_engines.domain.feedback import (
    COMMENT_LENGTH,
    SOURCE_LENGTH,
    Feedback,
    FeedbackDraft,
    check_feedback,
    feedback_of,
    feedback_report,
    settled,
)
from agent_engines.domain.tasks import TaskStatus

shares = st.floats(0, 1)
names = st.text("abc-_ 1", min_size=1, max_size=SOURCE_LENGTH)


def judged(quality: float, source: str = "caller", comment: str = "") -> Feedback:
    return Feedback(
        task_id="t",
        generation=2,
        attempt=3,
        task_type="echo",
        agent="ann",
        status=TaskStatus.SUCCESS,
        source=source,
        quality=quality,
        comment=comment,
        created_at=10.0,
    )


@given(shares, names, st.text("xyz\n", max_size=COMMENT_LENGTH))
def test_what_is_in_bounds_is_taken(quality: float, source: str, comment: str) -> None:
    check_feedback(FeedbackDraft(quality=quality, source=source, comment=comment))


@given(st.floats().filter(lambda value: not 0 <= value <= 1))
def test_a_quality_outside_names_its_field(quality: float) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_feedback(FeedbackDraft(quality=quality))
    assert caught.value.field == "quality"


@pytest.mark.parametrize(
    ("draft", "field"),
    [
        (FeedbackDraft(quality=math.nan), "quality"),
        (FeedbackDraft(quality=True), "quality"),
        (FeedbackDraft(quality="1"), "quality"),  # type: ignore[arg-type]
        (FeedbackDraft(quality=1, source=""), "source"),
        (FeedbackDraft(quality=1, source="a\nb"), "source"),
        (FeedbackDraft(quality=1, source="a" * (SOURCE_LENGTH + 1)), "source"),
        (FeedbackDraft(quality=1, comment="a" * (COMMENT_LENGTH + 1)), "comment"),
        (FeedbackDraft(quality=1, comment="\0"), "comment"),
        (FeedbackDraft(quality=1, comment="\ud800"), "comment"),
    ],
)
def test_what_cannot_be_taken_names_its_field(draft: FeedbackDraft, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_feedback(draft)
    assert caught.value.field == field


@given(shares, shares)
def test_the_same_again_is_the_first_answer_and_another_value_is_a_conflict(first: float, second: float) -> None:
    known = judged(first, comment="the first words stay")
    if first == second:
        assert settled(known, FeedbackDraft(quality=second, comment="other words")) is known
    else:
        with pytest.raises(Conflict, match="final"):
            settled(known, FeedbackDraft(quality=second))


@given(shares, names, st.text("xyz", max_size=20))
def test_the_log_of_reports_alone_can_rebuild_the_table(quality: float, source: str, comment: str) -> None:
    told = judged(quality, source, comment)
    rebuilt = feedback_of(feedback_report(told, "mark"), 20.0)
    assert rebuilt.recorded_at == 20.0
    assert {name: getattr(rebuilt, name) for name in rebuilt.__struct_fields__ if name != "recorded_at"} == {
        name: getattr(told, name) for name in told.__struct_fields__ if name != "recorded_at"
    }


@given(st.lists(shares, min_size=1, max_size=40))
def test_a_judgement_moves_the_quality_and_nothing_else(qualities: list[float]) -> None:
    track = Track()
    track.learn(True, 10.0)
    before = (track.success, track.doubt, track.outcomes, track.service_ms)
    for quality in qualities:
        track.judge(quality)
    assert (track.success, track.doubt, track.outcomes, track.service_ms) == before
    assert track.quality is not None
    assert min(qualities) - 1e-9 <= track.quality <= HOPED_QUALITY + 1e-9
