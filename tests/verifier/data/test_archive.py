"""Hostile data files: refused with little time and memory, before anything they claim is allocated."""

import bz2
import contextlib
import gzip
import io
import lzma
import os
import struct
import time
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest

from encoders.limits import LimitError, Limits
from tests.conftest import REPOSITORY
from verifier.data import DataError, load_data
from verifier.data.archive import read_npz
from verifier.data.idx import read_idx
from verifier.data.npy import read_npy

CASES = REPOSITORY / "tests" / "cases" / "hostile"
# What does harm takes minutes: a machine that is busy does not count as harm.
SECONDS = 30.0
# A fraction of the promised gibibyte: what small files may make the process allocate.
BYTES = 2**28


@contextlib.contextmanager
def quick_and_small():
    tracemalloc.start()
    start = time.process_time()
    try:
        yield
        assert time.process_time() - start < SECONDS
        assert tracemalloc.get_traced_memory()[1] < BYTES
    finally:
        tracemalloc.stop()


def refused(path, words, error=DataError, **arguments):
    with quick_and_small(), pytest.raises(error, match=words):
        load_data(path, **arguments)


def header(shape, descr="<f4", fortran=False, text=None, version=1):
    """Return the start of a .npy; text: what stands in place of the dictionary."""
    text = repr({"descr": descr, "fortran_order": fortran, "shape": shape}) if text is None else text
    packed = text.encode("latin1") + b"\n"
    return b"\x93NUMPY" + bytes((version, 0)) + struct.pack("<H" if version == 1 else "<I", len(packed)) + packed


def write(path, *members, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def npy(array):
    stored = io.BytesIO()
    np.save(stored, array)
    return stored.getvalue()


def zeros_packed(prefix, size):
    """Return prefix and that many zeros as a raw deflate stream, with the CRC and size of the content."""
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    block, parts, crc = bytes(2**20), [packer.compress(prefix)], zlib.crc32(prefix)
    for _ in range(size // len(block)):
        parts.append(packer.compress(block))
        crc = zlib.crc32(block, crc)
    return b"".join([*parts, packer.flush()]), crc, len(prefix) + size


def packed_zip(path, name, method, packed, crc, size):
    """Write an archive of one member whose packed bytes, CRC and size are given, true or not."""
    fields = struct.pack("<HHHHHIIIHH", 20, 0, method, 0, 33, crc, len(packed), size, len(name), 0)
    local = b"PK\3\4" + fields + name + packed
    entry = b"PK\1\2" + struct.pack("<H", 20) + fields + struct.pack("<HHHII", 0, 0, 0, 0, 0) + name
    end = b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(entry), len(local), 0)
    path.write_bytes(local + entry + end)
    return path


def test_the_helper_writes_archives_that_are_read(tmp_path):
    packed = zeros_packed(header((2, 2**18)), 2**21)
    path = packed_zip(tmp_path / "x.npz", b"x.npy", 8, *packed)
    assert load_data(path).inputs.shape == (2, 2**18)


def test_the_bzip2_bomb_is_refused():
    """2 kB that claim, and unpack to, 2 GiB."""
    refused(CASES / "bz.npz", r"bz\.npz: .*x\.npy is packed with the method bzip2.*np\.savez_compressed")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_python_unpacks_without_bound_are_refused_whatever_they_claim(tmp_path, method):
    refused(write(tmp_path / "x.npz", ("x.npy", npy(np.zeros((2, 2)))), method=method), "never writes")
    pack = bz2.compress if method == zipfile.ZIP_BZIP2 else lzma.compress
    content = header((2, 1)) + bytes(2**24)
    refused(packed_zip(tmp_path / "lie.npz", b"x.npy", method, pack(content), 0, 100), "never writes")


def test_a_deflate_bomb_names_the_option_that_allows_it(tmp_path):
    path = packed_zip(tmp_path / "x.npz", b"x.npy", 8, *zeros_packed(header((2**15, 2**9)), 2**26))
    assert path.stat().st_size < 2**19
    refused(path, r"x\.npz: x, packed .*--allow expanded_bytes=\d+", LimitError)
    packed = zeros_packed(header((2**9, 2**10)), 2**21)
    path = packed_zip(tmp_path / "x.npz", b"x.npy", 8, *packed)
    refused(path, f"--allow expanded_bytes={packed[2]}", LimitError, limits=Limits(expanded_bytes=packed[2] - 1))
    assert load_data(path, limits=Limits(expanded_bytes=packed[2])).inputs.shape == (2**9, 2**10)


def test_a_stream_longer_than_it_claims_is_not_unpacked(tmp_path):
    packed, _, _ = zeros_packed(header((2, 2)) + bytes(16), 2**26)
    path = packed_zip(tmp_path / "x.npz", b"x.npy", 8, packed, 0, len(header((2, 2))) + 16)
    refused(path, "cannot be read as a .npz")


def test_a_stream_shorter_than_it_claims_is_refused_before_its_array_is_allocated(tmp_path):
    content = header((2**24, 1)) + bytes(16)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(content) + packer.flush()
    path = packed_zip(tmp_path / "x.npz", b"x.npy", 8, packed, zlib.crc32(content), len(header((2**24, 1))) + 2**26)
    refused(path, "expanded_bytes", LimitError)
    refused(path, "cannot be read as a .npz", limits=Limits(expanded_bytes=2**27))


def test_a_stored_member_that_claims_more_than_it_holds_is_refused(tmp_path):
    path = packed_zip(tmp_path / "x.npz", b"x.npy", 0, header((2**20, 1)), 0, 2**30)
    refused(path, r"is stored in \d+ bytes and claims 1073741824")


@pytest.mark.parametrize("shape", [(2**60, 1), (2**62, 0), (2**40, 2**40), (2**31,) * 60, (-1, 4), (2, -(2**61))])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_shapes_that_the_member_does_not_hold_are_refused(tmp_path, shape, method):
    refused(write(tmp_path / "x.npz", ("x.npy", header(shape) + bytes(64)), method=method), "cannot be read as a .npz")


@pytest.mark.parametrize("excess", [-1, 1])
def test_a_member_of_a_byte_more_or_less_is_refused(tmp_path, excess):
    content = npy(np.zeros((2, 2)))
    content = content[:-1] if excess < 0 else content + b"\0"
    refused(write(tmp_path / "x.npz", ("x.npy", content)), rf"claims 32 bytes .* but {32 + excess} follow")


@pytest.mark.parametrize(
    "text",
    [
        "(" * 9000,
        "[" * 4000 + "]" * 4000,
        "-" * 9000 + "1",
        "{'descr': " * 500,
        "__import__('os').system('true')",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "9" * 8000 + ",)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "1," * 4000 + ")}",
        "{'descr': ('<f4', (1073741823, 1073741823)), 'fortran_order': False, 'shape': (1, 1)}",
        "{'descr': (), 'fortran_order': False, 'shape': (1, 1)}",
        "{'descr': [('a', " * 300,
        "{'descr': '|S0', 'fortran_order': False, 'shape': (4611686018427387904, 1)}",
        "{'descr': '|V0', 'fortran_order': False, 'shape': (4611686018427387904, 1)}",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1, 1)}",
        "{'descr': '<f4', 'fortran_order': 1, 'shape': (1, 1)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': 4}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1.5, 1)}",
        "1 " + " " * 60000,
        "1if 1else " * 900,
        "\x00\xff" * 100,
    ],
)
@pytest.mark.parametrize("version", [1, 2, 3])
def test_headers_that_are_no_plain_description_are_refused(tmp_path, text, version):
    refused(
        write(tmp_path / "x.npz", ("x.npy", header((), text=text, version=version) + bytes(4))), "cannot be read as"
    )


@pytest.mark.parametrize("array", [np.array([["2020"]], "M8[D]"), np.array([["a"]]), np.ones((1, 1), "c8")])
def test_arrays_that_are_no_real_numbers_are_refused_by_their_dtype(tmp_path, array):
    refused(write(tmp_path / "x.npz", ("x.npy", npy(array))), "x has dtype .* save real numbers")


DTYPES = ["?", "i1", "u1", "<i2", ">u4", "<i8", "<f2", ">f4", "<f8", "<c8", "<U3", "|S4", "<M8[ns]"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (5,), (1, 1), (0, 3), (2, 3, 4)])
def test_every_array_that_numpy_writes_is_read_as_numpy_reads_it(dtype, shape):
    """Oracle: NumPy's own reader."""
    size = int(np.prod(shape))
    array = (
        np.random.default_rng(1).integers(0, 2, size * np.dtype(dtype).itemsize, np.uint8).view(dtype).reshape(shape)
    )
    for stored in (npy(array), npy(np.asfortranarray(array))):
        read, expected = read_npy(io.BytesIO(stored), len(stored)), np.load(io.BytesIO(stored))
        assert read.dtype == expected.dtype and read.shape == expected.shape
        assert read.tobytes() == expected.tobytes()


def test_booleans_that_are_neither_0_nor_1_are_refused(tmp_path):
    content = header((2,), "|b1") + b"\1\2"
    refused(write(tmp_path / "d.npz", ("x.npy", npy(np.zeros((2, 1)))), ("y.npy", content)), "neither 0 nor 1")


def test_headers_of_other_writers_are_read():
    for text in (
        "{'shape': (2L, 1L), 'fortran_order': False, 'descr': '<f4'}",
        '{"descr":"<f4","fortran_order":False,"shape":(2,1)}',
        "{'descr': 'float32', 'fortran_order': False, 'shape': (2, 1,), }        ",
    ):
        stored = header((), text=text) + np.array([1, 2], np.float32).tobytes()
        assert read_npy(io.BytesIO(stored), len(stored)).tolist() == [[1], [2]]


def test_two_members_of_one_name_are_refused(tmp_path):
    contents = npy(np.zeros((1, 2))), npy(np.ones((1, 2)))
    with pytest.warns(UserWarning, match="Duplicate name"):
        twice = write(tmp_path / "twice.npz", ("x.npy", contents[0]), ("x.npy", contents[1]))
    refused(twice, "holds 2 arrays named x")
    refused(write(tmp_path / "both.npz", ("x", contents[0]), ("x.npy", contents[1])), "holds 2 arrays named x")


@pytest.mark.parametrize("name", ["a/x.npy", "../x.npy", "/x.npy", "x.npy/", "x.npy.npy", "X.npy"])
def test_members_of_other_names_are_not_x(tmp_path, name):
    refused(write(tmp_path / "d.npz", (name, npy(np.zeros((1, 2))))), "no array x")


def test_an_archive_of_very_many_members_is_listed_briefly(tmp_path):
    path = write(tmp_path / "d.npz", *((f"{i}.npy", b"") for i in range(2000)))
    with pytest.raises(DataError, match="and 1980 more") as caught:
        load_data(path)
    assert len(str(caught.value)) < 1000


def test_names_in_errors_do_not_reach_the_terminal_as_commands(tmp_path):
    with pytest.raises(DataError, match=r"\\x1b\[2J") as caught:
        load_data(write(tmp_path / "d.npz", ("\x1b[2J" + "a" * 60000 + ".npy", b"")))
    assert "\x1b" not in str(caught.value) and len(str(caught.value)) < 500


def test_fortran_order_is_read_by_its_axes(tmp_path):
    x = np.arange(24.0).reshape(2, 3, 4)
    np.savez(tmp_path / "f.npz", x=np.asfortranarray(x))
    np.savez(tmp_path / "c.npz", x=x)
    fortran, plain = load_data(tmp_path / "f.npz"), load_data(tmp_path / "c.npz")
    assert (fortran.inputs == x).all() and fortran.digest == plain.digest


def test_what_is_no_regular_file_is_refused_without_reading(tmp_path):
    (tmp_path / "folder.npz").mkdir()
    os.mkfifo(tmp_path / "pipe.npz")
    (tmp_path / "device.npz").symlink_to("/dev/zero")
    for name in ("folder", "pipe", "device"):
        refused(tmp_path / f"{name}.npz", rf"{name}\.npz: no regular file")
        with pytest.raises(DataError, match="no regular file"):
            read_npz(tmp_path / f"{name}.npz", ("x",))
    (tmp_path / "nowhere.npz").symlink_to(tmp_path / "absent")
    refused(tmp_path / "nowhere.npz", "no data")


@pytest.mark.parametrize("name", ["a\0.npz", "x" * 5000 + ".npz", "~nobody-of-this-name/x.npz", ""])
def test_names_that_can_be_no_path_are_no_data(name):
    refused(name, "no data|not a .npz file|no regular file")


@pytest.mark.parametrize("name", [3, None, b"x.npz", ["digits"], ("digits",), {}])
def test_what_is_neither_name_nor_path_is_a_data_error(name):
    refused(name, "no name and no path")


def test_limits_hold_for_members_and_for_the_data(tmp_path):
    np.savez(tmp_path / "x.npz", x=np.zeros((4, 64), np.uint8), y=np.zeros(4, np.int64))
    refused(tmp_path / "x.npz", r"x\.npy asks for 384 member bytes.*--allow member_bytes=384", LimitError,
            limits=Limits(member_bytes=383))  # fmt: skip
    # 256 bytes are stored, 1,024 are needed as float32.
    refused(tmp_path / "x.npz", r"asks for 1,024 data bytes", LimitError, limits=Limits(data_bytes=1023))
    assert len(load_data(tmp_path / "x.npz", limits=Limits(member_bytes=384, data_bytes=1024))) == 4


# IDX and CIFAR files


def mnist(folder, images, labels=None, suffix=".gz"):
    one = bytes((0, 0, 8, 1)) + struct.pack(">I", 1) + b"\0"
    for stem, content in (("images-idx3", images), ("labels-idx1", labels or gzip.compress(one))):
        (folder / f"t10k-{stem}-ubyte{suffix}").write_bytes(content)
    return folder


def idx_header(*shape):
    return bytes((0, 0, 8, len(shape))) + struct.pack(f">{len(shape)}I", *shape)


def test_an_idx_header_that_claims_terabytes_is_refused_before_it_is_unpacked(tmp_path):
    mnist(tmp_path, gzip.compress(idx_header(2**32 - 1, 28, 28) + bytes(100)))
    refused("mnist", "member_bytes=", LimitError, data_dir=tmp_path)


def test_an_idx_bomb_is_refused_before_it_is_unpacked(tmp_path):
    packed, crc, size = zeros_packed(idx_header(2**17, 28, 28), 98 * 2**20)
    bomb = b"\x1f\x8b\x08\0\0\0\0\0\0\3" + packed + struct.pack("<II", crc, size)
    mnist(tmp_path, bomb)
    refused(
        "mnist",
        r"packed more than 100 times smaller, .*--allow expanded_bytes=102760448",
        LimitError,
        data_dir=tmp_path,
    )


def test_an_idx_file_is_unpacked_no_further_than_it_claims(tmp_path):
    packed, crc, size = zeros_packed(idx_header(1, 28, 28), 2**26)
    mnist(tmp_path, b"\x1f\x8b\x08\0\0\0\0\0\0\3" + packed + struct.pack("<II", crc, size))
    refused("mnist", "trailing bytes", data_dir=tmp_path)


def test_pipes_in_place_of_idx_and_cifar_files_are_passed_over(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with quick_and_small(), pytest.raises(DataError, match="no regular file"):
        read_idx(tmp_path / "pipe", 3)
    os.mkfifo(tmp_path / "test_part.npz")
    refused("cifar10", "no regular file", data_dir=tmp_path)


def test_a_cifar_batch_of_a_terabyte_is_refused_by_its_size(tmp_path):
    with (tmp_path / "test_batch.bin").open("wb") as file:
        file.truncate(3073 * 2**28)
    refused("cifar10", "data_bytes=", LimitError, data_dir=tmp_path)
