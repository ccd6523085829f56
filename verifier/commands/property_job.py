"""Properties of a model as a job: their boxes, one after the other, are what the loop goes over."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from encoders.box import Box
from encoders.formats import read_property
from encoders.limits import Limits
from encoders.property import Property
from encoders.region import Norm
from verifier.agreement import INPUTS
from verifier.commands.job import Job
from verifier.commands.origin import placed
from verifier.commands.request import Model
from verifier.commands.verify_request import VerifyRequest
from verifier.joint_subject import load_copies
from verifier.properties import KnownMargins, Question, ask, start
from verifier.runs.folder import RunError
from verifier.runs.property_files import digest_of
from verifier.runs.records import Record
from verifier.runs.verify_record import VerifyRecord, looks_like_a_file
from verifier.subject import Subject
from verifier.threads import threads_for

# A property, or a file of one or more.
Asked = Property | str | Path


@dataclass(frozen=True, eq=False)
class AskedBox:
    """One box of a property, in the shape of the model's input: the number `box` of `boxes`.

    name: of the property, as it was given. file: its full path; None of an object. digest: of the box's numbers.
    """

    asked: Property
    name: str
    file: str | None
    box: int
    boxes: int
    digest: str

    @property
    def identity(self) -> tuple[str, int, int]:
        """What a record must say alike to be about this box."""
        return self.digest, self.box, self.boxes


@dataclass(frozen=True, eq=False, kw_only=True)
class PropertyJob(Job):
    """Questions about the boxes of properties, which fit the subject; `indices` holds all boxes of some properties.

    margins: the networks that were made of it.
    """

    boxes: tuple[AskedBox, ...]
    margins: KnownMargins = field(default_factory=dict)

    @property
    def about(self) -> dict[str, Any]:
        digests = " ".join(box.digest for box in self.boxes)
        return {"properties": hashlib.sha256(digests.encode()).hexdigest()}

    @property
    def size(self) -> int:
        return len(self.boxes)

    def check_known(self, records: Mapping[int, Record]) -> None:
        for index, record in sorted(records.items()):
            assert isinstance(record, VerifyRecord)
            if index >= self.size or (record.digest, record.box, record.boxes) != self.boxes[index].identity:
                raise RunError(
                    f"the folder holds another run: its box {index} is of {record.name!r}, which is not what is asked "
                    "now; ask about the same properties in the same order, and more after them, or name another folder "
                    "with --out"
                )

    def shows(self, records: Sequence[VerifyRecord], found: Sequence[tuple[np.ndarray, float]], norm: Norm) -> Tensor:
        shown = []
        for record, (point, distance) in zip(records, found, strict=True):
            outputs = np.asarray(self.subject.execute(point[None])[0], dtype=np.float64)
            asked = self.boxes[record.index].asked
            shown.append(
                distance == record.claimed_distance and asked.contains(*map(torch.from_numpy, (point, outputs)))
            )
        return torch.tensor(shown)

    def units(self, size: int) -> Iterator[range]:
        start = self.indices.start
        while start < self.indices.stop:
            # One time is for all boxes of a property, and one witness ends it.
            stop = start - self.boxes[start].box + self.boxes[start].boxes
            yield range(start, stop)
            start = stop

    def threads(self) -> contextlib.AbstractContextManager[None]:
        return threads_for(self.subject.network.parameter_count)

    def question(self, index: int) -> Question:
        """Return the question that a box is."""
        return ask(self.subject, self.boxes[index].asked, self.seed, self.margins)


def load_property_job(model: Model, given: Sequence[Asked], request: VerifyRequest) -> PropertyJob:
    """Return the job of properties, the model seen to be its graph all over their boxes.

    Raises ValueError where it is not, or where they do not fit it.
    """
    read = [_read(one, request.limits) for one in given]
    networks = request.networks or {}
    joint, shape = read[0][0].joint, tuple(read[0][0].lower.shape)
    if any(asked.joint != joint for properties in read for asked in properties):
        raise ValueError(
            "the properties are about different networks, or inputs of them: ask about each in a command of its own"
        )
    subject = load_copies(
        model, networks, joint, input_shape=shape, device=request.device, limits=request.limits
    )  # fmt: skip
    outputs = math.prod(subject.network.output_shape)
    boxes: list[AskedBox] = []
    starts = [0]
    for number, (one, properties) in enumerate(zip(given, read, strict=True)):
        name = _name(one, number)
        file = None if isinstance(one, Property) else str(Path(one).absolute())
        for box, asked in enumerate(properties):
            asked = asked.shaped(subject.network.input_shape, outputs)
            boxes.append(AskedBox(asked, name, file, box, len(properties), digest_of(asked)))
        starts.append(len(boxes))
    last = len(given) if request.limit is None else min(len(given), request.offset + request.limit)
    indices = range(starts[request.offset], starts[last])
    subject = seen_to_agree(subject, [box.asked for box in boxes])
    origin: dict[str, Any] = dict(placed({"model": model}))
    if joint is not None:
        origin |= {"networks": placed(networks), "joint": joint.to_json()}
    return PropertyJob(subject=subject, seed=request.seed, indices=indices, origin=origin, boxes=tuple(boxes))


def seen_to_agree(subject: Subject, boxes: Sequence[Property]) -> Subject:
    """Return the subject, seen to be its graph all over boxes of its shape; ValueError where it is not."""
    dtype = subject.network.dtype
    lower, upper = (torch.stack(ends) for ends in ([box.lower for box in boxes], [box.upper for box in boxes]))
    hull = Box(lower.amin(dim=0, keepdim=True), upper.amax(dim=0, keepdim=True))
    reach = torch.cat([hull.lower, hull.upper]).to(dtype)
    if not bool(reach.isfinite().all()):
        raise ValueError(f"{subject.name} takes {dtype}, which does not hold the bounds of every property")
    return subject.probed(torch.cat([start(box, dtype) for box in boxes[:INPUTS]]).to(dtype), hull)


def _read(given: Asked, limits: Limits) -> tuple[Property, ...]:
    return (given,) if isinstance(given, Property) else read_property(given, limits)


def _name(given: Asked, number: int) -> str:
    if not isinstance(given, Property):
        return str(given)
    name = given.name or f"property {number}"
    return f"{name} (object)" if looks_like_a_file(name) else name
