"""Whatever JSON can say is kept byte for byte or refused with one of our errors."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_engines.domain.errors import InvalidRequest, Malformed
from agent_engines.domain.json_text import check_depth
from agent_engines.domain.tasks import TaskRequest
from agent_engines.domain.validation import request_from_json, to_task

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=30,
)


def accepted(request: TaskRequest) -> bytes:
    return bytes(to_task(request, now=0.0, origin="o", new_id=lambda: "id").payload)


@given(values, st.sampled_from([None, 1]), st.booleans())
def test_every_sane_payload_is_kept_as_it_was_sent(value: object, indent: int | None, ascii_only: bool) -> None:
    payload = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode()
    request = request_from_json(b'{"task_type":"x","payload":' + payload + b"}")
    assert accepted(request) == payload


@given(values)
def test_a_python_payload_reads_back_equal(value: object) -> None:
    assert msgspec.json.decode(accepted(TaskRequest(task_type="x", payload=value))) == value


@given(st.binary(max_size=200))
def test_foreign_bytes_raise_nothing_but_our_errors(body: bytes) -> None:
    try:
        kept = accepted(request_from_json(body))
    except InvalidRequest:
        return
    assert json.dumps(json.loads(kept))


@given(st.text(st.sampled_from('[]{}",:\\ue019nulltrsfa- \ud800'), max_size=60))
def test_nearly_json_raises_nothing_but_our_errors(text: str) -> None:
    body = b'{"task_type":"x","payload":' + text.encode("utf-8", "surrogatepass") + b"}"
    try:
        kept = accepted(request_from_json(body))
    except InvalidRequest:
        return
    assert json.dumps(json.loads(kept))


@given(st.integers(0, 60), st.integers(0, 3))
def test_depth_is_refused_exactly_past_the_limit(depth: int, width: int) -> None:
    value: object = 0
    for _ in range(depth):
        value = [value, *[[]] * width] if width and depth % 2 else {"]": value}
    deepest = _depth(value)
    try:
        accepted(TaskRequest(task_type="x", payload=value))
        assert deepest <= 32
    except InvalidRequest:
        assert deepest > 32


def _depth(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max((_depth(inner) for inner in value.values()), default=0)
    if isinstance(value, list):
        return 1 + max((_depth(inner) for inner in value), default=0)
    return 0


@given(st.integers(0, 1000), st.integers(300, 330), st.integers(0, 1000), st.booleans())
def test_a_number_of_309_digits_is_found_wherever_it_stands(before: int, digits: int, after: int, spaced: bool) -> None:
    filling = ("1," if spaced else "\n ") * before
    payload = f'[{filling}"{"x" * (before % 7)}",{"9" * digits},"{"y" * after}"]'.encode()
    if digits < 309:
        assert accepted(TaskRequest(task_type="x", payload=msgspec.Raw(payload))) == payload
    else:
        with pytest.raises(InvalidRequest, match="out of range"):
            accepted(TaskRequest(task_type="x", payload=msgspec.Raw(payload)))


def levels(value: object) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(levels, inner), default=0)


brackets = st.text('[]{}"\\\\ab', max_size=12)
nested = st.recursive(
    brackets | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(brackets, inner, max_size=3),
    max_leaves=40,
)


@given(nested, st.integers(0, 6))
def test_levels_are_counted_outside_strings_whatever_stands_in_those(value: object, limit: int) -> None:
    try:
        check_depth(json.dumps(value).encode(), limit, "payload")
    except Malformed:
        assert levels(value) > limit
    else:
        assert levels(value) <= limit
