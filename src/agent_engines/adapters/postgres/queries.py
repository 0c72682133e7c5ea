"""The named queries: each has a name, a reason, and a place in `sql/`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

_NAME = "-- name: "
_WHY = "-- why: "


@cache
def queries() -> Mapping[str, str]:
    """All queries by name, read once. Raises ValueError for a query without a reason, or two of one name."""
    found: dict[str, str] = {}
    for file in sorted((Path(__file__).parent / "sql").glob("*.sql")):
        for name, text in _split(file.read_text("utf-8")):
            if name in found:
                raise ValueError(f"two queries are named {name!r}")
            if not text.startswith(_WHY):
                raise ValueError(f"query {name!r} does not say why it is there")
            found[name] = text
    return MappingProxyType(found)


def _split(text: str) -> Iterator[tuple[str, str]]:
    for part in text.split(_NAME)[1:]:
        name, _, body = part.partition("\n")
        yield name.strip(), body.strip().removesuffix(";")
