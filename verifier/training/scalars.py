"""Scalars of a training as TensorBoard reads them: a file of events, to which every epoch adds some.

A file is a sequence of records: the length (8 bytes, little-endian), its masked CRC-32C, the data, their masked CRC-32C
(TensorFlow's TFRecord); data are an `Event` of protocol buffers: wall_time (field 1, double), step (2, varint), and
file_version (3, text) or summary (5) of values (1) with tag (1) and simple_value (2, float). Written here, as the
packages that do it take more space than all of this project.
"""

from __future__ import annotations

import functools
import struct
import time
from collections.abc import Mapping
from pathlib import Path

from verifier.training.history import History

# CRC-32C (Castagnoli 1993), reflected.
POLYNOMIAL = 0x82F63B78


class Scalars:
    """The scalars of one training in a folder. A training that is taken up again adds a file with all of its epochs."""

    def __init__(self, folder: Path) -> None:
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"--logdir {folder} is a file; name a folder")
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"events.out.tfevents.{time.time_ns()}.verifier"
        self.epochs = 0
        self._add(_text(3, b"brain.Event:2"))

    def write(self, history: History) -> None:
        """Add the epochs that the file does not have yet."""
        columns = {"loss": history.losses, "validation_score": history.scores, "learning_rate": history.rates}
        for epoch in range(self.epochs, len(history.losses)):
            self._add(_event(epoch + 1, {name: values[epoch] for name, values in columns.items()}))
        self.epochs = len(history.losses)

    def _add(self, event: bytes) -> None:
        data = _key(1, 1) + struct.pack("<d", time.time()) + event
        length = struct.pack("<Q", len(data))
        record = length + struct.pack("<I", masked(length)) + data + struct.pack("<I", masked(data))
        with self.path.open("ab") as file:
            file.write(record)


def crc32c(data: bytes) -> int:
    """Return the CRC-32C of bytes; of b"123456789" it is 0xe3069283."""
    value = 0xFFFFFFFF
    for byte in data:
        value = _table()[(value ^ byte) & 0xFF] ^ (value >> 8)
    return value ^ 0xFFFFFFFF


def masked(data: bytes) -> int:
    """Return the CRC-32C as records hold it: rotated by 15 bits to the right, and moved."""
    value = crc32c(data)
    return (((value >> 15) | (value << 17)) + 0xA282EAD8) & 0xFFFFFFFF


@functools.cache
def _table() -> tuple[int, ...]:
    entries = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (POLYNOMIAL if value & 1 else 0)
        entries.append(value)
    return tuple(entries)


def _event(step: int, values: Mapping[str, float]) -> bytes:
    parts = [_text(1, name.encode()) + _key(2, 5) + struct.pack("<f", value) for name, value in values.items()]
    return _key(2, 0) + _varint(step) + _text(5, b"".join(_text(1, part) for part in parts))


def _text(field: int, content: bytes) -> bytes:
    return _key(field, 2) + _varint(len(content)) + content


def _key(field: int, kind: int) -> bytes:
    return _varint(field << 3 | kind)


def _varint(value: int) -> bytes:
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])
