"""Pages for people: the dashboard and the API's own description. Files are read once, at start, and served from memory."""

from __future__ import annotations

import hashlib
import mimetypes
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from .exchange import Call, Reply, encode
from .routing import Operation

HERE = Path(__file__).parent / "docs_page"

# Nothing from elsewhere, nothing inline, and nobody may frame it.
SECURITY = (
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
        b"frame-ancestors 'none'",
    ),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
)
TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
"""What matters must not depend on the machine's own table of types."""


class Asset:
    """One file with its media type and a tag that changes with its content."""

    __slots__ = ("body", "media_type", "tag")

    def __init__(self, body: bytes, media_type: str) -> None:
        self.body = body
        self.media_type = media_type.encode()
        self.tag = b'"%b"' % hashlib.blake2b(body, digest_size=12).hexdigest().encode()

    async def serve(self, call: Call) -> Reply:
        if call.header(b"if-none-match") == self.tag.decode():
            reply = Reply(304)
        else:
            reply = Reply(200, self.body, self.media_type)
        reply.headers.extend(((b"etag", self.tag), (b"cache-control", b"no-cache"), *SECURITY))
        return reply


class Pages:
    """`/` and what it loads from the dashboard's folder, `/docs`, and `/openapi.json`."""

    def __init__(self, dashboard: Path | None, make_document: Callable[[], Mapping[str, Any]]) -> None:
        self._make_document = make_document
        self._document: Asset | None = None
        self._assets = {
            "/docs": asset(HERE / "index.html"),
            "/docs/docs.js": asset(HERE / "docs.js"),
            "/docs/docs.css": asset(HERE / "docs.css"),
        }
        if dashboard is not None and (dashboard / "index.html").is_file():
            self._assets |= mounted(dashboard)

    def operations(self) -> list[Operation]:
        pages = {path: found.serve for path, found in self._assets.items()}
        return [_page(path, serve) for path, serve in {**pages, "/openapi.json": self.document}.items()]

    async def document(self, call: Call) -> Reply:
        if self._document is None:
            self._document = Asset(encode(self._make_document()), "application/json")
        return await self._document.serve(call)


def mounted(folder: Path) -> dict[str, Asset]:
    """Every file of a folder under its path: `index.html` at `/`, the others at `/static/...`."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file() and not file.name.startswith("."))
    found = {f"/static/{file.relative_to(folder).as_posix()}": asset(file) for file in files}
    found["/"] = found.pop("/static/index.html")
    return found


def asset(file: Path) -> Asset:
    media_type = TYPES.get(file.suffix) or mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    if media_type.startswith("text/"):
        media_type += "; charset=utf-8"
    return Asset(file.read_bytes(), media_type)


def _page(path: str, serve: Callable[[Call], Awaitable[Reply]]) -> Operation:
    return Operation(method="GET", path=path, handler=serve, summary="", tag="pages", replies={}, probe=True)
