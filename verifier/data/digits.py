"""The 8x8 digits of scikit-learn (UCI Optical Recognition of Handwritten Digits, Alpaydin & Kaynak 1998, CC BY 4.0).

They lie beside this file as they were split: a stratified fifth held out by scikit-learn's `train_test_split` with
seed 0, so that reading them loads no scikit-learn.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from verifier.data.dataset import Inputs
from verifier.data.labels import Labels
from verifier.npz import read_npz_file


def read_digits(split: str) -> tuple[Inputs, Labels]:
    """Return inputs `(n, 64)` in [0, 1] and labels: the held-out 360 (`test`) or the other 1,437 (`train`).

    The stored 0..16 divide by 16 without rounding.
    """
    arrays = read_npz_file(Path(__file__).with_name("digits.npz"))
    part = "test" if split == "test" else "train"
    return (arrays[f"{part}_x"] / 16.0).astype(np.float32), arrays[f"{part}_y"].astype(np.int64)
