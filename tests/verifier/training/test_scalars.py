"""Scalars of trainings: what is in the file is what the log says, by a reader of its own and by TensorBoard's."""

import csv
import struct

import pytest

from verifier.commands.train import train
from verifier.training.history import History
from verifier.training.scalars import Scalars, crc32c, masked


def records(path):
    """Yield the data of the records of a file, each with its two checks."""
    content = path.read_bytes()
    while content:
        length, check = struct.unpack("<QI", content[:12])
        assert check == masked(content[:8])
        data = content[12 : 12 + length]
        assert struct.unpack("<I", content[12 + length : 16 + length])[0] == masked(data)
        yield data
        content = content[16 + length :]


def test_checks_are_castagnolis():
    # RFC 3720, B.4, and the catalogue of Cook.
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43


def test_an_epoch_is_a_record_and_none_stands_twice(tmp_path):
    scalars = Scalars(tmp_path / "logs")
    scalars.write(History([0.5], [0.25], [0.125]))
    scalars.write(History([0.5, 0.375], [0.25, 0.75], [0.125, 0.0625]))
    first, one, two = records(scalars.path)
    assert first.endswith(b"brain.Event:2")
    # Field 2 is the step, then the summary: a value is its tag and a float.
    assert one[9:11] == b"\x10\x01" and two[9:11] == b"\x10\x02"
    for data, loss, score in ((one, 0.5, 0.25), (two, 0.375, 0.75)):
        assert b"\x0a\x04loss\x15" + struct.pack("<f", loss) in data
        assert b"\x0a\x10validation_score\x15" + struct.pack("<f", score) in data


def test_training_writes_what_its_log_says_and_a_file_is_no_folder(tmp_path):
    train("linear", "digits", tmp_path / "a.safetensors", epochs=2, limit=100, logdir=tmp_path / "logs")
    (path,) = (tmp_path / "logs").iterdir()
    with (tmp_path / "a.csv").open() as file:
        rows = list(csv.DictReader(file))
    _, *events = records(path)
    assert len(events) == len(rows) == 2
    for event, row in zip(events, rows, strict=True):
        assert b"loss\x15" + struct.pack("<f", float(row["loss"])) in event
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="is a file; name a folder"):
        train("linear", "digits", tmp_path / "b.safetensors", epochs=1, limit=100, logdir=tmp_path / "file")
    assert not (tmp_path / "b.safetensors").exists()


def test_tensorboard_reads_it(tmp_path):
    """Skipped without the package tensorboard."""
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    scalars = Scalars(tmp_path)
    scalars.write(History([0.5, 0.375], [0.25, 0.75], [0.125, 0.0625]))
    held = reader.EventAccumulator(str(tmp_path))
    held.Reload()
    assert [(event.step, event.value) for event in held.Scalars("loss")] == [(1, 0.5), (2, 0.375)]
    assert sorted(held.Tags()["scalars"]) == ["learning_rate", "loss", "validation_score"]
