"""What a learner sees of a task: the caller's numbers, an embedding brought to few columns, size and requirements.

declared features ++ EMBEDDED numbers (embedding, or the words of a text) ++ log2 of the payload's bytes ++ requirements, hashed

Without features, embedding and text there is no vector: the task type alone is then the better predictor (ADR 0016).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import msgspec
import numpy as np

from .features import Floats

EMBEDDED = 32
"""Columns an embedding is brought to: a random projection keeps distances within about 1/sqrt(32) (Johnson and Lindenstrauss 1984)."""
REQUIRED = 4
"""Columns that requirements are hashed into (feature hashing, Weinberger et al., ICML 2009)."""
MOST_WORDS = 2_000
_WORD = re.compile(r"\w+")
_encode_sorted = msgspec.json.Encoder(order="deterministic").encode


def task_vector(
    features: Sequence[float] | None,
    embedding: Sequence[float] | None,
    *,
    payload_bytes: int,
    requirements: Mapping[str, Any],
) -> Floats | None:
    """The vector of one task, the same on every router; None when the caller said nothing in numbers."""
    if features is None and embedding is None:
        return None
    declared = len(features) if features is not None else 0
    size = declared + (EMBEDDED if embedding is not None else 0) + 1 + REQUIRED
    vector = np.zeros(size)
    if features is not None:
        vector[:declared] = features
    if embedding is not None:
        vector[declared : declared + EMBEDDED] = projected(embedding)
    vector[size - REQUIRED - 1] = math.log2(1.0 + payload_bytes)
    for key, wanted in requirements.items():
        place, sign = _hashed(_encode_sorted([key, wanted]), REQUIRED)
        vector[size - REQUIRED + place] += sign
    return vector


def projected(embedding: Sequence[float]) -> Floats:
    """An embedding in EMBEDDED columns; shorter ones are padded with zeros."""
    raw = np.asarray(embedding, dtype=np.float64)
    if len(raw) <= EMBEDDED:
        return np.concatenate([raw, np.zeros(EMBEDDED - len(raw))])
    return np.asarray(raw @ _projection(len(raw)), dtype=np.float64)


def hashed_text(text: str) -> tuple[float, ...]:
    """The words of a text, hashed into EMBEDDED signed counts and brought to length 1."""
    counts = [0.0] * EMBEDDED
    for word in _WORD.findall(text.lower())[:MOST_WORDS]:
        place, sign = _hashed(word.encode("utf-8", "surrogatepass"), EMBEDDED)
        counts[place] += sign
    length = math.sqrt(math.fsum(count * count for count in counts))
    return tuple(count / length for count in counts) if length > 0 else tuple(counts)


@lru_cache(maxsize=16)
def _projection(size: int) -> Floats:
    """Signs from a seed that is the size alone, so that all routers project alike; generator and bits are fixed by numpy's promise."""
    bits = np.random.Generator(np.random.PCG64(size)).integers(0, 2, size=(size, EMBEDDED))
    return np.asarray((2.0 * bits - 1.0) / math.sqrt(EMBEDDED), dtype=np.float64)


def _hashed(data: bytes, places: int) -> tuple[int, float]:
    digest = blake2b(data, digest_size=4).digest()
    number = int.from_bytes(digest, "little")
    return number % places, 1.0 if number & 0x80000000 else -1.0
