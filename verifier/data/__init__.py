"""Labelled inputs: the named data, `.npz` and `.csv` files and arrays, checked once and read-only from then on.

    load_data       a name (`digits`, `mnist`, `fashion-mnist`, `cifar10`) or a file -> Dataset
    from_arrays     arrays a caller holds -> Dataset
    as_dataset      anything a caller may give (the above, DataLoader, iterables of (x, y)) -> Dataset
    Dataset         inputs, labels, the domain they are clipped to, and what was done to them
    LAYOUTS         what `Dataset.fit_to(shape, layout)` takes: nchw, nhwc
    check_labels    whether the labels fit a number of classes
    DataError       what every refusal raises

Imports no torch; pooch is imported where it is used. Nothing here ever unpickles.
"""

from verifier.data.arrays import from_arrays
from verifier.data.dataset import Dataset, check_labels
from verifier.data.error import DataError
from verifier.data.given import as_dataset
from verifier.data.layout import LAYOUTS
from verifier.data.load import NAMES, load_data

__all__ = ["LAYOUTS", "NAMES", "DataError", "Dataset", "as_dataset", "check_labels", "from_arrays", "load_data"]
