"""Masking for what leaves the house: secrets we know, letter for letter, and whatever has the shape of one.

Shapes alone miss a password in a stranger's sentence; known secrets alone miss somebody else's token. Both are used, and
the known ones last, over the finished text, so that no step before can bring one back.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote

import msgspec

from .redaction import MASK, redacted, redacted_text

SHORTEST = 4
"""A shorter secret cannot be told from ordinary words."""
ALONE = 8
"""A word shorter than this is looked for as a whole word: `1234` is not to be found in every size of a file."""
NO_SECRETS = frozenset({"true", "false", "null", "none"})
DEPTH = 24
_SHAPES = re.compile(
    r"\bS[UAONC][A-Z2-7]{56}\b"  # an nkey seed
    r"|\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"  # a token of three parts
    r"|\bae_[A-Za-z0-9]+_[A-Za-z0-9_-]{16,}"  # an API key
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----[^-]*(?:-----END [A-Z ]*PRIVATE KEY-----)?"
)
_QUOTED = re.compile(
    r"(?i)([\"'][\w.-]*(?:passw|secret|token|api[_-]?key|credential|authorization)[\w.-]*[\"']\s*:\s*)(\"(?:[^\"\\]|\\.)*\"|'[^']*')"
)


class Masker:
    """`secrets`: what must not occur in anything that goes through here."""

    def __init__(self, secrets: Iterable[str]) -> None:
        told = {secret for secret in secrets if secret.lower() not in NO_SECRETS}
        forms = {form for secret in told for form in _forms(secret) if len(form) >= SHORTEST}
        # The longest first: a secret may be the beginning of another.
        ordered = sorted(forms, key=lambda form: (-len(form), form))
        self._known = re.compile("|".join(map(_pattern, ordered))) if ordered else None

    def text(self, text: str) -> str:
        """Any text; JSON lines are masked by their fields' names too."""
        masked = "\n".join(map(self._line, text.split("\n")))
        return self._letter_for_letter(_SHAPES.sub(MASK, masked))

    def json(self, value: Any) -> str:
        """A value as an indented document."""
        document = msgspec.json.format(
            msgspec.json.encode(redacted(value, depth=DEPTH), enc_hook=str), indent=2
        ).decode()
        return self._letter_for_letter(_SHAPES.sub(MASK, document))

    def _line(self, line: str) -> str:
        if line.startswith("{"):
            try:
                return msgspec.json.encode(redacted(msgspec.json.decode(line.encode()), depth=DEPTH)).decode()
            except (msgspec.MsgspecError, UnicodeEncodeError):
                pass  # Cut off, or only looks like it: then it is text.
        return redacted_text(_QUOTED.sub(rf'\1"{MASK}"', line))

    def _letter_for_letter(self, text: str) -> str:
        return text if self._known is None else self._known.sub(MASK, text)


def _pattern(form: str) -> str:
    found = re.escape(form)
    return rf"(?<![^\W_]){found}(?![^\W_])" if len(form) < ALONE and form.isalnum() else found


def _forms(secret: str) -> Iterator[str]:
    """The ways a secret is written: as it is, in a URL, in JSON, and as a basic login would carry it."""
    yield secret
    yield quote(secret, safe="")
    yield quote(secret)
    yield msgspec.json.encode(secret).decode()[1:-1]
    yield base64.b64encode(secret.encode()).decode().rstrip("=")
