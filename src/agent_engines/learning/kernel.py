"""Kernel: the arithmetic of decisions and lessons, compiled where that could be done at the installation, otherwise numpy's.

Nobody has to ask which: the same lessons leave the same bits. A kernel that was compiled from another version is not used.
"""

from __future__ import annotations

from . import arithmetic

try:
    from . import _kernel as compiled
except ImportError:
    compiled = None

COMPILED = compiled is not None and arithmetic.VERSION == compiled.VERSION
"""Whether the compiled functions are used."""
_chosen = compiled if compiled is not None and COMPILED else arithmetic

all_finite = _chosen.all_finite
encode = _chosen.encode
ridge_learn = _chosen.ridge_learn
ridge_predict = _chosen.ridge_predict
table_learn = _chosen.table_learn
table_predict = _chosen.table_predict
weigh = _chosen.weigh
