"""Arrays are written as PostgreSQL receives them, and read as it sends them."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernel_house import loaded

ONCE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
KINDS: dict[str, tuple[int, st.SearchStrategy[Any], Callable[[Any], bytes]]] = {
    "texts": (25, TEXTS, str.encode),
    "int4s": (23, st.integers(-(2**31), 2**31 - 1), struct.Struct(">i").pack),
    "int8s": (20, st.integers(-(2**63), 2**63 - 1), struct.Struct(">q").pack),
    "float8s": (701, st.floats(), struct.Struct(">d").pack),
    "bools": (16, st.booleans(), struct.Struct(">?").pack),
    "byteas": (17, st.binary(), bytes),
}


@pytest.fixture(scope="session")
def kernel(built: Path) -> ModuleType:
    return loaded(built, "agent_engines.adapters.postgres")


def plainly(oid: int, elements: list[bytes | None]) -> bytes:
    """array_send of PostgreSQL, for one dimension."""
    if not elements:
        return struct.pack(">3i", 0, 0, oid)
    parts = [struct.pack(">5i", 1, 0, oid, len(elements), 1)]
    parts += [struct.pack(">i", -1 if one is None else len(one)) + (one or b"") for one in elements]
    return b"".join(parts)


def same(one: list[Any], other: list[Any]) -> bool:
    """NaN is NaN, and -0.0 is not 0.0."""
    return list(map(repr, one)) == list(map(repr, other))


@ONCE
@given(st.data(), st.sampled_from(sorted(KINDS)))
def test_an_array_is_written_as_postgresql_would_and_read_back(kernel: ModuleType, data: Any, kind: str) -> None:
    oid, values, packed = KINDS[kind]
    array = data.draw(st.lists(values | st.none(), max_size=30))
    written = getattr(kernel, kind)(array)
    assert written == plainly(oid, [None if value is None else packed(value) for value in array])
    assert same(kernel.read(written), array)
    assert getattr(kernel, kind)(tuple(array)) == written


def test_many_and_long_elements_fit(kernel: ModuleType) -> None:
    texts = ["é" * size for size in range(1000)]
    assert kernel.read(kernel.texts(texts)) == texts


@ONCE
@given(st.binary(max_size=80))
def test_bytes_that_are_no_array_are_refused_or_read(kernel: ModuleType, data: bytes) -> None:
    for begin in (b"", struct.pack(">5i", 1, 0, 25, 3, 1), struct.pack(">7i", 2, 0, 23, 2, 1, 2, 1)):
        try:
            assert isinstance(kernel.read(begin + data), list)
        except ValueError:
            pass


@ONCE
@given(st.data(), st.sampled_from(sorted(KINDS)), st.integers(1, 60))
def test_an_array_that_was_cut_off_is_refused(kernel: ModuleType, data: Any, kind: str, cut: int) -> None:
    array = data.draw(st.lists(KINDS[kind][1] | st.none(), min_size=1, max_size=5))
    written = getattr(kernel, kind)(array)
    with pytest.raises(ValueError):
        kernel.read(written[: max(0, len(written) - cut)])


def test_more_dimensions_are_read_as_lists_of_lists(kernel: ModuleType) -> None:
    elements = b"".join(struct.pack(">2i", 4, number) for number in range(6))
    assert kernel.read(struct.pack(">7i", 2, 0, 23, 2, 1, 3, 5) + elements) == [[0, 1, 2], [3, 4, 5]]
    assert kernel.read(struct.pack(">7i", 2, 0, 23, 2, 1, 0, 1)) == []
    for dimensions in (-1, 7, 2**31 - 1):
        with pytest.raises(ValueError):
            kernel.read(struct.pack(">3i", dimensions, 0, 23) + struct.pack(">2i", 1, 1) * 8)
    with pytest.raises(ValueError):
        kernel.read(struct.pack(">5i", 1, 0, 23, -1, 1))
    with pytest.raises(ValueError):
        kernel.read(struct.pack(">3i", 1, 0, 1043) + struct.pack(">2i", 1, 1) + struct.pack(">i", 1) + b"x")


WRONG: list[tuple[str, Any]] = [
    ("texts", ["a", 1]),
    ("texts", ["a", b"b"]),
    ("texts", [["nested"]]),
    ("texts", ["\ud800"]),
    ("texts", "text"),
    ("texts", {"a": 1}),
    ("texts", (text for text in "ab")),
    ("texts", 1),
    ("int4s", [2**31]),
    ("int4s", [-(2**31) - 1]),
    ("int4s", [2**70]),
    ("int4s", ["1"]),
    ("int4s", [math.inf]),
    ("int8s", [2**63]),
    ("int8s", [-(2**63) - 1]),
    ("float8s", ["1.0"]),
    ("float8s", [10**400]),
    ("bools", [1]),
    ("byteas", ["text"]),
]


@pytest.mark.parametrize(("kind", "array"), WRONG)
def test_what_is_not_of_the_type_is_refused(kernel: ModuleType, kind: str, array: Any) -> None:
    with pytest.raises((TypeError, ValueError, OverflowError)):
        getattr(kernel, kind)(array)


def test_the_wrong_element_is_named(kernel: ModuleType) -> None:
    with pytest.raises(ValueError, match="invalid array element at index 2: expected str, got int"):
        kernel.texts(["a", None, 7])


def test_an_element_may_empty_the_list_it_is_in(kernel: ModuleType) -> None:
    class Odd:
        def __float__(self) -> float:
            numbers.clear()
            return 1.0

        __int__ = __float__  # type: ignore[assignment]

    for write in (kernel.float8s, kernel.int4s):
        numbers: list[Any] = [Odd(), Odd()]
        with pytest.raises((IndexError, TypeError, ValueError)):
            write(numbers)
