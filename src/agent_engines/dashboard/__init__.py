"""The live page for people: static files only, no build step, nothing from other hosts.

The API serves `STATIC/index.html` at `/` and the other files under `/static/`. The page needs no inline script or style and
no other origin, so the strictest content policy fits. It reads `GET /v1/overview` every two seconds while it is visible.
"""

from __future__ import annotations

from pathlib import Path

STATIC = Path(__file__).parent / "static"
