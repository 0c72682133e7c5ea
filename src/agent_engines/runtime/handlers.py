"""Handlers: a user's function, read once at registration: how to call it, what it takes, what it promises.

Accepted shapes: `()`, `(payload)`, `(context)`, `(context, payload)`; `async def`, plain `def`, partials, callable objects.
"""

from __future__ import annotations

import functools
import inspect
import math
import typing
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, cast

import msgspec

from agent_engines.domain.agents import Capability
from agent_engines.domain.errors import InvalidRequest
from agent_engines.domain.tasks import MAX_TASK_TYPE_LENGTH, TaskError
from agent_engines.domain.validation import check_name

from .context import TaskContext
from .results import MAX_RESULT_BYTES, BadResult, encoded

CONTEXT_NAMES = frozenset({"context", "ctx"})
POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
UNCHECKED: tuple[Any, ...] = (Any, object, inspect.Parameter.empty)
MAX_ATTEMPTS = 100
ANY_OBJECT: tuple[Any, ...] = (dict, dict[str, Any], dict[Any, Any], dict[str, object], typing.Dict[str, Any])  # noqa: UP006
ANY_LIST: tuple[Any, ...] = (list, list[Any], list[object])

Decode = Callable[[msgspec.Raw], Any]


class BadPayload(Exception):
    """The payload does not fit the handler's annotation; `error` is what the task fails with."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.error = TaskError(type="InvalidPayload", message=detail, retryable=False)


class Handler:
    """One task type's function with its rules; `capability` is what the agent tells the fleet about it."""

    __slots__ = ("_check", "_decode", "capability", "function", "is_async", "label", "takes_context", "takes_payload")

    def __init__(
        self, function: Callable[..., Any], capability: Capability, *, names: Mapping[str, Any] | None = None
    ) -> None:
        """`names`: local names annotations may refer to. Raises InvalidRequest when the function cannot be a handler."""
        _check_rules(capability)
        self.function = function
        self.capability = capability
        self.label = f"handle {capability.task_type}"
        self.is_async = _is_async(function)
        shape = _Shape(function, capability.task_type, names or {})
        self.takes_context = shape.takes_context
        self.takes_payload = shape.takes_payload
        self._decode = _payload_decoder(shape.payload_type, capability.task_type)
        self._check = _result_check(shape.result_type)

    def arguments(self, context: TaskContext | None, payload: msgspec.Raw) -> tuple[Any, ...]:
        """Positional arguments of one call. Raises BadPayload with the place that does not fit."""
        if not self.takes_payload:
            return (context,) if self.takes_context else ()
        try:
            value = self._decode(payload)
        except (msgspec.DecodeError, ValueError, TypeError, RecursionError) as error:
            raise BadPayload(f"payload: {_explained(error)}") from error
        return (context, value) if self.takes_context else (value,)

    def result(self, value: Any, *, limit: int = MAX_RESULT_BYTES) -> msgspec.Raw:
        """The JSON of what the function returned. Raises BadResult."""
        data = encoded(value, limit=limit)
        if self._check is not None:
            try:
                self._check(value, data)
            except (msgspec.DecodeError, ValueError, TypeError) as error:
                raise BadResult("InvalidResult", f"the result does not fit: {_explained(error)}") from error
        return data


class _Shape:
    """Which arguments a function takes, and their types."""

    def __init__(self, function: Callable[..., Any], task_type: str, names: Mapping[str, Any]) -> None:
        self._task_type = task_type
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError) as error:
            raise self._bad(f"{function!r} cannot be called as a handler: {error}") from error
        hints = self._hints(function, names)
        required = [one for one in signature.parameters.values() if _is_required(one)]
        if len(required) > 2 or any(one.kind is inspect.Parameter.KEYWORD_ONLY for one in required):
            raise self._bad("a handler takes (payload), (context, payload), (context) or nothing")
        kinds = {name: hints.get(name, one.annotation) for name, one in signature.parameters.items()}
        wanted = self._with_optional_payload(required, signature, kinds)
        self.takes_context = bool(wanted) and self._is_context(wanted[0].name, kinds[wanted[0].name], len(wanted))
        if len(wanted) == 2 and kinds[wanted[1].name] is TaskContext:
            raise self._bad("the context comes first: (context, payload)")
        payloads = wanted[1:] if self.takes_context else wanted
        self.takes_payload = bool(payloads)
        self.payload_type: Any = kinds[payloads[0].name] if payloads else Any
        self.result_type: Any = hints.get("return", Any)

    def _with_optional_payload(
        self, required: list[inspect.Parameter], signature: inspect.Signature, kinds: dict[str, Any]
    ) -> list[inspect.Parameter]:
        """A payload that has a default is still the payload: `(payload=None)`, `(context, payload=None)`."""
        first = required[0] if required else None
        if len(required) == 2 or (first is not None and not self._is_context(first.name, kinds[first.name], 1)):
            return required
        optional = [one for one in signature.parameters.values() if one.kind in POSITIONAL and one not in required]
        return required + optional[:1]

    def _is_context(self, name: str, kind: Any, count: int) -> bool:
        return count == 2 or kind is TaskContext or (kind in UNCHECKED and name in CONTEXT_NAMES)

    def _hints(self, function: Callable[..., Any], names: Mapping[str, Any]) -> dict[str, Any]:
        target = _annotated(function)
        # People import TaskContext under TYPE_CHECKING; their annotation must still be found.
        scope = {"TaskContext": TaskContext, **getattr(target, "__globals__", {})}
        try:
            return typing.get_type_hints(target, scope, dict(names), include_extras=True)
        except NameError as error:
            raise self._bad(f"an annotation names something unknown here: {error}") from error
        except TypeError as error:
            raise self._bad(f"an annotation is not a type: {error}") from error

    def _bad(self, detail: str) -> InvalidRequest:
        return InvalidRequest(f"handler of {self._task_type!r}: {detail}", field="handler")


def _check_rules(rules: Capability) -> None:
    check_name("task_type", rules.task_type, MAX_TASK_TYPE_LENGTH)
    if rules.task_type != rules.task_type.strip(" "):
        raise InvalidRequest("task_type begins or ends with a space", field="task_type")
    # Whatever people pass to a decorator arrives here unchecked.
    attempts, limit = cast("tuple[object, object]", (rules.max_attempts, rules.timeout_seconds))
    if isinstance(attempts, bool) or not isinstance(attempts, int) or not 1 <= attempts <= MAX_ATTEMPTS:
        raise InvalidRequest(f"max_attempts must be from 1 to {MAX_ATTEMPTS}, not {attempts!r}", field="max_attempts")
    if limit is not None and not (isinstance(limit, int | float) and 0 < limit < math.inf):
        raise InvalidRequest(f"timeout_seconds must be above 0, not {limit!r}", field="timeout_seconds")


def _is_required(parameter: inspect.Parameter) -> bool:
    variable = parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return parameter.default is inspect.Parameter.empty and not variable


def _unwrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _annotated(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function object whose annotations count: inside partials, and a callable object's `__call__`."""
    inner = inspect.unwrap(_unwrapped(function))
    if inspect.isroutine(inner):
        return getattr(inner, "__func__", inner)
    return getattr(type(inner).__call__, "__func__", type(inner).__call__)


def _is_async(function: Callable[..., Any]) -> bool:
    inner = _unwrapped(function)
    if not callable(inner) or isinstance(inner, type):
        raise InvalidRequest(f"a handler is a function or a callable object, not {inner!r}", field="handler")
    body = inner if inspect.isroutine(inner) else type(inner).__call__
    if inspect.isasyncgenfunction(body) or inspect.isgeneratorfunction(body):
        raise InvalidRequest("a handler returns its result; generators are not supported", field="handler")
    return inspect.iscoroutinefunction(body)


def _is_model(kind: Any) -> bool:
    """A pydantic model, without importing pydantic."""
    return isinstance(kind, type) and hasattr(kind, "model_validate") and hasattr(kind, "model_validate_json")


def _decode_other(kind: type, value: Any) -> Any:
    """Pydantic models inside other annotations, e.g. list[Model]."""
    if _is_model(kind):
        return kind.model_validate(value)  # type: ignore[attr-defined]
    raise TypeError(f"{kind.__qualname__} cannot be read from JSON")


def _payload_decoder(kind: Any, task_type: str) -> Decode:
    if kind in UNCHECKED:
        return msgspec.json.Decoder().decode
    if kind is msgspec.Raw:
        return lambda raw: raw
    if _is_model(kind):
        # Model.model_validate_json reads bytes, and a Raw is only a view of some.
        validate: Callable[[bytes], Any] = kind.model_validate_json
        return lambda raw: validate(bytes(raw))
    try:
        return msgspec.json.Decoder(kind, dec_hook=_decode_other).decode
    except TypeError as error:
        raise InvalidRequest(f"handler of {task_type!r}: the payload type {kind!r} is not usable: {error}") from error


def _result_check(kind: Any) -> Callable[[Any, msgspec.Raw], None] | None:
    """A check that the JSON of a result fits the return annotation; None when there is nothing to check."""
    if typing.get_origin(kind) in (Awaitable, Coroutine):
        kind = typing.get_args(kind)[-1]
    if kind in UNCHECKED or kind in (msgspec.Raw, typing.NoReturn):
        return None
    if kind in ANY_OBJECT or kind in ANY_LIST:
        return functools.partial(_check_plain, dict if kind in ANY_OBJECT else list)
    decode: Decode
    if _is_model(kind):
        validate: Callable[[bytes], Any] = kind.model_validate_json
        decode = lambda raw: validate(bytes(raw))  # noqa: E731
    else:
        try:
            decode = msgspec.json.Decoder(kind, dec_hook=_decode_other).decode
        except TypeError:
            # Unions msgspec cannot tell apart and the like: the annotation is then documentation only.
            return None
    return functools.partial(_check_decoded, kind, decode)


def _check_plain(kind: type, value: Any, data: msgspec.Raw) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"expected `{kind.__name__}`, got `{type(value).__qualname__}`")


def _check_decoded(kind: Any, decode: Decode, value: Any, data: msgspec.Raw) -> None:
    """An object of the very class that was promised needs no second look; anything else must read as one."""
    if type(value) is not kind:
        decode(data)


def _explained(error: Exception) -> str:
    """One line with the place: msgspec says `$.field` itself, pydantic has `errors()`."""
    listed = getattr(error, "errors", None)
    if not callable(listed):
        return str(error)
    problems = cast("list[dict[str, Any]]", listed())
    told = [f"{one['msg']} - at `${''.join(_step(step) for step in one['loc'])}`" for one in problems[:3]]
    return "; ".join(told)


def _step(step: object) -> str:
    return f"[{step}]" if isinstance(step, int) else f".{step}"
