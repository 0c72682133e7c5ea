"""Requests become tasks, or errors that name the field."""

from __future__ import annotations

import itertools
import json
import uuid

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_engines.domain.errors import InvalidRequest, Malformed, TooLarge
from agent_engines.domain.task_names import TASK_NAMESPACE, task_id_of
from agent_engines.domain.tasks import Task, TaskRequest
from agent_engines.domain.validation import Limits, request_from_json, to_task

NOW = 1_700_000_000.0


def task(request: TaskRequest, **changes: object) -> Task:
    ids = itertools.count(1)
    return to_task(request, now=NOW, origin="here", new_id=lambda: f"id-{next(ids)}", **changes)  # type: ignore[arg-type]


def of(body: bytes) -> Task:
    return task(request_from_json(body))


def refused(body: bytes) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        of(body)
    return caught.value


def test_a_plain_request_becomes_a_task_with_the_callers_payload_bytes() -> None:
    made = of(b'{"task_type":"echo","payload": {"b": 1,  "a":[1.0, 2]} ,"priority":1,"metadata":{"x":"y"}}')
    assert bytes(made.payload) == b'{"b": 1,  "a":[1.0, 2]}'
    assert (made.task_id, made.request_id, made.task_type) == ("id-1", "id-1", "echo")
    assert (made.priority, made.metadata, made.submitted_at, made.origin) == (1, {"x": "y"}, NOW, "here")


def test_left_out_fields_get_their_defaults() -> None:
    made = of(b'{"task_type":"echo"}')
    assert (bytes(made.payload), made.priority, made.requirements, made.deadline) == (b"null", 3, {}, None)


def test_null_means_left_out() -> None:
    made = of(b'{"task_type":"echo","priority":null,"requirements":null,"metadata":null,"timeout_seconds":null}')
    assert (made.priority, made.requirements, made.metadata, made.timeout_seconds) == (3, {}, {}, None)


def test_of_repeated_keys_the_last_one_counts() -> None:
    assert of(b'{"task_type":"a","task_type":"b"}').task_type == "b"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"{}", "task_type"),
        (b'{"task_type":""}', "task_type"),
        (b'{"task_type":" x"}', "task_type"),
        (b'{"task_type":"a\\nb"}', "task_type"),
        (b'{"task_type":"' + b"x" * 129 + b'"}', "task_type"),
        (b'{"task_type":7}', "task_type"),
        (b'{"task_type":null}', "task_type"),
        (b'{"task_type":"x","priority":0}', "priority"),
        (b'{"task_type":"x","priority":6}', "priority"),
        (b'{"task_type":"x","priority":2.5}', "priority"),
        (b'{"task_type":"x","priority":"3"}', "priority"),
        (b'{"task_type":"x","priority":true}', "priority"),
        (b'{"task_type":"x","timeout_seconds":0}', "timeout_seconds"),
        (b'{"task_type":"x","timeout_seconds":-1}', "timeout_seconds"),
        (b'{"task_type":"x","timeout_seconds":604801}', "timeout_seconds"),
        (b'{"task_type":"x","timeout_seconds":"5"}', "timeout_seconds"),
        (b'{"task_type":"x","deadline":1600000000}', "deadline"),
        (b'{"task_type":"x","deadline":1700000000}', "deadline"),
        (b'{"task_type":"x","deadline":1e300}', "deadline"),
        (b'{"task_type":"x","deadline":"soon"}', "deadline"),
        (b'{"task_type":"x","deadline":"2040-01-01T00:00:00"}', "deadline"),
        (b'{"task_type":"x","deadline":[]}', "deadline"),
        (b'{"task_type":"x","max_attempts":0}', "max_attempts"),
        (b'{"task_type":"x","max_attempts":101}', "max_attempts"),
        (b'{"task_type":"x","idempotency_key":""}', "idempotency_key"),
        (b'{"task_type":"x","idempotency_key":"' + b"k" * 256 + b'"}', "idempotency_key"),
        (b'{"task_type":"x","idempotency_key":"a\\u0000"}', "idempotency_key"),
        (b'{"task_type":"x","request_id":"a\\tb"}', "request_id"),
        (b'{"task_type":"x","requirements":[]}', "requirements"),
        (b'{"task_type":"x","requirements":{"a":1e999}}', "requirements"),
        (b'{"task_type":"x","requirements":{"a":"\\u0000"}}', "requirements.a"),
        (b'{"task_type":"x","metadata":"y"}', "metadata"),
        (b'{"task_type":"x","metadata":{"a":{"b":["c","\\u0000"]}}}', "metadata.a.b[1]"),
        (b'{"task_type":"x","payload":{"a":["\\u0000"]}}', "payload.a[0]"),
        (b'{"task_type":"x","payload":{"\\u0000":1}}', "a key of payload"),
        (b'{"task_type":"x","payload":1e999}', "payload"),
        (b'{"task_type":"x","payload":[1e-999]}', "payload"),
        (b'{"task_type":"x","payload":' + b"9" * 400 + b"}", "payload"),
        (b'{"task_type":"x","priorty":1}', "priorty"),
    ],
)
def test_the_error_names_the_field(body: bytes, field: str) -> None:
    error = refused(body)
    assert error.field == field
    assert not isinstance(error, Malformed)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"{",
        b'{"task_type":"x"',
        b'{"task_type":"x",}',
        b'{"task_type":"x"} more',
        b'{"task_type":"x","payload":NaN}',
        b'{"task_type":"x","payload":Infinity}',
        b'{"task_type":"x","payload":01}',
        b'{"task_type":"x","payload":"\xff"}',
        b'{"task_type":"\xff"}',
        b"\xef\xbb\xbf{}",
    ],
)
def test_bytes_that_are_no_json_object_are_refused(body: bytes) -> None:
    assert isinstance(refused(body), InvalidRequest)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"task_type":"x","features":[NaN]}', "features[0]"),
        (b'{"task_type":"x","features":[1, 2.5, -Infinity]}', "features[2]"),
        (b'{"task_type":"x","embedding":[ Infinity]}', "embedding[0]"),
        (b'{"task_type":"x","affinity":{"mode":"soft"}}', "affinity.key"),
        (b'{"task_type":"x","budget":{"costs":1}}', "budget.costs"),
    ],
)
def test_numbers_that_are_none_and_fields_inside_of_fields_are_named(body: bytes, field: str) -> None:
    error = refused(body)
    assert not isinstance(error, Malformed)
    assert error.field == field
    assert field in str(error)


@pytest.mark.parametrize("value", [b"NaN", b"-Infinity", b" Infinity", b'{"features":[NaN]}'])
def test_elsewhere_such_numbers_are_no_json_and_the_reason_says_so(value: bytes) -> None:
    error = refused(b'{"task_type":"x","payload":' + value + b"}")
    assert isinstance(error, Malformed)
    assert "JSON has no NaN and no Infinity" in str(error)


@pytest.mark.parametrize("body", [b"", b"{", b'{"task_type":"x","payload":NaN}', b'{"task_type":"x","payload":"\xff"}'])
def test_bytes_that_are_no_json_are_malformed(body: bytes) -> None:
    assert isinstance(refused(body), Malformed)


@pytest.mark.parametrize("text", [b"\\ud800", b"\\udc00", b"\\ud800x", b"\\ud800\\ud800"])
@pytest.mark.parametrize("body", [b'{"task_type":"x","payload":"%b"}', b'{"task_type":"x","metadata":{"a":"%b"}}'])
def test_half_a_surrogate_pair_is_refused_as_a_field(body: bytes, text: bytes) -> None:
    error = refused(body % text)
    assert not isinstance(error, Malformed)
    assert "surrogate" in error.detail


def test_a_whole_surrogate_pair_is_fine() -> None:
    assert msgspec.json.decode(of(b'{"task_type":"x","payload":"\\ud83d\\ude00"}').payload) == "\U0001f600"


def test_an_escaped_backslash_before_u0000_is_no_nul() -> None:
    assert msgspec.json.decode(of(b'{"task_type":"x","payload":"\\\\u0000"}').payload) == "\\u0000"


@pytest.mark.parametrize("text", [b'"1e999"', b'"' + b"9" * 400 + b'"', b"1e308", b"1.5e-300", b"1e+0010"])
def test_numbers_a_double_holds_and_digits_in_text_are_fine(text: bytes) -> None:
    assert bytes(of(b'{"task_type":"x","payload":' + text + b"}").payload) == text


def nested(depth: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    return opening * depth + closing * depth


def test_the_depth_limit_is_exact_and_counts_the_body() -> None:
    assert of(b'{"task_type":"x","payload":' + nested(31) + b"}")
    with pytest.raises(Malformed):
        of(b'{"task_type":"x","payload":' + nested(32) + b"}")


def test_a_payload_given_as_a_value_has_the_same_depth_limit() -> None:
    assert task(TaskRequest(task_type="x", payload=json.loads(nested(32))))
    with pytest.raises(Malformed):
        task(TaskRequest(task_type="x", payload=json.loads(nested(33))))


@pytest.mark.parametrize("depth", [33, 5_000, 400_000])
def test_any_deeper_body_is_malformed_and_no_recursion(depth: int) -> None:
    assert isinstance(refused(b'{"task_type":"x","payload":' + nested(depth) + b"}"), Malformed)
    assert isinstance(refused(b'{"task_type":"x","payload":' + b"[" * depth), Malformed)


def test_brackets_in_text_are_not_depth() -> None:
    text = msgspec.json.encode("[" * 1000 + '"' + "{" * 1000)
    assert bytes(of(b'{"task_type":"x","payload":' + text + b"}").payload) == text


def test_brackets_in_text_do_not_hide_depth() -> None:
    deep = b'["]",' * 40 + b"1" + b"]" * 40
    assert isinstance(refused(b'{"task_type":"x","payload":' + deep + b"}"), Malformed)


def test_wide_bodies_are_not_deep() -> None:
    wide = b"[" + b",".join([b'{"a":[1]}'] * 500) + b"]"
    assert bytes(of(b'{"task_type":"x","payload":' + wide + b"}").payload) == wide


@pytest.mark.timeout(30)
@pytest.mark.parametrize("unit", [b'\\"', b'"', b"[", b'{"a":', b"1e", b"9" * 308 + b",", b'"\\\\', b"[]"])
def test_hostile_bodies_cost_linear_time(unit: bytes) -> None:
    """Quadratic rules would need minutes for a mebibyte and run into the timeout."""
    brackets = b"[" * 40
    body = (b'{"task_type":"x","payload":"' + brackets + unit * (1_000_000 // len(unit)))[:1_000_000]
    assert refused(body).detail
    assert refused(body.replace(b'"payload":"', b'"payload":', 1)).detail


@pytest.mark.timeout(30)
def test_a_mebibyte_of_the_longest_numbers_is_fine() -> None:
    payload = b"[" + b",".join([b"9" * 308] * 3000) + b"]"
    assert bytes(of(b'{"task_type":"x","payload":' + payload + b"}").payload) == payload


def test_a_body_over_the_limit_is_too_large() -> None:
    body = b'{"task_type":"x","payload":"' + b"y" * 1_048_576 + b'"}'
    assert isinstance(refused(body), TooLarge)


def test_a_payload_over_the_limit_is_too_large_however_it_comes() -> None:
    with pytest.raises(TooLarge):
        task(TaskRequest(task_type="x", payload="y" * 1_048_576))


def test_mappings_are_bounded_in_keys_and_bytes() -> None:
    with pytest.raises(InvalidRequest, match="keys"):
        task(TaskRequest(task_type="x", metadata={str(n): 1 for n in range(65)}))
    with pytest.raises(InvalidRequest, match="bytes"):
        task(TaskRequest(task_type="x", requirements={"a": "b" * 16_384}))


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        ({"a": [float("nan")]}, "payload.a[0]"),
        (float("inf"), "payload"),
        ({"a": "\ud800"}, "payload.a"),
        ({"a": "b\0"}, "payload.a"),
        ({"a": object()}, "payload"),
        ({(1, 2): 3}, "payload"),
    ],
)
def test_a_python_payload_json_cannot_say_is_refused(payload: object, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        task(TaskRequest(task_type="x", payload=payload))
    assert caught.value.field == field


def test_null_in_a_python_payload_is_not_taken_for_nan() -> None:
    assert bytes(task(TaskRequest(task_type="x", payload=[None, {"a": None}])).payload) == b'[null,{"a":null}]'


def test_an_empty_raw_payload_is_null() -> None:
    assert bytes(task(TaskRequest(task_type="x", payload=msgspec.Raw(b""))).payload) == b"null"


@pytest.mark.parametrize("deadline", [b'"2040-01-01T00:00:00Z"', b'"2040-01-01T02:00:00+02:00"', b"2208988800"])
def test_deadlines_are_read_as_epoch_seconds_or_iso_8601(deadline: bytes) -> None:
    assert of(b'{"task_type":"x","deadline":' + deadline + b"}").deadline == 2_208_988_800.0


def test_the_same_key_is_the_same_task_everywhere() -> None:
    one = of(b'{"task_type":"x","payload":{"a":1,"b":2},"idempotency_key":"k"}')
    two = of(b'{"idempotency_key":"k","payload": {"b":2, "a":1}, "task_type":"x"}')
    assert one.task_id == two.task_id
    assert one.body_hash == two.body_hash
    assert len(one.body_hash) == 16


@given(st.text(min_size=1, max_size=60))
def test_a_key_names_its_task_by_a_version_5_uuid(key: str) -> None:
    try:
        assert task_id_of(key) == str(uuid.uuid5(TASK_NAMESPACE, key))
    except UnicodeEncodeError:
        assert not key.isprintable(), "such a key is refused before it is asked for"


@given(
    st.text("ab", min_size=1, max_size=3), st.text("ab", min_size=1, max_size=3), st.text("ab", min_size=1, max_size=3)
)
def test_what_two_tenants_call_alike_are_two_tasks(key: str, one: str, other: str) -> None:
    assert task_id_of(key, one) != task_id_of(key)
    assert (task_id_of(key, one) == task_id_of(key, other)) == (one == other)
    assert task(TaskRequest(task_type="t", idempotency_key=key, tenant=one)).task_id == task_id_of(key, one)


@given(st.uuids(version=4), st.integers(0, 2**48 - 1))
def test_a_key_that_is_a_version_7_uuid_lends_its_moment_and_nothing_else(random: uuid.UUID, moment: int) -> None:
    key = uuid.UUID(int=(moment << 80) | (random.int & ((1 << 80) - 1)) & ~(0xF << 76) | (7 << 76))
    named = uuid.UUID(task_id_of(str(key)))
    assert (named.version, named.variant) == (7, uuid.RFC_4122)
    assert named.int >> 80 == moment
    assert named != key
    assert task_id_of(str(key)) == str(named)


@pytest.mark.parametrize(
    "other",
    [
        b'{"task_type":"x","payload":2,"idempotency_key":"k"}',
        b'{"task_type":"y","payload":1,"idempotency_key":"k"}',
        b'{"task_type":"x","payload":1,"idempotency_key":"k","priority":1}',
        b'{"task_type":"x","payload":1,"idempotency_key":"k","requirements":{"a":1}}',
    ],
)
def test_another_body_with_the_same_key_has_another_hash(other: bytes) -> None:
    first = of(b'{"task_type":"x","payload":1,"idempotency_key":"k"}')
    assert of(other).task_id == first.task_id
    assert of(other).body_hash != first.body_hash


def test_limits_are_options() -> None:
    with pytest.raises(TooLarge):
        request_from_json(b'{"task_type":"x"}', limits=Limits(body_bytes=10))
