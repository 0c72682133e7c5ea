"""Looks at bytes and names, compiled and in Python: both see what the plainest words for it say."""

from __future__ import annotations

import re
import uuid
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agent_engines.domain import looks
from agent_engines.domain.task_names import TASK_NAMESPACE, task_id_of
from kernel_house import loaded

BOTH = settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
SUSPECT = st.text('eE+-0123456789.x "[{\\u', max_size=60).map(str.encode)
ESCAPED = st.lists(st.sampled_from([b"\\u0000", b"\\", b"u0", b"000", "é".encode(), b"\0", b"1", b"["])).map(b"".join)
LONG = st.tuples(st.binary(max_size=5), st.integers(305, 312), st.binary(max_size=5)).map(
    lambda parts: parts[0] + b"7" * parts[1] + parts[2]
)
SEVEN = "018f3b1c-9e2a-7abc-8def-0123456789ab"
NEARLY = st.tuples(st.integers(0, 35), st.sampled_from("0af7-gA\0é\ud800")).map(
    lambda change: SEVEN[: change[0]] + change[1] + SEVEN[change[0] + 1 :]
)
MOMENTS = st.integers(0, 2**48 - 1)


@pytest.fixture(scope="session")
def compiled(built: Path) -> ModuleType:
    return loaded(built, "agent_engines.domain")


@pytest.fixture(params=["python", "compiled"])
def kernel(request: pytest.FixtureRequest) -> ModuleType:
    return looks if request.param == "python" else request.getfixturevalue("compiled")


def seven(milliseconds: int) -> str:
    """A version 7 UUID of this moment."""
    text = f"{milliseconds:012x}"
    return f"{text[:8]}-{text[8:]}{SEVEN[13:]}"


@BOTH
@given(SUSPECT | ESCAPED | LONG | st.binary(max_size=60), st.integers(0, 4))
@example(b"", 0)
@example(b"e+999", 0)
@example(b"+999", 0)
@example(b"999", 0)
@example(b"[" * 3 + b"\\u000", 3)
def test_what_is_seen_in_bytes_is_there(kernel: ModuleType, data: bytes, limit: int) -> None:
    brackets = len(re.findall(rb"[\[{]", data))
    number = re.search(rb"[0-9]{309}|[eE][+-]?[0-9]{3}", data) is not None
    wanted = {
        looks.NOT_ASCII: max(data, default=0) > 127,
        looks.NUL: b"\\u0000" in data,
        looks.DEEP: brackets > limit,
        looks.NUMBER: number,
    }
    assert kernel.seen(data, limit) == sum(flag for flag, there in wanted.items() if there)
    assert kernel.shallow(data, limit) is (brackets <= limit)


@BOTH
@given(st.text() | NEARLY | MOMENTS.map(seven), st.binary(min_size=20, max_size=20))
def test_a_name_is_the_uuid_of_its_digest(kernel: ModuleType, key: str, digest: bytes) -> None:
    moment = kernel.moment_of(key)
    plain = str(uuid.UUID(bytes=digest[:16], version=5))
    assert kernel.name_of(digest, key) == (plain if moment is None else f"{key[:13]}-7{plain[15:]}")
    assert (moment is not None) == (re.fullmatch("[0-9a-f-]{36}", key) is not None and key == as_seven(key))


def as_seven(key: str) -> str | None:
    """The key again when it is a version 7 UUID as those are written."""
    try:
        found = uuid.UUID(key)
    except ValueError:
        return None
    return str(found) if found.version == 7 and found.variant == uuid.RFC_4122 else None


@BOTH
@given(MOMENTS)
def test_a_moment_is_read_to_the_bit(kernel: ModuleType, milliseconds: int) -> None:
    assert kernel.moment_of(seven(milliseconds)) == milliseconds / 1000.0


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_the_id_of_a_key_is_its_version_5_uuid(key: str) -> None:
    assert task_id_of(key) == str(uuid.uuid5(TASK_NAMESPACE, key))


def test_ids_are_those_of_earlier_releases() -> None:
    assert task_id_of("order-17") == "46abafac-14bb-5e67-8539-ff49f732f08f"
    assert task_id_of(SEVEN) == "018f3b1c-9e2a-70ca-abb9-eeee52945384"


def test_what_is_no_text_is_refused(compiled: ModuleType) -> None:
    wrong = [
        ("seen", (b"",)),
        ("seen", ("text", 1)),
        ("seen", (b"", "many")),
        ("shallow", (None, 1)),
        ("name_of", (b"short", "key")),
        ("name_of", ("x" * 20, "key")),
        ("name_of", (b"x" * 20, 7)),
        ("moment_of", (None,)),
    ]
    for name, given_ in wrong:
        with pytest.raises((TypeError, ValueError)):
            getattr(compiled, name)(*given_)
