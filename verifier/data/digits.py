"""The 8x8 digits that scikit-learn ships (UCI Optical Recognition of Handwritten Digits, Alpaydin & Kaynak 1998)."""

from __future__ import annotations

import numpy as np

from verifier.data.dataset import Inputs
from verifier.data.labels import Labels


def read_digits(split: str) -> tuple[Inputs, Labels]:
    """Return inputs `(n, 64)` in [0, 1] and labels: the held-out 360 (`test`) or the other 1,437 (`train`).

    The 20 % are held out with stratification and a fixed seed. The stored 0..16 divide by 16 without rounding.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, classes = load_digits(return_X_y=True)
    inputs, labels = (pixels / 16.0).astype(np.float32), classes.astype(np.int64)
    train_x, test_x, train_y, test_y = train_test_split(inputs, labels, test_size=0.2, random_state=0, stratify=labels)
    return (test_x, test_y) if split == "test" else (train_x, train_y)
