"""Four ways to read an 8 x 8 digit: the cheaper, the less right. All of them really compute what they answer.

The data are the 1,797 handwritten digits that come with scikit-learn (Alpaydin and Kaynak 1998, UCI, CC BY 4.0): 600 to
learn from, 1,197 as work. Split and models are deterministic.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

PIXELS = 64
BRIGHTEST = 16
TRAINING = 600
SEED = 2026
SHIFT = 0.25
"""How far a view is moved in the support vector machine's augmentation, in pixels."""

Images: TypeAlias = NDArray[np.float64]
Model: TypeAlias = Callable[[Images], NDArray[np.int64]]
"""Rows of 64 values 0..1 -> one digit a row."""


@lru_cache(maxsize=1)
def digits() -> tuple[Images, NDArray[np.int64], Images, NDArray[np.int64]]:
    """Training images and labels, then those that are the work; pixels as in the file, 0..16."""
    data: Any = load_digits()
    order = np.random.default_rng(SEED).permutation(len(data.target))
    images, labels = data.data[order], data.target[order].astype(np.int64)
    return images[:TRAINING], labels[:TRAINING], images[TRAINING:], labels[TRAINING:]


def nearest_centroid() -> Model:
    """The class whose mean image is nearest."""
    images, labels = _training()
    centres = np.stack([images[labels == digit].mean(axis=0) for digit in range(10)])

    def read(rows: Images) -> NDArray[np.int64]:
        distances = np.square(rows[:, None, :] - centres[None, :, :]).sum(axis=2)
        return distances.argmin(axis=1)

    return read


def logistic() -> Model:
    """Multinomial logistic regression."""
    return _fitted(LogisticRegression(C=0.5, max_iter=300)).predict


def forest() -> Model:
    """Sixty trees that vote."""
    return _fitted(RandomForestClassifier(n_estimators=60, random_state=SEED)).predict


def svm() -> Model:
    """A support vector machine that learned from nine slightly moved views of each digit and looks at nine of each."""
    images, labels = _training()
    options: dict[str, Any] = {"C": 10.0, "gamma": 0.06}
    machine: Any = SVC(**options)
    machine.fit(np.vstack(views(images)), np.tile(labels, 9))

    def read(rows: Images) -> NDArray[np.int64]:
        votes = machine.decision_function(np.vstack(views(rows))).reshape(9, len(rows), 10)
        return votes.sum(axis=0).argmax(axis=1)

    return read


def views(rows: Images) -> list[Images]:
    """Each image as it is, and moved by a quarter of a pixel to its eight sides."""
    padded = np.pad(rows.reshape(-1, 8, 8), ((0, 0), (1, 1), (1, 1)))
    here = padded[:, 1:9, 1:9]
    moved = (padded[:, y : y + 8, x : x + 8] for y in range(3) for x in range(3) if (y, x) != (1, 1))
    return [rows, *(((1 - SHIFT) * here + SHIFT * there).reshape(-1, PIXELS) for there in moved)]


def one_thread() -> None:
    """Keep this process's arithmetic on one core: the fleet is what runs in parallel."""
    threadpool_limits(1)


def _training() -> tuple[Images, NDArray[np.int64]]:
    images, labels, _, _ = digits()
    return images / BRIGHTEST, labels


def _fitted(model: Any) -> Any:
    model.fit(*_training())
    return model
