"""A reward model for doubly robust estimates: ridge regression per agent, fitted without the rows it predicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .features import Floats, checked

FOLDS = 5
PENALTY = 10.0
MOST_TYPES = 50
"""Task types with a column of their own; rarer ones share the intercept."""


class Encoded:
    """Contexts as rows: 1, task types one-hot, standardised numeric features (0 where a context has none)."""

    def __init__(self, contexts: Sequence[Mapping[str, Any]]) -> None:
        counts: dict[str, int] = {}
        numeric = [checked(context.get("features")) for context in contexts]
        for context in contexts:
            name = str(context.get("task_type") or "")
            counts[name] = counts.get(name, 0) + 1
        kept = sorted(counts, key=lambda name: (-counts[name], name))[:MOST_TYPES]
        column = {name: place for place, name in enumerate(kept)}
        width = max((len(row) for row in numeric if row is not None), default=0)
        self.matrix = np.zeros((len(contexts), 1 + len(kept) + width))
        self.matrix[:, 0] = 1.0
        for place, (context, row) in enumerate(zip(contexts, numeric, strict=True)):
            at = column.get(str(context.get("task_type") or ""))
            if at is not None:
                self.matrix[place, 1 + at] = 1.0
            if row is not None:
                self.matrix[place, 1 + len(kept) : 1 + len(kept) + len(row)] = row
        if width:
            part = self.matrix[:, -width:]
            part -= part.mean(axis=0)
            part /= part.std(axis=0) + 1e-9


def cross_fitted(
    contexts: Sequence[Mapping[str, Any]], agents: Sequence[str], rewards: Floats, names: Sequence[str]
) -> Floats:
    """Predicted reward of each of `names` for each row, by models that never saw the row: shape (rows, names)."""
    matrix = Encoded(contexts).matrix
    rows = len(rewards)
    predicted = np.zeros((rows, len(names)))
    folds = np.arange(rows) % FOLDS
    chosen = np.array([{name: place for place, name in enumerate(names)}.get(agent, -1) for agent in agents])
    eye = np.eye(matrix.shape[1])
    for fold in range(min(FOLDS, rows)):
        out = folds == fold
        base = float(rewards[~out].mean()) if (~out).any() else 0.0
        predicted[out] = base
        for place in range(len(names)):
            mine = ~out & (chosen == place)
            if not mine.any():
                continue
            known = matrix[mine]
            weights = np.linalg.solve(known.T @ known + PENALTY * eye, known.T @ (rewards[mine] - base))
            predicted[out, place] = base + matrix[out] @ weights
    return predicted
