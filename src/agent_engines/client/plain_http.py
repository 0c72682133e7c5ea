"""HTTP as it is, for those who must see every answer: no retry, no translation of errors, one pool of connections."""

from __future__ import annotations

import httpx2

PlainHttp = httpx2.AsyncClient
HttpFailure = httpx2.HTTPError
"""No answer: refused, cut off, too late."""


def plain_http(url: str, *, seconds: float = 30.0, api_key: str | None = None) -> PlainHttp:
    """A client of the API at `url` that waits `seconds` for each answer; to be closed by `async with`."""
    headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
    return httpx2.AsyncClient(base_url=url.rstrip("/"), timeout=seconds, headers=headers)
