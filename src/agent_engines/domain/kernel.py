"""Kernel: looks at bytes and names, compiled where that could be done at the installation, otherwise those of `looks`.

Nobody has to ask which: they answer the same. A kernel that was compiled from another version is not used.
"""

from __future__ import annotations

from . import looks

try:
    from . import _kernel as compiled
except ImportError:
    compiled = None

COMPILED = compiled is not None and looks.VERSION == compiled.VERSION
"""Whether the compiled functions are used."""
_chosen = compiled if compiled is not None and COMPILED else looks

moment_of = _chosen.moment_of
name_of = _chosen.name_of
seen = _chosen.seen
shallow = _chosen.shallow
