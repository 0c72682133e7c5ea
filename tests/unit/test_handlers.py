"""Handlers: shapes, payload and result types, and what is refused at registration."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypedDict

import msgspec
import pydantic
import pytest

from agent_engines.adapters.memory.telemetry import NullTelemetry
from agent_engines.domain.agents import Capability
from agent_engines.domain.errors import InvalidRequest
from agent_engines.domain.messages import TaskMessage
from agent_engines.runtime.context import TaskContext
from agent_engines.runtime.engine import Engine
from agent_engines.runtime.handlers import BadPayload, Handler
from agent_engines.runtime.results import BadResult


class StructDoc(msgspec.Struct):
    title: str
    pages: int = 1


@dataclass
class DataDoc:
    title: str
    pages: int = 1


class TypedDoc(TypedDict):
    title: str
    pages: int


class ModelDoc(pydantic.BaseModel):
    title: str
    pages: int = 1


CONTEXT = TaskContext(
    TaskMessage(task_id="t", request_id="r", task_type="x", agent="a"), NullTelemetry().log("a"), now=lambda: 0.0
)


def handler(function: Callable[..., Any], **rules: Any) -> Handler:
    return Handler(function, Capability(task_type="x", **rules))


def called(function: Callable[..., Any], payload: bytes = b"null") -> Any:
    made = handler(function)
    return made.function(*made.arguments(CONTEXT, msgspec.Raw(payload)))


class TestShapes:
    def test_nothing(self) -> None:
        assert called(lambda: "called") == "called"

    def test_payload_alone(self) -> None:
        assert called(lambda payload: payload, b"[1]") == [1]

    def test_context_alone_is_known_by_its_name_or_type(self) -> None:
        def typed(anything: TaskContext) -> Any:
            return anything

        assert called(typed) is CONTEXT
        assert called(lambda context: context) is CONTEXT
        assert called(lambda ctx: ctx) is CONTEXT

    def test_a_payload_named_context_with_a_type_is_a_payload(self) -> None:
        def typed(context: dict[str, int]) -> Any:
            return context

        assert called(typed, b'{"a":1}') == {"a": 1}

    def test_context_and_payload(self) -> None:
        assert called(lambda one, two: (one, two), b"7") == (CONTEXT, 7)

    def test_a_payload_with_a_default_is_still_the_payload(self) -> None:
        assert called(lambda payload=None: payload, b"7") == 7
        assert called(lambda context, payload=None: (context, payload), b"7") == (CONTEXT, 7)

    def test_partials_callable_objects_and_methods(self) -> None:
        class Service:
            async def method(self, payload: StructDoc) -> None: ...

            async def __call__(self, context: TaskContext, payload: DataDoc) -> None: ...

        def scaled(payload: int, factor: int) -> int:
            return payload * factor

        assert called(functools.partial(scaled, factor=3), b"4") == 12
        assert handler(Service().method).is_async
        assert handler(Service()).is_async
        assert handler(Service()).takes_context
        [payload] = handler(Service().method).arguments(CONTEXT, msgspec.Raw(b'{"title":"t"}'))
        assert payload == StructDoc("t")
        assert handler(functools.partial(Service().method)).is_async

    @pytest.mark.parametrize(
        "function",
        [
            lambda a, b, c: None,
            lambda a, *, must: None,
            int,
            StructDoc,
            42,
        ],
    )
    def test_other_shapes_are_refused(self, function: Any) -> None:
        with pytest.raises(InvalidRequest) as refused:
            handler(function)
        assert refused.value.field == "handler"

    def test_generators_are_refused(self) -> None:
        async def streaming(payload: Any) -> Any:
            yield 1

        with pytest.raises(InvalidRequest, match="generators"):
            handler(streaming)

    def test_the_context_comes_first(self) -> None:
        def turned(payload: Any, context: TaskContext) -> None: ...

        with pytest.raises(InvalidRequest, match="the context comes first"):
            handler(turned)

    def test_an_annotation_nobody_knows_is_named(self) -> None:
        def lost(payload: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821

        with pytest.raises(InvalidRequest, match="Nowhere"):
            handler(lost)

    def test_classes_local_to_a_function_are_found(self) -> None:
        class Local(msgspec.Struct):
            a: int

        engine = Engine("e")

        @engine.task("x")
        def local(payload: Local) -> int:
            return payload.a

        assert engine._handlers["x"].arguments(CONTEXT, msgspec.Raw(b'{"a":5}')) == (Local(5),)

    @pytest.mark.parametrize(
        ("rules", "field"),
        [
            ({"task_type": ""}, "task_type"),
            ({"task_type": " x"}, "task_type"),
            ({"task_type": "a\nb"}, "task_type"),
            ({"task_type": "x" * 129}, "task_type"),
            ({"task_type": len}, "task_type"),
            ({"max_attempts": 0}, "max_attempts"),
            ({"max_attempts": True}, "max_attempts"),
            ({"max_attempts": 101}, "max_attempts"),
            ({"timeout_seconds": 0}, "timeout_seconds"),
            ({"timeout_seconds": float("nan")}, "timeout_seconds"),
        ],
    )
    def test_rules_that_make_no_sense_are_refused_by_name(self, rules: dict[str, Any], field: str) -> None:
        with pytest.raises(InvalidRequest) as refused:
            Handler(lambda: None, Capability(**({"task_type": "x"} | rules)))
        assert refused.value.field == field


class TestPayloads:
    @pytest.mark.parametrize("kind", [StructDoc, DataDoc, TypedDoc, ModelDoc])
    def test_every_kind_of_type_is_read(self, kind: Any) -> None:
        def typed(payload: Any) -> Any:
            return payload

        typed.__annotations__["payload"] = kind
        read = called(typed, b'{"title":"t","pages":2}')
        assert read == kind(title="t", pages=2)
        assert isinstance(read, kind if kind is not TypedDoc else dict)

    @pytest.mark.parametrize("kind", [StructDoc, DataDoc, TypedDoc, ModelDoc])
    @pytest.mark.parametrize(
        ("payload", "place"), [(b'{"title":1,"pages":1}', "title"), (b'{"pages":1}', "title"), (b"[]", "payload")]
    )
    def test_what_does_not_fit_is_refused_with_its_place(self, kind: Any, payload: bytes, place: str) -> None:
        def typed(payload: Any) -> Any:
            return payload

        typed.__annotations__["payload"] = kind
        with pytest.raises(BadPayload) as refused:
            called(typed, payload)
        assert refused.value.error.type == "InvalidPayload"
        assert not refused.value.error.retryable
        assert place in refused.value.error.message

    def test_models_inside_other_types_are_read_and_checked(self) -> None:
        def typed(payload: list[ModelDoc]) -> Any:
            return payload

        assert called(typed, b'[{"title":"t"}]') == [ModelDoc(title="t")]
        with pytest.raises(BadPayload, match=r"\$\[0\]"):
            called(typed, b'[{"title":[]}]')

    def test_a_number_is_not_a_string(self) -> None:
        def typed(payload: int) -> Any:
            return payload

        assert called(typed, b"7") == 7
        with pytest.raises(BadPayload, match="Expected `int`, got `str`"):
            called(typed, b'"7"')

    def test_a_type_that_cannot_be_told_apart_is_refused_at_registration(self) -> None:
        def typed(payload: StructDoc | DataDoc) -> Any:
            return payload

        with pytest.raises(InvalidRequest, match="not usable"):
            handler(typed)


class TestResults:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (None, b"null"),
            ({"a": [1, None, "é"]}, '{"a":[1,null,"é"]}'.encode()),
            (StructDoc("t"), b'{"title":"t","pages":1}'),
            (DataDoc("t"), b'{"title":"t","pages":1}'),
            (ModelDoc(title="t"), b'{"title":"t","pages":1}'),
            ({"docs": [ModelDoc(title="t")]}, b'{"docs":[{"title":"t","pages":1}]}'),
            (msgspec.Raw(b'{"a":1}'), b'{"a":1}'),
            ("null", b'"null"'),
            ("\\u0000 spelled out", b'"\\\\u0000 spelled out"'),
        ],
    )
    def test_results_become_json(self, value: Any, expected: bytes) -> None:
        assert bytes(handler(lambda: None).result(value)) == expected

    @pytest.mark.parametrize(
        ("value", "told"),
        [
            (object(), "object"),
            ({"rows": [1, object()]}, r"object at \$\.rows\[1\]"),
            ({"a": [None, float("nan")]}, r"nan at \$\.a\[1\]"),
            (DataDoc("t", float("inf")), r"inf at \$\.pages"),  # type: ignore[arg-type]
            (StructDoc("a\x00b"), r"NUL character at \$\.title"),
            ({"a\x00b": 1}, r"NUL character at a key of \$"),
            (["\ud800"], r"lone surrogate at \$\[0\]"),
            (DataDoc("\udfff"), r"lone surrogate at \$\.title"),
            ({"n": 10**309}, r"308 digits at \$\.n"),
            ({(1, 2): 3}, "dict"),
            (msgspec.Raw(b"{not json"), "malformed"),
            ({"deep": msgspec.Raw(b"{not json")}, "malformed"),
            (functools.reduce(lambda inner, _: [inner], range(200), 1), "nested"),
        ],
    )
    def test_what_no_store_can_hold_is_refused_with_its_place(self, value: Any, told: str) -> None:
        with pytest.raises(BadResult, match=told) as refused:
            handler(lambda: None).result(value)
        assert refused.value.error.type == "UnserializableResult"
        assert not refused.value.error.retryable

    def test_a_result_that_contains_itself_is_refused(self) -> None:
        ring: list[Any] = []
        ring.append(ring)
        with pytest.raises(BadResult, match="contains itself"):
            handler(lambda: None).result(ring)

    def test_a_result_over_the_limit_is_too_large(self) -> None:
        with pytest.raises(BadResult) as refused:
            handler(lambda: None).result("x" * 100, limit=101)
        assert refused.value.error.type == "ResultTooLarge"
        assert bytes(handler(lambda: None).result("x" * 100, limit=102))

    @pytest.mark.parametrize(
        ("kind", "good", "bad"),
        [
            (StructDoc, StructDoc("t"), {"pages": 1}),
            (StructDoc, {"title": "as a dict"}, None),
            (DataDoc, DataDoc("t"), []),
            (TypedDoc, {"title": "t", "pages": 1}, {"title": "t"}),
            (ModelDoc, ModelDoc(title="t"), {"pages": "x"}),
            (dict, {}, []),
            (dict[str, Any], {"a": 1}, "text"),
            (list[int], [1], ["1"]),
            (None, None, 1),
            (int | None, None, "1"),
            (float, 1, "1"),
        ],
    )
    def test_results_have_to_fit_the_return_annotation(self, kind: Any, good: Any, bad: Any) -> None:
        def typed() -> Any: ...

        typed.__annotations__["return"] = kind
        made = handler(typed)
        assert bytes(made.result(good))
        with pytest.raises(BadResult) as refused:
            made.result(bad)
        assert refused.value.error.type == "InvalidResult"
