"""Explanation: a decision in plain words, from the numbers it was made with and from nothing else.

`reasoning` is the short form that every acceptance carries; `explanation` is the whole story, told from the stored record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from .decisions import Candidate, Decision, Rejection

SHOWN_REJECTIONS = 3
NEVER_SECONDS = 1e5
"""An expected completion beyond this is the mark of a replica that is out for a while."""


class Counterfactual:
    """What would have given a candidate the best utility, by the utility's own terms.

    utility = quality - price * cost - haste * seconds - late (when the deadline would be missed)
    """

    def __init__(self, candidates: Sequence[Candidate], terms: Mapping[str, float]) -> None:
        self._candidates = [one for one in candidates if one.score is not None]
        self._price = terms.get("price", 0.0)
        self._haste = terms.get("haste", 0.0)
        self._known = bool(terms)

    def gap(self, candidate: Candidate) -> float:
        """By how much the best of the others is better; negative for the best."""
        others = [one.score or 0.0 for one in self._candidates if one.agent != candidate.agent]
        return max(others, default=float("-inf")) - (candidate.score or 0.0)

    def cost_below(self, candidate: Candidate, gap: float | None = None) -> float | None:
        """A cost below this would have made it the best; None: no cost would have. `gap`: where it is known already."""
        gap = self.gap(candidate) if gap is None else gap
        if not self._known or self._price <= 0.0 or gap <= 0.0:
            return None
        cost = candidate.cost - gap / self._price
        return cost if cost > 0.0 else None

    def quality_above(self, candidate: Candidate, gap: float | None = None) -> float | None:
        """An expected quality above this would have made it the best; None: no quality would have."""
        gap = self.gap(candidate) if gap is None else gap
        if not self._known or candidate.quality is None or gap <= 0.0:
            return None
        quality = candidate.quality + gap
        return quality if quality < 1.0 else None

    def seconds_below(self, candidate: Candidate, gap: float | None = None) -> float | None:
        """Done sooner than this it would have been the best; None: not by being sooner."""
        gap = self.gap(candidate) if gap is None else gap
        if not self._known or self._haste <= 0.0 or gap <= 0.0:
            return None
        seconds = candidate.completion_ms / 1000.0 - gap / self._haste
        return seconds if seconds > 0.0 else None

    def sentence(self, candidate: Candidate) -> str:
        """All of it in words; empty when nothing single would have done."""
        gap = self.gap(candidate)
        if gap <= 0.0 or not self._known:
            return ""
        cost, quality = self.cost_below(candidate, gap), self.quality_above(candidate, gap)
        seconds = self.seconds_below(candidate, gap)
        parts: list[str] = []
        if cost is not None:
            parts.append(f"its cost were below {cost:.6g}")
        if quality is not None:
            parts.append(f"its expected quality were above {quality:.4f}")
        if seconds is not None:
            parts.append(f"it were done within {1000.0 * seconds:.0f} ms")
        return f"{candidate.agent} would have had the best utility if {' or '.join(parts)}" if parts else ""


class Circumstances(msgspec.Struct, frozen=True, gc=False):
    """What surrounds a choice. `known`: agents in the fleet; `considered`: those that could have been chosen."""

    strategy: str
    explored: bool
    rejected: Sequence[Rejection]
    known: int
    considered: int
    terms: Mapping[str, float]


def reasoning(candidates: Sequence[Candidate], place: int, circumstances: Circumstances) -> str:
    """Two or three plain sentences about the candidate at `place`."""
    rejected, considered, terms = circumstances.rejected, circumstances.considered, circumstances.terms
    chosen = candidates[place]
    how = (
        "explored"
        if circumstances.explored
        else "the only one"
        if considered == 1
        else "exploited"
        if terms
        else "by its rule"
    )
    chance = "" if chosen.probability is None else f", probability {chosen.probability:.3f}"
    text = (
        f"Kept {considered} of {circumstances.known} agents; {circumstances.strategy} chose {chosen.agent} ({how}{chance}): "
        f"{_prospects(chosen)}, {chosen.in_flight} in flight on {chosen.slots} slots."
    )
    if len(candidates) == 1 and not rejected:
        return text
    parts: list[str] = []
    rival = _best_other(candidates, place)
    if rival is not None and chosen.score is not None and rival.score is not None:
        parts.append(f"Next was {rival.agent} ({_prospects(rival)}), margin {chosen.score - rival.score:+.4f}")
        if terms and rival.score < chosen.score:
            sentence = Counterfactual(candidates, terms).sentence(rival)
            if sentence:
                parts.append(sentence)
    if rejected:
        shown = "; ".join(f"{fallen.agent} {fallen.reason}" for fallen in rejected[:SHOWN_REJECTIONS])
        more = f" and {len(rejected) - SHOWN_REJECTIONS} more" if len(rejected) > SHOWN_REJECTIONS else ""
        parts.append(f"not eligible: {shown}{more}")
    return f"{text} {'; '.join(parts)}." if parts else text


def explanation(decision: Decision) -> list[str]:
    """The whole story, a sentence an item."""
    return [
        *([decision.hedge] if decision.hedge else []),
        _kept(decision),
        *(f"{fallen.agent} could not be chosen: {fallen.reason}." for fallen in decision.rejected),
        *(_weighed(one, decision) for one in decision.candidates),
        *_rest(decision),
        _how(decision),
        *_changes(decision),
        *_warnings(decision),
    ]


def _kept(decision: Decision) -> str:
    known = decision.considered + len(decision.rejected)
    return (
        f"{decision.strategy} (version {decision.policy_version}) kept {decision.considered} of {known} agents for "
        f"{decision.task_type!r} and chose {decision.selected_agent}, {100 * decision.confidence:.1f} % sure of success."
    )


def _weighed(candidate: Candidate, decision: Decision) -> str:
    mark = " (chosen)" if candidate.agent == decision.selected_agent else ""
    score = "" if candidate.score is None else f", utility {candidate.score:.4f}"
    chance = "" if candidate.probability is None else f", chosen with probability {candidate.probability:.4f}"
    kind = f", a replica of {candidate.kind}" if candidate.kind else ""
    return f"{candidate.agent}{mark}{kind}: {_prospects(candidate)}, {candidate.in_flight} in flight{score}{chance}."


def _rest(decision: Decision) -> list[str]:
    more = decision.considered - len(decision.candidates)
    return [f"{more} more could have been chosen; their numbers were not kept."] if more > 0 else []


def _how(decision: Decision) -> str:
    best = _best(decision.candidates)
    if decision.considered == 1:
        return "There was nobody else to choose."
    if best is None or best.score is None:
        return f"The rule of {decision.strategy} decided; it compares no utilities."
    chosen = next((one for one in decision.candidates if one.agent == decision.selected_agent), None)
    if decision.explored and chosen is not None and chosen.score is not None:
        return f"It explored: {best.agent} had the best utility, by {best.score - chosen.score:.4f}, and what is tried is learned."
    rivals = [one.score for one in decision.candidates if one.score is not None and one.agent != best.agent]
    return (
        f"It took the best utility, by a margin of {best.score - max(rivals):.4f}." if rivals else "It took the best."
    )


def _changes(decision: Decision) -> list[str]:
    if not decision.terms:
        return []
    counterfactual = Counterfactual(decision.candidates, decision.terms)
    sentences = (counterfactual.sentence(one) for one in decision.candidates)
    return [f"{sentence}." for sentence in sentences if sentence]


def _warnings(decision: Decision) -> list[str]:
    found: list[str] = []
    if decision.fallback:
        found.append(f"This was the fallback: {decision.fallback}.")
    if decision.deterministic:
        found.append("No chance took part, so this decision cannot be used to judge other policies.")
    if decision.state_sequence is not None:
        found.append(f"It had learned from the shared lessons up to number {decision.state_sequence}.")
    return found


def _prospects(candidate: Candidate) -> str:
    quality = f"success {candidate.success:.2f}" if candidate.quality is None else f"quality {candidate.quality:.3f}"
    soon = (
        "out for a while after errors"
        if candidate.completion_ms >= 1000.0 * NEVER_SECONDS
        else f"expected {candidate.completion_ms:.0f} ms"
    )
    return f"{quality}, {soon}, cost {candidate.cost:g}"


def _best(candidates: Sequence[Candidate]) -> Candidate | None:
    return _best_other(candidates, -1)


def _best_other(candidates: Sequence[Candidate], place: int) -> Candidate | None:
    """The one with the largest score except at `place`; of equals the first, None where nobody has a score."""
    best, most = None, 0.0
    for position, one in enumerate(candidates):
        score = one.score
        if score is not None and position != place and (best is None or score > most):
            best, most = one, score
    return best
