"""Fitting: a document with many rows in one message of the bus.

An answer that is too large is not sent, so whoever asked would wait and never learn why.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec


def fitting(document: dict[str, Any], rows_of: str, importance: Callable[[dict[str, Any]], float], limit: int) -> bytes:
    """JSON of the document within `limit` bytes, with `left_out`: how many of its rows had to go.

    Rows of one task type go before those of all; among them the least important ones. The order of rows stays.
    """
    rows: list[dict[str, Any]] = document[rows_of]
    data = msgspec.json.encode({**document, "left_out": 0})
    kept = len(rows)
    if len(data) <= limit:
        return data
    ranked = sorted(range(kept), key=lambda place: (rows[place].get("task_type") is not None, -importance(rows[place])))
    while len(data) > limit and kept > 0:
        kept = min(kept - 1, int(kept * limit / len(data)))
        chosen = set(ranked[:kept])
        some = [row for place, row in enumerate(rows) if place in chosen]
        data = msgspec.json.encode({**document, rows_of: some, "left_out": len(rows) - kept})
    return data
