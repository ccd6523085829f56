"""A property kept by a run is the one that was asked about, to the last bit, and any other has another digest."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from encoders import Halfspaces, Property
from encoders.joint import Copy, Joint
from tests.networks.chains import random_relu_network
from tests.networks.random_properties import random_property
from verifier.runs.property_files import digest_of, read_stored, write_property

COPY = Copy("f", (1,), (0,), 1)
JOINTS = [
    Joint(2, (COPY,), (1,)),
    Joint(2, (COPY,), (0,)),
    Joint(2, (replace(COPY, places=(1,)),), (0,)),
    Joint(2, (replace(COPY, network="g"), COPY)),
    Joint(2, (COPY, replace(COPY, network="g"))),
    Joint(2, (COPY, replace(COPY, places=(-1,), constants=(0.1,)))),
    Joint(2, (COPY, replace(COPY, places=(-1,), constants=(0.1 + 2.0**-56,)))),
]


def values(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def example() -> Property:
    """Return a property with everything that one can have: inner bounds, strict rows, written offsets."""
    lower, upper = values(0.0, -1.0), values(1.0, 2.0)
    tenth = Halfspaces(values(1.0, -3.0)[None], values(0.1), (True,), (Fraction(1, 10),))
    rows = Halfspaces(torch.stack([values(1.0, 0.0), values(0.0, 5e-324)]), values(1e300, -0.0))
    return Property(lower, upper, (tenth, rows), "name", "file", (lower + 0.125, upper), "note")


def changed(asked: Property) -> list[Property]:
    """Return properties each of which differs from the example in one number."""
    first, second = asked.unsafe
    assert asked.inner is not None and first.written is not None
    step = values(0.0, 2.0**-50)
    return [
        replace(asked, lower=asked.lower - step),
        replace(asked, upper=asked.upper + step),
        replace(asked, inner=None),
        replace(asked, inner=(asked.inner[0] + step, asked.inner[1])),
        replace(asked, unsafe=(first,)),
        replace(asked, unsafe=()),
        replace(asked, unsafe=(second, first)),
        replace(asked, unsafe=(replace(first, strict=()), second)),
        replace(asked, unsafe=(replace(first, written=(Fraction(1, 11),)), second)),
        replace(asked, unsafe=(replace(first, written=None), second)),
        replace(asked, unsafe=(replace(first, offsets=torch.nextafter(first.offsets, first.offsets + 1)), second)),
        replace(asked, unsafe=(replace(first, coefficients=-first.coefficients), second)),
        replace(asked, unsafe=(first, second.row(0), second.row(1))),
        *(replace(asked, joint=joint) for joint in JOINTS),
    ]


def test_what_is_stored_is_read_again_and_anything_else_has_another_digest(tmp_path):
    asked = example()
    write_property(asked, tmp_path)
    stored = read_stored(tmp_path, digest_of(asked))
    assert digest_of(stored) == digest_of(asked)
    assert torch.equal(stored.lower, asked.lower) and torch.equal(stored.upper, asked.upper)
    for one, other in zip(stored.unsafe, asked.unsafe, strict=True):
        assert torch.equal(one.coefficients, other.coefficients) and torch.equal(one.offsets, other.offsets)
        assert one.written == other.written and any(one.strict) == any(other.strict)
    assert stored.inner is not None and torch.equal(stored.inner[0], asked.inner[0])
    for joint in JOINTS:
        write_property(replace(asked, joint=joint), tmp_path)
        assert read_stored(tmp_path, digest_of(replace(asked, joint=joint))).joint == joint
    digests = [digest_of(asked), *map(digest_of, changed(asked))]
    assert len(set(digests)) == len(digests)


def test_names_files_and_shapes_are_no_part_of_the_digest():
    asked = example()
    assert digest_of(replace(asked, name="x", source="y", note="z")) == digest_of(asked)
    inner = tuple(end.reshape(1, 2) for end in asked.inner)
    square = replace(asked, lower=asked.lower.reshape(1, 2), upper=asked.upper.reshape(1, 2), inner=inner)
    assert digest_of(square) == digest_of(asked)


@pytest.mark.parametrize("seed", range(6))
def test_random_properties_are_read_again(seed, tmp_path):
    network = random_relu_network(seed, (2, 4, 3))
    asked = random_property(network, seed, exact=bool(seed % 2))
    write_property(asked, tmp_path)
    assert digest_of(read_stored(tmp_path, digest_of(asked))) == digest_of(asked)


def test_files_that_hold_no_property_or_another_are_refused(tmp_path):
    asked = example()
    write_property(asked, tmp_path)
    digest = digest_of(asked)
    path = tmp_path / "properties" / f"{digest}.npz"
    with np.load(path) as stored:
        arrays = dict(stored)
    text = np.frombuffer(b'[["1/0"], null]', dtype=np.uint8)
    hostile = (
        {"lower": arrays["lower"] - 1}, {"upper": np.full(2, np.nan)}, {"sizes": arrays["sizes"] * 0},
        {"sizes": arrays["sizes"][:1]}, {"strict": arrays["strict"] * 0}, {"written": text}, {"written": text[:3]},
        {"coefficients": arrays["coefficients"].astype(np.float32)}, {"offsets": arrays["offsets"][:1]},
        {"coefficients": arrays["coefficients"][:, :0]}, {"inner.upper": arrays["inner.upper"][:1]},
    )  # fmt: skip
    for change in hostile:
        np.savez(path, **{**arrays, **change})
        with pytest.raises(ValueError):
            read_stored(tmp_path, digest)
    for name in arrays:
        np.savez(path, **{key: value for key, value in arrays.items() if key != name})
        with pytest.raises(ValueError):
            read_stored(tmp_path, digest)
    path.write_bytes(b"nonsense")
    for other in (digest, "0" * 64, "../" + digest, ""):
        with pytest.raises(ValueError):
            read_stored(tmp_path, other)
