"""A confirmed counterexample as people and other tools get it: arrays, confidences, and the file that holds many."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from encoders.files import write_atomically


@dataclass(frozen=True, eq=False)
class AdversarialExample:
    """A confirmed counterexample of the input at `index` of the data.

    prediction: the class that the user's model gives the point; where that is the label, another class ties with it.
    distance: from the input, in the norm of the attack, rounded up.
    """

    index: int
    original: np.ndarray
    point: np.ndarray
    distance: float
    label: int
    prediction: int


@dataclass(frozen=True, eq=False)
class Exhibit:
    """An example with the model's confidence in the label at the input, and in the prediction at the point."""

    example: AdversarialExample
    confidence_before: float
    confidence_after: float


def confidences(outputs: np.ndarray) -> np.ndarray:
    """Return shares `(batch, classes)`: the outputs where they are probabilities already, else their softmax."""
    values = outputs.astype(np.float64)
    if bool((values >= 0).all()) and np.allclose(values.sum(axis=1), 1.0, atol=1e-3):
        return values
    shifted = np.exp(values - values.max(axis=1, keepdims=True))
    shares: np.ndarray = shifted / shifted.sum(axis=1, keepdims=True)
    return shares


def write_examples(path: Path, examples: Sequence[AdversarialExample], shape: Sequence[int]) -> None:
    """Write the arrays index, x, distance, label and prediction, one row for each example, in one atomic step."""
    content = io.BytesIO()
    np.savez(
        content,
        allow_pickle=False,
        index=np.array([e.index for e in examples], dtype=np.int64),
        x=np.stack([e.point for e in examples]) if examples else np.empty((0, *shape), dtype=np.float32),
        distance=np.array([e.distance for e in examples], dtype=np.float64),
        label=np.array([e.label for e in examples], dtype=np.int64),
        prediction=np.array([e.prediction for e in examples], dtype=np.int64),
    )
    write_atomically(path, content.getvalue())
