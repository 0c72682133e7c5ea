"""Text as numbers: words and pairs of words hashed into a fixed number of signed columns (Weinberger et al., ICML 2009).

The first column is the logarithm of the length. Word counts enter by their square root and the vector has length 1, so a long
text does not look like a strong one. CRC-32 is the hash: the same columns on every machine.
"""

from __future__ import annotations

import math
import re
import zlib
from itertools import pairwise

import numpy as np

from .features import Floats

WORDS = 400
"""Words of the text that are read."""
CHARACTERS = 8 * WORDS
WORD = re.compile(r"\w+|[^\w\s]")


def hashed(text: str, size: int) -> Floats:
    """`size` numbers, at least 2, of a text. Raises ValueError when the size is smaller."""
    if size < 2:
        raise ValueError(f"text is {size}, it must be at least 2 columns")
    words = WORD.findall(text[:CHARACTERS].lower())[:WORDS]
    counts: dict[str, int] = {}
    for word in words:
        counts[word] = counts.get(word, 0) + 1
    for pair in pairwise(words):
        both = " ".join(pair)
        counts[both] = counts.get(both, 0) + 1
    made = np.zeros(size)
    for term, count in counts.items():
        code = zlib.crc32(term.encode())
        made[1 + (code >> 1) % (size - 1)] += math.sqrt(count) if code & 1 else -math.sqrt(count)
    length = float(np.sqrt((made * made).sum()))
    if length > 0.0:
        made /= length
    made[0] = math.log1p(len(text))
    return made
