"""The digests we take are those everybody means, whoever brings them."""

from __future__ import annotations

import hashlib

import pytest

from agent_engines.domain import digests


@pytest.mark.parametrize("size", [0, 1, 55, 56, 63, 64, 65, 200, 5000])
def test_a_digest_is_hashlibs_also_when_it_is_taken_from_a_copy(size: int) -> None:
    data = bytes(range(256)) * 20
    for name in ("sha1", "sha256"):
        taken = getattr(digests, name)(data[:size], usedforsecurity=False).copy()
        taken.update(b"more")
        assert taken.hexdigest() == hashlib.new(name, data[:size] + b"more").hexdigest()


def test_where_python_brings_none_hashlib_does() -> None:
    assert digests._brought("sha256", "no_such_module") is hashlib.sha256
