"""Torch calls that slide windows, pool to a size or resize: the network has their values, or they are refused."""

from collections import Counter

import pytest
import torch

from encoders.formats.errors import ModelFileError
from encoders.formats.torch_export import from_module
from tests.networks.torch_windows import DRAWS, Slid, drawn_module

# Sums of some dozens of products of numbers near 1, in float64.
TOLERANCE = 1e-11

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore:.*LeafSpec.*:FutureWarning")

SAMPLE, BLOCK, BLOCKS = 72, 600, 5


def outcome(model: Slid, shape: tuple[int, ...], seed: int) -> str:
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    try:
        expected = model(x)
    except (RuntimeError, ValueError):
        # Sizes that do not fit; the reader cannot trace it either.
        return "invalid"
    try:
        network = from_module(model, shape)
    except ModelFileError:
        return "refused"
    value = network.evaluate(x)
    assert value.shape == expected.shape, seed
    assert float((value - expected).abs().max()) <= TOLERANCE * (1 + float(expected.abs().max())), seed
    return "equal"


def sweep(seeds: range) -> Counter[str]:
    counts: Counter[str] = Counter()
    for seed in seeds:
        model, shape = drawn_module(seed)
        name = DRAWS[seed % len(DRAWS)].__name__
        with torch.no_grad():
            counts[f"{name}: {outcome(model.eval(), shape, seed)}"] += 1
    return counts


def test_a_sample_of_drawn_calls_is_read_with_their_values_or_refused() -> None:
    counts = sweep(range(SAMPLE))
    assert all(counts[f"{draw.__name__}: equal"] >= 5 for draw in DRAWS), counts


@pytest.mark.slow
@pytest.mark.parametrize("block", range(BLOCKS))
def test_drawn_calls_are_read_with_their_values_or_refused(block: int) -> None:
    counts = sweep(range(SAMPLE + block * BLOCK, SAMPLE + (block + 1) * BLOCK))
    assert all(counts[f"{draw.__name__}: equal"] >= 40 for draw in DRAWS), counts


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: torch.nn.functional.interpolate(x, scale_factor=2.1), "give the size"),
        (lambda x: torch.nn.functional.interpolate(x, scale_factor=1.1, mode="bilinear"), "leave it out"),
        (lambda x: torch.nn.functional.adaptive_max_pool2d(x, 2, return_indices=True)[1] * 1.0, "output 1"),
    ],
)
def test_what_is_not_read_is_refused_with_a_remedy(call, words) -> None:
    with pytest.raises(ModelFileError, match=words):
        from_module(Slid(call), (2, 3, 4))
