"""Data by name, from files and from arrays: what is read is exactly what is stored, and the rest is refused."""

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pooch
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from tests.conftest import SHARED_DATA
from verifier.data import NAMES, DataError, Dataset, check_labels, from_arrays, load_data

SHARED = SHARED_DATA


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path_factory):
    """No test downloads, or reads the cache or the variable of whoever runs it."""

    def refuse(*args, **kwargs):
        import requests

        raise requests.ConnectionError("no route to host")

    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(pooch, "retrieve", refuse)
    monkeypatch.setattr(pooch, "os_cache", lambda project: cache)
    monkeypatch.delenv("VERIFIER_DATA_DIR", raising=False)
    return cache


def idx(array, kind=8):
    return bytes((0, 0, kind, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def images(count=3, seed=0, shape=(28, 28)):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def write_mnist(folder, pixels=None, labels=(3, 1, 4), stem="t10k", dot="-", suffix=""):
    pixels = images() if pixels is None else pixels
    folder.mkdir(parents=True, exist_ok=True)
    for kind, array in (("images{}idx3", pixels), ("labels{}idx1", np.array(labels, np.uint8))):
        content = array if isinstance(array, bytes) else idx(array)
        path = folder / f"{stem}-{kind.format(dot)}-ubyte{suffix}"
        path.write_bytes(gzip.compress(content) if suffix else content)
    return pixels


def cifar_rows(labels, seed=0):
    pixels = images(len(labels), seed, (3, 32, 32))
    return pixels, np.concatenate([np.array(labels, np.uint8)[:, None], pixels.reshape(len(labels), -1)], 1).tobytes()


def write_npz(path, **arrays):
    np.savez(path, **arrays)
    return path


# Dataset


def test_digest_depends_on_inputs_labels_shape_dtype_and_clip_alone():
    x, y = np.arange(12.0).reshape(2, 6), [0, 1]
    base = from_arrays(x, y)
    changed = [
        from_arrays(np.where(x == 7, np.nextafter(7, 8), x), y),
        from_arrays(x, [1, 0]),
        from_arrays(x),
        from_arrays(x.reshape(2, 2, 3), y),
        from_arrays(x.astype(np.float32), y),
        from_arrays(x, y, (0, 11)),
        from_arrays(x, y, (0, 12)),
    ]
    assert len({base.digest, *(data.digest for data in changed)}) == 1 + len(changed)
    assert from_arrays(x, y, name="another").digest == base.digest


def test_digest_is_the_one_that_run_folders_hold():
    """SHA-256 of the representation of (shape, dtype, clip), the bytes of the inputs and those of the labels."""
    x, y = np.arange(12, dtype=np.float32).reshape(2, 6), np.array([1, 0])
    for labels, clip in ((y, (0, 11)), (None, None)):
        text = repr(((2, 6), "float32", None if clip is None else (0.0, 11.0))).encode()
        content = text + x.tobytes() + (b"none" if labels is None else y.astype(np.int64).tobytes())
        assert from_arrays(x, labels, clip).digest == hashlib.sha256(content).hexdigest()


def test_digest_ignores_memory_layout_and_byte_order():
    x = np.arange(12.0).reshape(2, 6)
    assert from_arrays(np.asfortranarray(x)).digest == from_arrays(x.astype(">f8")).digest == from_arrays(x).digest
    fortran = Dataset("f", np.asfortranarray(x), None, None, "")
    assert fortran.digest == from_arrays(x).digest


def test_arrays_cannot_be_written_and_the_callers_array_is_copied():
    x, y = np.zeros((2, 3)), np.zeros(2, np.int64)
    data = from_arrays(x, y)
    x[0, 0] = y[0] = 5
    assert data.inputs.max() == data.labels.max() == 0
    for array in (data.inputs, data.labels):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    assert torch.tensor(data.inputs[:1]).shape == (1, 3)  # would warn, hence fail, if torch shared the memory


def test_fit_to_keeps_c_order_and_says_so():
    data = from_arrays(np.arange(12).reshape(1, 12), [0], (0, 11)).fit_to(torch.Size((3, 2, 2)))
    assert data.input_shape == (3, 2, 2)
    assert data.inputs[0, 1, 0, 1] == 1 * 4 + 0 * 2 + 1  # strides of (3, 2, 2) in C order: 4, 2, 1
    assert data.note.endswith("reshaped in C order from (12,) to (3, 2, 2)")
    assert data.clip == (0.0, 11.0) and data.labels.tolist() == [0]


def test_fit_to_the_same_shape_is_the_same_dataset():
    data = from_arrays(np.zeros((2, 3)))
    assert data.fit_to([3]) is data


@pytest.mark.parametrize("shape", [(5,), (3, 3), (-1, 12), (-3, -4), (0,), ()])
def test_fit_to_another_size_names_both_shapes(shape):
    with pytest.raises(DataError) as caught:
        from_arrays(np.zeros((2, 3, 4))).fit_to(shape)
    assert "(3, 4)" in str(caught.value) and str(shape) in str(caught.value)


@pytest.mark.parametrize(
    "limit, offset, expected",
    [(None, 0, range(5)), (2, 0, range(2)), (2, 3, range(3, 5)), (9, 4, range(4, 5)), (None, 2, range(2, 5))],
)
def test_indices_stop_at_the_end_of_the_data(limit, offset, expected):
    assert from_arrays(np.zeros((5, 1))).indices(limit, offset) == expected


@pytest.mark.parametrize(
    "limit, offset, words", [(0, 0, "limit 0"), (-1, 0, "limit -1"), (1, 5, "0..4"), (1, -1, "-1")]
)
def test_indices_refuse_what_selects_nothing(limit, offset, words):
    with pytest.raises(DataError, match=words):
        from_arrays(np.zeros((5, 1))).indices(limit, offset)


def test_check_labels_names_the_first_label_that_is_no_class():
    data = from_arrays(np.zeros((3, 1)), [0, 3, 4])
    check_labels(data, 5)
    check_labels(from_arrays(np.zeros((3, 1))), 1)
    with pytest.raises(DataError, match=r"label 3 at index 1 .* 3 classes 0\.\.2"):
        check_labels(data, 3)


@pytest.mark.parametrize("inputs, labels", [([[1.0]], None), (torch.zeros(1, 1), None), (np.zeros((1, 1)), [0])])
def test_a_dataset_made_by_hand_takes_arrays_only(inputs, labels):
    with pytest.raises(DataError, match=r"from_arrays\(x, y\) converts"):
        Dataset("hand", inputs, labels, None, "")


def test_every_refusal_is_a_value_error():
    assert issubclass(DataError, ValueError)


# Arrays and .npz files


@pytest.mark.parametrize(
    "x, dtype",
    [
        (np.array([[0.1]], np.float32), np.float32),
        (np.array([[0.1]], np.float64), np.float64),
        (np.array([[0.1]], ">f4"), np.float32),
        (np.array([[0.1]], np.float16), np.float32),
        (np.array([[255]], np.uint8), np.float32),
        (np.array([[-(2**24)]]), np.float32),
        (np.array([[1.5, 2.5]]).view(np.matrix), np.float64),
        (np.ma.array([[1.0, 2.0]]), np.float64),
        (np.array([[2**24 + 1]]), np.float64),  # the first integer that is no float32
        (np.array([[-(2**53)]]), np.float64),
        ([[1, 2], [3, 4]], np.float32),
        (torch.ones(2, 2, requires_grad=True), np.float32),
    ],
)
def test_x_is_stored_exactly_in_the_narrowest_float_that_holds_it(x, dtype):
    data = from_arrays(x)
    expected = np.asarray(x.detach() if isinstance(x, torch.Tensor) else x)
    assert data.inputs.dtype == dtype and data.inputs.dtype.isnative
    assert (data.inputs.astype(np.float64) == expected.astype(np.float64)).all()
    assert data.labels is None and data.clip is None


@pytest.mark.parametrize(
    "x, words",
    [
        (np.zeros((2, 2), complex), "complex128"),
        (np.zeros((2, 2), [("a", "f4")]), "dtype .*save real numbers"),
        (np.zeros((2, 2), "M8[D]"), "datetime64"),
        (np.ma.masked_equal([[1, 2]], 2), r"masked values; fill them \(x\.filled"),
        ([np.ma.masked_equal([1, 2], 2)], "masked values"),
        ({"a": 1}, r"dtype object \(dict\)"),
        ((value for value in [[1.0]]), r"dtype object \(generator\)"),
        ([[1.0, None]], "dtype object"),
        (torch.zeros(1, 1, device="meta"), "x is no array"),
        (torch.zeros(2, 2).to_sparse(), "x is no array"),
        (np.zeros((2, 2), bool), "bool"),
        (np.zeros((2, 2), object), "object"),
        (np.array([["a"]]), "dtype <U1"),
        (np.array([[2**53 + 1]]), "9007199254740993"),
        (np.array([[2**64 - 1]], np.uint64), "18446744073709551615"),
        ([[1.0], [1.0, 2.0]], "x is no array"),
        (torch.zeros(1, 1, dtype=torch.bfloat16), "x is no array"),
        (np.zeros((0, 3)), r"no data.*\(0, 3\)"),
        (np.zeros((3, 0), int), r"no data.*\(3, 0\)"),
        (np.zeros(3), r"\(1, n\)"),
        (3.0, r"shape \(\)"),
        (np.array([[0, 1], [np.nan, np.inf]]), r"value nan at index \(1, 0\)"),
        (np.array([[0, 1], [2, -np.inf]], np.float32), r"value -inf at index \(1, 1\)"),
    ],
)
def test_x_that_is_not_finite_real_numbers_is_refused(x, words):
    with pytest.raises(DataError, match=words):
        from_arrays(x)


@pytest.mark.skipif(np.dtype(np.longdouble).itemsize == 8, reason="no wider float on this platform")
def test_floats_wider_than_64_bits_are_refused():
    with pytest.raises(DataError, match=r"longdouble|float128|float96"):
        from_arrays(np.zeros((1, 1), np.longdouble))


@pytest.mark.parametrize("y", [[1, 0], np.array([1, 0], np.uint8), [1.0, 0.0], np.array([1, 0], np.float16)])
def test_labels_without_a_fraction_become_int64(y):
    labels = from_arrays(np.zeros((2, 1)), y).labels
    assert labels.dtype == np.int64 and labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    "y, words",
    [
        ([0], r"shape \(1,\) for 2 inputs"),
        ([0, 1, 2], r"shape \(3,\) for 2 inputs"),
        ([0, -1], "label -1 at index 1 is negative"),
        ([0, 1.5], r"label 1.5 at index \(1,\)"),
        ([np.nan, 0], r"label nan at index \(0,\)"),
        ([0, np.inf], r"label inf at index \(1,\)"),
        (np.array([0, 2**63], np.uint64), "label 9223372036854775808"),
        (["a", "b"], "dtype <U1"),
    ],
)
def test_labels_that_do_not_match_are_refused(y, words):
    with pytest.raises(DataError, match=words):
        from_arrays(np.zeros((2, 1)), y)


@pytest.mark.parametrize(
    "clip", [(1, 0), (0, 0), (0, np.inf), (-np.inf, 0), (np.nan, 1), 1, "01", (0,), (0, 1, 2), (None, 1), (0, 10**400)]
)
def test_a_clip_that_is_no_domain_is_refused(clip):
    with pytest.raises(DataError, match="not a domain"):
        from_arrays(np.zeros((1, 1)), None, clip)


def test_inputs_outside_the_clip_are_named():
    x = np.array([[0.0, 1.0], [1.5, -0.5]])
    assert from_arrays(x, None, (-0.5, 1.5)).note == "taken as stored, clipped to [-0.5, 1.5]"
    with pytest.raises(DataError, match=r"value 1.5 at index \(1, 0\) lies outside the clip \[-0.5, 1.0\]"):
        from_arrays(x, None, (-0.5, 1))
    with pytest.raises(DataError, match=r"value -0.5 at index \(1, 1\)"):
        from_arrays(x, None, (0, 2))


def test_the_clip_is_compared_without_rounding_it_to_the_dtype():
    x = np.array([[0.0, 0.1, -0.1]], np.float32)  # 0.1 becomes 0.100000001490116..., beyond the float64
    with pytest.raises(DataError, match=r"value 0\.10000000149\d* at index \(0, 1\)"):
        from_arrays(x, None, (-1, 0.1))
    with pytest.raises(DataError, match=r"value -0\.10000000149\d* at index \(0, 2\)"):
        from_arrays(x, None, (-0.1, 1))


def test_npz_is_taken_as_stored_and_not_clipped_unless_asked(tmp_path):
    path = write_npz(tmp_path / "d.npz", x=np.array([[0, 255]], np.uint8), y=np.array([1]))
    data = load_data(path, split="train")
    assert data.inputs.tolist() == [[0.0, 255.0]] and data.labels.tolist() == [1] and data.clip is None
    assert data.note == "taken as stored (uint8 as float32), not clipped" and data.name == str(path)
    assert load_data(str(path), clip=(0, 255)).clip == (0.0, 255.0)


def test_npz_without_y_has_no_labels_and_other_arrays_are_left_closed(tmp_path):
    path = write_npz(tmp_path / "d.npz", x=np.zeros((1, 1)), notes=np.array([{}], object))
    assert load_data(path).labels is None


def test_npz_without_x_lists_what_is_there(tmp_path):
    with pytest.raises(DataError, match="no array x; it holds images, labels"):
        load_data(write_npz(tmp_path / "d.npz", images=np.zeros(1), labels=np.zeros(1)))


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("it was unpickled",))


def test_pickles_are_never_opened(tmp_path):
    stored = write_npz(tmp_path / "object.npz", x=np.array([[Bomb()]], object))
    (tmp_path / "bare.npz").write_bytes(pickle.dumps(Bomb()))
    for path in (stored, tmp_path / "bare.npz"):
        with pytest.raises(DataError, match=r"cannot be read as a \.npz"):
            load_data(path)


def with_zip_fields(content, flags, method):
    """Return the archive of one member with these general flags and compression method in both of its headers."""
    fields, changed = struct.pack("<2H", flags, method), bytearray(content)
    central = content.rindex(b"PK\1\2")
    changed[6:10] = changed[central + 8 : central + 12] = fields
    return bytes(changed)


def absurd_npz():
    """Return an archive whose only array claims 2^60 elements."""
    stored, archive = io.BytesIO(), io.BytesIO()
    np.lib.format.write_array_header_1_0(stored, {"descr": "<f4", "fortran_order": False, "shape": (2**60, 1)})
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("x.npy", stored.getvalue())
    return archive.getvalue()


def test_damaged_npz_files_are_refused(tmp_path):
    x = np.random.default_rng(0).normal(size=(50, 50))
    whole = write_npz(tmp_path / "whole.npz", x=x).read_bytes()
    np.savez_compressed(tmp_path / "small.npz", x=x)
    small = (tmp_path / "small.npz").read_bytes()
    start = 30 + sum(struct.unpack_from("<2H", small, 26))  # the header, then a name and extra fields of these sizes
    single = io.BytesIO()
    np.save(single, x)
    damaged = {
        "empty": b"",
        "no archive": b"text",
        "no table of contents": whole[:-40],
        "changed data": whole[:2000] + bytes((whole[2000] ^ 1,)) + whole[2001:],
        "no deflate stream": small[:start] + b"\xff" + small[start + 1 :],  # block type 3 does not exist
        "encrypted": with_zip_fields(whole, 1, 0),
        "unknown compression": with_zip_fields(whole, 0, 77),
        "absurd shape": absurd_npz(),
        "single array": single.getvalue(),
    }
    for name, content in damaged.items():
        path = tmp_path / f"{name}.npz"
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"{name}.npz: (cannot be read|holds a single array)"):
            load_data(path)


def test_a_member_that_is_no_array_counts_as_missing(tmp_path):
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("x", b"bytes")
    with pytest.raises(DataError, match="no array x"):
        load_data(tmp_path / "d.npz")


def test_unknown_data_lists_the_names_and_the_npz_possibility(tmp_path):
    with pytest.raises(DataError) as caught:
        load_data("mnits")
    assert "'mnits'" in str(caught.value) and ".npz" in str(caught.value)
    assert all(name in str(caught.value) for name in NAMES)
    (tmp_path / "d.txt").write_text("1,2")
    with pytest.raises(DataError, match=r"neither a \.npz nor a \.csv file"):
        load_data(tmp_path / "d.txt")
    with pytest.raises(DataError, match="'validation' is not one of test, train"):
        load_data("digits", split="validation")


# Digits


def test_digits_hold_out_a_stratified_fifth():
    test, train = load_data("digits"), load_data("digits", split="train")
    assert (len(train), len(test)) == (1437, 360)
    assert test.inputs.shape == (360, 64) and test.inputs.dtype == np.float32 and test.clip == (0.0, 1.0)
    assert test.note == "scaled to [0, 1], clipped to [0, 1]"
    pixels, classes = load_digits(return_X_y=True)
    # Stratified: every class within one of its share.
    assert np.abs(np.bincount(test.labels) - np.bincount(classes) * 360 / 1797).max() <= 1
    # A partition: both parts together are the stored images, each as often as stored.
    together = np.concatenate([train.inputs, test.inputs]) * 16
    assert sorted(map(tuple, together)) == sorted(map(tuple, pixels))


def test_digits_are_the_stated_split():
    pixels, classes = load_digits(return_X_y=True)
    _, x, _, y = train_test_split(pixels, classes, test_size=0.2, random_state=0, stratify=classes)
    data = load_data("digits")
    assert (data.inputs * 16 == x).all() and (data.labels == y).all()


def test_named_data_take_another_clip_and_say_so():
    data = load_data("digits", clip=(-1, 2))
    assert data.clip == (-1.0, 2.0) and data.note == "scaled to [0, 1], clipped to [-1, 2]"
    with pytest.raises(DataError, match="outside the clip"):
        load_data("digits", clip=(0, 0.5))


# MNIST and Fashion-MNIST


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("dot", ["-", "."])
@pytest.mark.parametrize("split, stem", [("test", "t10k"), ("train", "train")])
def test_mnist_reads_every_spelling_of_the_idx_files(tmp_path, suffix, dot, split, stem):
    pixels = write_mnist(tmp_path, suffix=suffix, dot=dot, stem=stem)
    data = load_data("mnist", data_dir=tmp_path, split=split)
    assert data.inputs.shape == (3, 1, 28, 28) and data.inputs.dtype == np.float32 and data.clip == (0.0, 1.0)
    assert (np.round(data.inputs[:, 0] * 255) == pixels).all() and data.labels.tolist() == [3, 1, 4]


def test_bytes_scale_to_the_float32_quotient(tmp_path):
    pixels = np.resize(np.arange(256, dtype=np.uint8), (3, 28, 28))
    write_mnist(tmp_path, pixels)
    inputs = load_data("mnist", data_dir=tmp_path).inputs[:, 0]
    # The float64 quotient rounded to float32 is the correctly rounded one (Figueroa 1995: 53 >= 2 * 24 + 2).
    assert (inputs == pixels.astype(np.float32) / np.float32(255)).all()
    assert inputs.max() == 1 and inputs.min() == 0


def test_folders_are_searched_from_the_nearest_to_the_cache(tmp_path, no_network, monkeypatch):
    given, variable = tmp_path / "given", tmp_path / "variable"
    given.mkdir()
    monkeypatch.setenv("VERIFIER_DATA_DIR", str(variable))
    places = [no_network / "mnist", variable, variable / "mnist", given, given / "mnist"]
    variable.mkdir()
    for label, folder in enumerate(places):  # each goes before those written so far
        write_mnist(folder, labels=[label] * 3)
        assert load_data("mnist", data_dir=given).labels.tolist() == [label] * 3


def test_the_subfolder_keeps_fashion_mnist_from_reading_mnist(tmp_path):
    write_mnist(tmp_path, labels=[1, 1, 1])
    write_mnist(tmp_path / "fashion-mnist", labels=[2, 2, 2])
    assert load_data("fashion-mnist", data_dir=tmp_path).labels.tolist() == [2, 2, 2]


def test_images_without_their_labels_are_not_taken(tmp_path):
    write_mnist(tmp_path)
    write_mnist(tmp_path / "mnist", labels=[9, 9, 9])
    (tmp_path / "mnist" / "t10k-images-idx3-ubyte").unlink()
    assert load_data("mnist", data_dir=tmp_path).labels.tolist() == [3, 1, 4]


def test_a_data_dir_that_is_no_folder_is_refused(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"data_dir .*absent is not a folder"):
        load_data("mnist", data_dir=tmp_path / "absent")
    for folder in (3, "~nobody-of-this-name", "x" * 5000):
        with pytest.raises(DataError, match=r"data_dir .* is not a folder"):
            load_data("mnist", data_dir=folder)
    monkeypatch.setenv("VERIFIER_DATA_DIR", str(tmp_path / "absent"))
    with pytest.raises(DataError, match=r"VERIFIER_DATA_DIR .*absent is not a folder"):
        load_data("cifar10")


@pytest.mark.parametrize(
    "name, file",
    [
        ("mnist", "t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz"),
        ("fashion-mnist", "t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz"),
        ("cifar10", "test_batch.bin"),
    ],
)
def test_without_a_network_the_error_says_which_files_to_put_where(tmp_path, no_network, name, file):
    with pytest.raises(DataError) as caught:
        load_data(name, data_dir=tmp_path)
    message = str(caught.value)
    assert file in message and "--data-dir" in message and "no route to host" in message
    assert all(str(folder) in message for folder in (tmp_path, tmp_path / name, no_network / name))


def test_a_download_is_checked_and_read_from_the_cache(no_network, monkeypatch):
    asked = {}

    def retrieve(url, known_hash, fname, path, processor):
        asked[url] = known_hash
        write_mnist(Path(path), suffix=".gz")

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    assert len(load_data("mnist")) == 3
    assert asked == {
        "https://ossci-datasets.s3.amazonaws.com/mnist/t10k-images-idx3-ubyte.gz": (
            "md5:9fb629c4189551a2d022fa330f9573f3"
        ),
        "https://ossci-datasets.s3.amazonaws.com/mnist/t10k-labels-idx1-ubyte.gz": (
            "md5:ec29112dd5afa0611ce80d1b7f02629c"
        ),
    }
    monkeypatch.setattr(pooch, "retrieve", None)
    assert len(load_data("mnist")) == 3


def test_a_wrong_checksum_is_a_data_error(monkeypatch):
    def retrieve(*args, **kwargs):
        raise ValueError("MD5 hash of downloaded file does not match")

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    with pytest.raises(DataError, match="MD5 hash"):
        load_data("fashion-mnist")


@pytest.mark.parametrize(
    "content, words",
    [
        (idx(images()) + b"\0", "1 trailing bytes"),
        (idx(images())[:-2], "2 missing bytes"),
        (idx(images())[:10], "not an IDX file"),
        (b"", "not an IDX file"),
        (b"\x89PNG" + bytes(40), "begins with '89504e47', expected '00000803'"),
        (idx(images(), kind=9), "not an IDX file"),
        (idx(images().reshape(3, 784)), "begins with '00000802'"),
        (idx(images(3, shape=(32, 32))), r"\(32, 32\) pixels"),
        (idx(images(2)), "2 images, but .* 3 labels"),
        (bytes((0, 0, 8, 3)) + struct.pack(">3I", 2**32 - 1, 2**32 - 1, 28), "missing bytes"),
    ],
)
def test_files_that_are_not_exactly_idx_are_refused(tmp_path, content, words):
    write_mnist(tmp_path, content)
    with pytest.raises(DataError, match=words):
        load_data("mnist", data_dir=tmp_path)


def test_damaged_gzip_is_refused(tmp_path):
    write_mnist(tmp_path, suffix=".gz")
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"plain", whole[:200] + b"\xff\xff\xff\xff" + whole[204:]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte\.gz"):
            load_data("mnist", data_dir=tmp_path)


def test_labels_beyond_nine_and_empty_files_are_refused(tmp_path):
    write_mnist(tmp_path, labels=[0, 10, 11])
    with pytest.raises(DataError, match="mnist: label 10 at index 1"):
        load_data("mnist", data_dir=tmp_path)
    write_mnist(tmp_path, images(0), labels=[])
    with pytest.raises(DataError, match="mnist: no data"):
        load_data("mnist", data_dir=tmp_path)


# CIFAR-10


@pytest.mark.parametrize("inside", ["", "cifar-10-batches-bin", "cifar10/cifar-10-batches-bin"])
def test_cifar_binary_rows_are_label_then_channels(tmp_path, inside):
    folder = tmp_path / inside
    folder.mkdir(parents=True, exist_ok=True)
    pixels, content = cifar_rows([3, 8])
    (folder / "test_batch.bin").write_bytes(content)
    data = load_data("cifar10", data_dir=tmp_path)
    assert data.inputs.shape == (2, 3, 32, 32) and data.inputs.dtype == np.float32 and data.clip == (0.0, 1.0)
    assert (np.round(data.inputs * 255) == pixels).all() and data.labels.tolist() == [3, 8]


def test_cifar_training_batches_are_joined_in_order_and_all_needed(tmp_path):
    for batch in range(1, 6):
        with_label = cifar_rows([batch], seed=batch)[1]
        if batch == 5:
            with pytest.raises(DataError, match=r"data_batch_5\.bin"):
                load_data("cifar10", data_dir=tmp_path, split="train")
        (tmp_path / f"data_batch_{batch}.bin").write_bytes(with_label)
    assert load_data("cifar10", data_dir=tmp_path, split="train").labels.tolist() == [1, 2, 3, 4, 5]


def test_cifar_npz_agrees_with_the_binary_version(tmp_path):
    pixels, content = cifar_rows([3, 8])
    (tmp_path / "binary").mkdir()
    (tmp_path / "binary" / "test_batch.bin").write_bytes(content)
    (tmp_path / "npz").mkdir()
    labels = np.array([3, 8], np.uint8)
    write_npz(tmp_path / "npz" / "test_part.npz", images=pixels.transpose(0, 2, 3, 1), labels=labels)
    npz, binary = (load_data("cifar10", data_dir=tmp_path / folder) for folder in ("npz", "binary"))
    assert npz.digest == binary.digest and npz.inputs.flags.c_contiguous


def test_cifar_npz_parts_are_joined_in_the_order_of_their_names(tmp_path):
    for first in (10, 0):
        pixels = images(2, first, (32, 32, 3))
        write_npz(tmp_path / f"train_{first:05}.npz", images=pixels, labels=np.full(2, first // 10, np.uint8))
    data = load_data("cifar10", data_dir=tmp_path, split="train")
    assert data.labels.tolist() == [0, 0, 1, 1]
    assert (np.round(data.inputs[:2] * 255) == images(2, 0, (32, 32, 3)).transpose(0, 3, 1, 2)).all()


@pytest.mark.parametrize(
    "arrays, words",
    [
        ({"images": images(2, 0, (3, 32, 32)), "labels": np.zeros(2, np.uint8)}, r"expected uint8 of shape \(2, 32"),
        ({"images": np.zeros((2, 32, 32, 3)), "labels": np.zeros(2, np.uint8)}, "found float64"),
        ({"images": np.uint8(0), "labels": np.zeros(2, np.uint8)}, r"uint8 of shape \(\)"),
        ({"images": images(2, 0, (32, 32, 3)), "labels": np.zeros(3, np.uint8)}, r"\(3,\), expected uint8 .* \(2,\)"),
        ({"images": images(2, 0, (32, 32, 3))}, "no array labels; it holds images"),
        ({"images": images(2, 0, (32, 32, 3)), "labels": np.array([0, 10], np.uint8)}, "label 10 at index 1"),
    ],
)
def test_cifar_npz_of_another_layout_is_refused(tmp_path, arrays, words):
    write_npz(tmp_path / "test_part.npz", **arrays)
    with pytest.raises(DataError, match=words):
        load_data("cifar10", data_dir=tmp_path)


@pytest.mark.parametrize("cut", [-1, 0])
def test_cifar_batches_of_partial_rows_are_refused(tmp_path, cut):
    (tmp_path / "test_batch.bin").write_bytes(cifar_rows([3, 8])[1][:cut])
    with pytest.raises(DataError, match="rows of 3073"):
        load_data("cifar10", data_dir=tmp_path)


@pytest.mark.parametrize("split, file", [("train", "data_batch_1"), ("test", "test_batch")])
@pytest.mark.parametrize("inside", ["", "cifar-10-batches-py"])
def test_pickled_cifar_is_refused_by_name_and_never_opened(tmp_path, monkeypatch, split, file, inside):
    monkeypatch.setattr(pooch, "retrieve", lambda *args, **kwargs: pytest.fail("a download was tried"))
    path = tmp_path / inside / file
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(DataError, match=rf"{file} are pickles.*cifar-10-binary\.tar\.gz"):
        load_data("cifar10", data_dir=tmp_path, split=split)


def test_the_cifar_archive_is_unpacked_into_the_cache(no_network, monkeypatch):
    def retrieve(url, known_hash, fname, path, processor):
        assert (url, known_hash) == (
            "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
            "md5:c32a1d4ab5d03f1284b67883e8d87530",
        )
        Path(path).mkdir(parents=True)
        with tarfile.open(Path(path) / fname, "w:gz") as archive:
            for number, file in enumerate(["test_batch", *(f"data_batch_{k}" for k in range(1, 6))]):
                entry = tarfile.TarInfo(f"cifar-10-batches-bin/{file}.bin")
                entry.size = 3073
                archive.addfile(entry, io.BytesIO(cifar_rows([number])[1]))
        processor(str(Path(path) / fname), "download", None)

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    assert load_data("cifar10").labels.tolist() == [0]
    assert load_data("cifar10", split="train").labels.tolist() == [1, 2, 3, 4, 5]


# The real files, where they lie beside the repository


@pytest.mark.skipif(not (SHARED / "mnist").is_dir(), reason="no MNIST files")
def test_real_mnist_is_the_known_test_set():
    data = load_data("mnist", data_dir=SHARED)
    assert data.inputs.shape == (10000, 1, 28, 28)
    assert data.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    # The class counts published for the test set.
    assert np.bincount(data.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


@pytest.mark.skipif(not (SHARED / "cifar10").is_dir(), reason="no CIFAR-10 files")
def test_real_cifar_is_nchw_of_the_stored_images():
    data = load_data("cifar10", data_dir=SHARED)
    assert data.inputs.shape == (1178, 3, 32, 32)
    assert data.labels[:6].tolist() == [3, 8, 8, 0, 6, 6]  # cat, ship, ship, airplane, frog, frog
    with np.load(SHARED / "cifar10" / "test_part.npz") as stored:
        assert (np.round(data.inputs * 255) == stored["images"].transpose(0, 3, 1, 2)).all()
