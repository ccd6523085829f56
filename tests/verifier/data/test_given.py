"""Whatever gives (x, y) is data, with the same digest as the arrays themselves; the rest is refused with the remedy."""

import itertools
import subprocess
import sys
from collections import namedtuple

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, IterableDataset, Subset, TensorDataset
from torch.utils.data import Dataset as TorchDataset

from encoders.limits import LimitError, Limits
from verifier.data import DataError, Dataset, as_dataset, from_arrays, load_data

X = np.random.default_rng(5).random((7, 3, 2, 2), np.float32)
Y = np.array([0, 3, 1, 2, 4, 0, 1])
TX, TY = torch.tensor(X), torch.tensor(Y)
EXPECTED = from_arrays(X, Y).digest
Pair = namedtuple("Pair", "image target")


class Samples(TorchDataset):
    """A map-style data set that never raises IndexError, as many do not."""

    def __len__(self):
        return len(X)

    def __getitem__(self, position):
        return TX[position % len(X)], int(Y[position % len(X)])


class Stream(IterableDataset):
    def __iter__(self):
        return zip(TX, TY, strict=True)


class Positions:
    """Positions and a length, and no iterator."""

    def __len__(self):
        return len(X)

    def __getitem__(self, position):
        return X[position], Y[position]


def batches(size, kind=tuple):
    return [kind((X[i : i + size], Y[i : i + size])) for i in range(0, len(X), size)]


FORMS = {
    "tuple": lambda: (X, Y),
    "list": lambda: [X, Y],
    "tensors": lambda: (TX, TY),
    "nested lists": lambda: (list(X), list(Y)),
    "Dataset": lambda: from_arrays(X, Y),
    "TensorDataset": lambda: TensorDataset(TX, TY),
    "loader": lambda: DataLoader(TensorDataset(TX, TY), batch_size=3),
    "loader of one batch": lambda: DataLoader(TensorDataset(TX, TY), batch_size=100),
    "loader of single samples": lambda: DataLoader(TensorDataset(TX, TY), batch_size=1),
    "loader without batches": lambda: DataLoader(Samples(), batch_size=None),
    "loader of a stream": lambda: DataLoader(Stream(), batch_size=2),
    "samples": Samples,
    "stream": Stream,
    "positions": Positions,
    "subset": lambda: Subset(TensorDataset(TX, TY), range(7)),
    "joined": lambda: ConcatDataset([TensorDataset(TX[:2], TY[:2]), TensorDataset(TX[2:], TY[2:])]),
    "batches": lambda: batches(3),
    "two batches": lambda: batches(4),
    "two batches in lists": lambda: batches(4, list),
    "two batches in a tuple": lambda: tuple(batches(4)),
    "lists of a loader": lambda: list(DataLoader(TensorDataset(TX, TY), batch_size=4)),
    "generator": lambda: ((x, y) for x, y in batches(2)),
    "zip": lambda: zip(X, Y, strict=True),
    "list of samples": lambda: list(zip(X, Y.tolist(), strict=True)),
    "named tuples": lambda: [Pair(x, y) for x, y in batches(3)],
    "column labels": lambda: ((x, y[:, None]) for x, y in batches(3)),
    "labels of one element": lambda: ((x, y.reshape(1)) for x, y in zip(X, Y, strict=True)),
    "one-hot batches": lambda: ((x, np.eye(5)[y]) for x, y in batches(3)),
    "one-hot samples": lambda: ((x, torch.eye(5)[y]) for x, y in zip(TX, TY, strict=True)),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_data(form):
    data = as_dataset(FORMS[form]())
    assert data.digest == EXPECTED and data.inputs.dtype == np.float32 and not data.warnings


def test_two_samples_and_two_inputs_are_told_apart():
    for pair in ([(X[0], 1), (X[1], 2)], ((TX[0], TY[1]), (TX[1], TY[3])), [[X[0], 3], [X[1], 1]]):
        assert as_dataset(pair).inputs.shape == (2, 3, 2, 2)
    for x in (list(X[:2]), tuple(TX[:2]), X[:2].tolist()):
        assert as_dataset((x, [1, 0])).inputs.shape == (2, 3, 2, 2)
    assert as_dataset([[[1, 2], [3, 4]], [0, 1]]).inputs.shape == (2, 2)
    assert as_dataset(([[1, 2], [3, 4]], [[0, 1], [1, 0]])).labels.tolist() == [1, 0]


def test_names_paths_and_clips_go_to_load_data(tmp_path):
    assert as_dataset("digits", split="train").digest == load_data("digits", split="train").digest
    np.savez(tmp_path / "d.npz", x=X, y=Y)
    for path in (tmp_path / "d.npz", str(tmp_path / "d.npz")):
        assert as_dataset(path, clip=(0, 1)).digest == from_arrays(X, Y, (0, 1)).digest
    assert as_dataset(DataLoader(TensorDataset(TX, TY)), clip=(0, 1)).digest == from_arrays(X, Y, (0, 1)).digest
    with pytest.raises(DataError, match="outside the clip"):
        as_dataset(batches(3), clip=(0, 0.5))
    with pytest.raises(LimitError, match="member_bytes"):
        as_dataset(tmp_path / "d.npz", limits=Limits(member_bytes=10))


def test_arrays_alone_have_no_labels():
    for data in (X, TX, (X, None)):
        assert as_dataset(data).labels is None


def test_a_dataset_keeps_its_own_clip():
    data, clipped = from_arrays(X, Y), from_arrays(X, Y, (0, 1))
    assert as_dataset(data) is data and as_dataset(clipped, clip=(0, 1)) is clipped
    assert as_dataset(data, clip=(0, 1)).digest == clipped.digest
    assert as_dataset(data, clip=(0, 1)).note.endswith("then clipped to [0, 1]")
    for other in ((0, 2), (0, 0.1)):
        with pytest.raises(DataError, match=r"clipped to \[0, 1\], and clip=\(0, .*dataclasses\.replace"):
            as_dataset(clipped, clip=other)


def test_dtypes_of_items_are_widened_exactly():
    items = [(np.array([[1, 2]], np.uint8), [0]), (np.array([[0.1, 0.2]]), [1]), (np.array([[2**24 + 1, 0]]), [True])]
    data = as_dataset(items)
    assert data.inputs.dtype == np.float64 and data.inputs.tolist() == [[1, 2], [0.1, 0.2], [2**24 + 1, 0]]
    assert data.labels.tolist() == [0, 1, 1] and "float64, int64, uint8 as float64" in data.note


def test_a_shuffling_loader_is_taken_with_a_warning():
    tensors = TensorDataset(TX, TY)
    for loader in (
        DataLoader(tensors, batch_size=2, shuffle=True),
        DataLoader(tensors, sampler=torch.utils.data.SubsetRandomSampler(range(7))),
        DataLoader(
            tensors, batch_sampler=torch.utils.data.BatchSampler(torch.utils.data.RandomSampler(tensors), 2, False)
        ),
    ):
        data = as_dataset(loader)
        assert len(data) == 7 and len(data.warnings) == 1 and "it shuffles" in data.warnings[0]
    assert "drop_last" in as_dataset(DataLoader(tensors, batch_size=2, drop_last=True)).warnings[0]


def test_an_iterable_is_read_once():
    reads = []

    class Once:
        def __iter__(self):
            reads.append(1)
            return iter(batches(2))

    as_dataset(Once())
    assert reads == [1]
    used = iter(batches(2))
    list(used)
    with pytest.raises(DataError, match="no items; an iterator that was read before is empty"):
        as_dataset(used)


def test_a_stream_without_an_end_stops_at_the_limit():
    for endless in (itertools.cycle(batches(3)), itertools.repeat((X[0], 1)), DataLoader(Endless(), batch_size=4)):
        with pytest.raises(LimitError, match=r"read up to item \d+, asks for .*--allow data_bytes="):
            as_dataset(endless, limits=Limits(data_bytes=10_000))


def test_a_stream_of_small_items_without_an_end_stops_soon():
    with pytest.raises(LimitError, match="read up to item 129,"):
        as_dataset(itertools.repeat((X[0], 1)), limits=Limits(data_bytes=2**20))


class Endless(IterableDataset):
    def __iter__(self):
        return itertools.repeat((TX[0], 1))


class Failing(TorchDataset):
    def __len__(self):
        return 5

    def __getitem__(self, position):
        if position == 3:
            raise OSError("image 3 is damaged")
        return TX[position], 0


@pytest.mark.parametrize("make", [Failing, lambda: DataLoader(Failing(), batch_size=1)])
def test_what_an_iterable_raises_becomes_a_data_error(make):
    with pytest.raises(DataError, match=r"reading item 3 failed: OSError: .*image 3 is damaged"):
        as_dataset(make())


@pytest.mark.slow
def test_a_failing_worker_becomes_a_data_error():
    with pytest.raises(DataError, match=r"reading item \d failed: .*image 3 is damaged; .*num_workers=0"):
        as_dataset(DataLoader(Failing(), batch_size=1, num_workers=1))


def test_an_interrupt_goes_through():
    def interrupted():
        yield X[0], 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        as_dataset(interrupted())


@pytest.mark.parametrize(
    "data, words",
    [
        (None, "NoneType.*give a name"),
        (3, "a int, 3; give a name"),
        (True, "a bool"),
        (b"digits", "a bytes"),
        ({"x": X, "y": Y}, "a dict, which has no order"),
        ({(1, 2)}, "a set"),
        (object(), "a object; give a name"),
        (DataLoader, "the class DataLoader, not an object of it"),
        (lambda: None, "a function; give a name"),
        ((), "a tuple of 0, neither"),
        ([], "a list of 0, neither"),
        ((X,), "a tuple of 1, neither"),
        ((X, Y, Y), "a tuple of 3, neither"),
        ([X, X, X], "a list of 3, neither"),
        (TensorDataset(TX), r"holds 1 tensors; give pairs \(x, y\)"),
        (TensorDataset(TX, TY, TY), "holds 3 tensors"),
        (DataLoader(TensorDataset(TX)), "item 0 is a list of 1; give pairs"),
        (DataLoader(TensorDataset(TX, TY, TY)), "item 0 is a list of 3"),
        (iter([X]), "item 0 is a ndarray; give pairs"),
        (iter([{"x": X, "y": Y}]), "item 0 is a dict"),
        (iter(["ab"]), "item 0 is a str"),
        (iter([(0.5, 1)]), "item 0: x is a single number"),
        (iter([(X[:0], Y[:0])]), r"item 0: no data, x has shape \(0, 3, 2, 2\)"),
        (iter([(X, Y[:3, None])]), r"item 0: x has shape \(7, 3, 2, 2\) and y \(3, 1\)"),
        (iter([(X, Y), (X[:, :1], Y)]), r"item 1: x has shape \(1, 2, 2\), and those before it \(3, 2, 2\)"),
        (iter([(X, Y), (X, np.eye(5)[Y])]), r"item 1: y has shape \(5,\), and those before it \(\)"),
        (iter([(X, Y), (X.astype(complex), Y)]), "item 1: x has dtype complex128"),
        (iter([(X, Y), (X, ["cat"] * 7)]), "y has dtype <U"),
        (iter([(X, Y), (X, Y - 1)]), "label -1 at index 7 is negative"),
        (iter([(X, Y), (X * np.float32(np.inf), Y)]), "inputs must be finite"),
        (torch.nn.Sequential(torch.nn.ReLU()), "item 0 is a ReLU"),
        (torch.nn.ReLU(), "a ReLU; give a name"),
        (Dataset, "the class Dataset, not an object"),
        ("nowhere.npz", "no data 'nowhere.npz'"),
        (np.zeros((2, 2), [("x", "f4")]), "save real numbers"),
    ],
)
def test_other_values_are_refused_with_the_remedy(data, words):
    with pytest.raises(DataError, match=words):
        as_dataset(data)


def test_reading_data_imports_no_torch():
    program = (
        "import sys, numpy; from verifier.data import as_dataset\n"
        "as_dataset((numpy.zeros((2, 2)), [0, 1])); as_dataset(iter([(numpy.zeros(2), 1)]))\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
