"""Traces: the shape of the W3C header that says which trace something belongs to."""

from __future__ import annotations

import re

TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
"""version-trace-parent-flags (W3C Trace Context, 3.2); later versions may append to it, which is left out."""
