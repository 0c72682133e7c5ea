"""Looks at bytes and names in one pass each: what `kernel` falls back to where `_kernel.c` was not compiled.

What the compiled functions answer is what these do, bit for bit (tests/properties/test_looks.py).
"""

from __future__ import annotations

import re

VERSION = 1
"""Goes up with every change of a function here: a kernel that was compiled from another one is not used."""

NOT_ASCII, NUL, DEEP, NUMBER = 1, 2, 4, 8
"""What `seen` adds up."""

_NUL = b"\\u0000"
_SHAPES = bytes.maketrans(b"E+123456789", b"e-000000000")
"""Digits, signs and exponents look alike: two searches for bytes instead of an expression, a fifth of the time."""
_DIGIT = re.compile(rb"\d")
_LONG_NUMBER = re.compile(rb"(?<!\d)\d{309}")
_ORDERED = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def seen(data: bytes, depth: int) -> int:
    """What JSON bytes should be looked at again for, as a sum; 0 for most.

    NOT_ASCII: any such byte. NUL: its escape. DEEP: more than `depth` opening brackets. NUMBER: 309 digits in a row, or
    something like an exponent of three digits. Strings are looked at like everything else.
    """
    shapes = data.translate(_SHAPES)
    # 309 digits in a row touch one of every 309 bytes: where those hold no digit, the rest need not be read.
    long = len(data) > 308 and _DIGIT.search(data[::309]) and _LONG_NUMBER.search(data)
    return (
        (0 if data.isascii() else NOT_ASCII)
        + (NUL if _NUL in data else 0)
        + (0 if shallow(data, depth) else DEEP)
        + (NUMBER if long or b"e000" in shapes or b"e-000" in shapes else 0)
    )


def shallow(data: bytes, limit: int) -> bool:
    """Whether there are at most so many opening brackets. Found one by one: counting looks at every byte of a long text."""
    found = 0
    for bracket in (b"[", b"{"):
        at = data.find(bracket)
        while at >= 0:
            found += 1
            if found > limit:
                return False
            at = data.find(bracket, at + 1)
    return True


def name_of(digest: bytes, key: str) -> str:
    """A UUID of these 20 bytes: version 7 with the moment of a key that is one itself, otherwise version 5."""
    text = digest.hex()
    variant = "89ab"[int(text[16], 16) & 3]
    begin = f"{key[:13]}-7" if _ordered(key) else f"{text[:8]}-{text[8:12]}-5"
    return f"{begin}{text[13:16]}-{variant}{text[17:20]}-{text[20:32]}"


def moment_of(key: str) -> float | None:
    """Epoch seconds at which a version 7 UUID was made; None for any other key."""
    return int(key[:8] + key[9:13], 16) / 1000.0 if _ordered(key) else None


def _ordered(key: str) -> bool:
    return len(key) == 36 and _ORDERED.fullmatch(key) is not None
