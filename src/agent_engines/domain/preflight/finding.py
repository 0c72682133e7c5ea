"""Finding: what a preflight says about one setting; Rule: how it comes to say it.

A rule sees values that were read, never our wishes. What could not be read makes it say so: a rule whose reading is
missing is not asked at all, so it cannot call fine what nobody looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import msgspec

Facts = Mapping[str, Any]
"""What was read, by name. An `Unread` in the place of a value says why there is none."""


class Severity(StrEnum):
    """In the order they are shown."""

    UNSAFE = "unsafe"
    """Tasks, results or secrets can be lost with this setting. In the production profile it fails the check."""
    UNREAD = "unread"
    """Nobody knows: it could not be read. Never the same as fine."""
    ADVICE = "advice"
    FINE = "fine"


@dataclass(frozen=True, slots=True)
class Unread:
    """Why a value is not there, in words for the operator."""

    why: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge says. `of`: which stream, role or file; `read`: what to show instead of all that the rule reads."""

    severity: Severity
    remedy: str = ""
    of: str = ""
    read: Mapping[str, Any] | None = None


FINE = Verdict(Severity.FINE)
Judge = Callable[[Facts], Verdict | Iterable[Verdict]]


@dataclass(frozen=True, slots=True)
class Rule:
    """`reads`: the facts without which it cannot judge; `unread`: what to do so that they can be read."""

    name: str
    reads: tuple[str, ...]
    why: str
    judge: Judge
    unread: str = ""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the report. `id` is `part.rule`, the name by which an operator accepts it."""

    id: str
    part: str
    severity: Severity
    of: str = ""
    read: dict[str, Any] = field(default_factory=dict[str, Any])
    why: str
    remedy: str = ""
    accepted: bool = False


def unsafe(remedy: str, **more: Any) -> Verdict:
    return Verdict(Severity.UNSAFE, remedy, **more)


def advice(remedy: str, **more: Any) -> Verdict:
    return Verdict(Severity.ADVICE, remedy, **more)


def fine(**more: Any) -> Verdict:
    return Verdict(Severity.FINE, **more)


def must_be(name: str, wanted: str, why: str, remedy: str) -> Rule:
    """The fact of this name has this value, or it is unsafe."""
    return Rule(name, (name,), why, lambda facts: FINE if facts[name] == wanted else unsafe(remedy))


def judged(part: str, rules: Sequence[Rule], facts: Facts, accepted: Iterable[str] = ()) -> list[Finding]:
    """What every rule says; `accepted`: ids of findings an operator lives with."""
    known = frozenset(accepted)
    return [finding for rule in rules for finding in _of_rule(part, rule, facts, known)]


def _of_rule(part: str, rule: Rule, facts: Facts, accepted: frozenset[str]) -> list[Finding]:
    name = f"{part}.{rule.name}"
    missing = {one: _reason(facts, one) for one in rule.reads if one not in facts or isinstance(facts[one], Unread)}
    if missing:
        read = {one: f"could not be read: {why}" for one, why in missing.items()}
        return [Finding(id=name, part=part, severity=Severity.UNREAD, read=read, why=rule.why, remedy=rule.unread)]
    told = rule.judge(facts)
    verdicts = [told] if isinstance(told, Verdict) else list(told)
    return [
        Finding(
            id=name,
            part=part,
            severity=verdict.severity,
            of=verdict.of,
            read=dict(verdict.read if verdict.read is not None else {one: facts[one] for one in rule.reads}),
            why=rule.why,
            remedy=verdict.remedy,
            accepted=name in accepted and verdict.severity is Severity.UNSAFE,
        )
        for verdict in verdicts
    ]


def _reason(facts: Facts, name: str) -> str:
    found = facts.get(name)
    return found.why if isinstance(found, Unread) else "nothing was told about it"
