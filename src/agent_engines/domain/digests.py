"""Digests: SHA-1 and SHA-256 as CPython itself brings them, hashlib's where a build has left them out.

hashlib's are OpenSSL's. Alone in a loop they are as quick; between the other steps of a task, with cold caches, a short
message costs a third less here: there is far less code to fetch. For short messages on the hot path only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib import import_module
from typing import Any


def _brought(name: str, *modules: str) -> Callable[..., Any]:
    for module in modules:
        try:
            return getattr(import_module(module), name)
        except ImportError:
            pass
    return getattr(hashlib, name)


sha1 = _brought("sha1", "_sha1")
sha256 = _brought("sha256", "_sha2", "_sha256")
"""Python 3.12 has both sizes in one module."""
