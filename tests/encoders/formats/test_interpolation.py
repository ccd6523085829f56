"""Matrices of interpolation: rows sum to one, lines are reproduced, and no rounding decides which place is read."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch

from encoders.arithmetic import ARITHMETICS
from encoders.box import Box
from encoders.formats.interpolation import COORDINATES, ROUNDINGS, cubic, linear, nearest
from encoders.formats.torch_export import from_module
from encoders.ops import Affine
from encoders.passes.execution_margins import execution_errors, execution_refusal
from tests.networks.chains import chain

SCALES = [Fraction(1, 2), Fraction(2), Fraction(3), Fraction(3, 2), Fraction(7, 5)]
MODES = sorted(name for name in COORDINATES if not name.startswith(("torch", "tf")))


@pytest.mark.parametrize("scale", SCALES, ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_rows_sum_to_one_and_linear_keeps_lines_between_the_ends(mode: str, scale: Fraction) -> None:
    size = 10
    outputs = int(size * scale)
    places = torch.arange(size, dtype=torch.float64)
    matrix = linear(size, outputs, scale, mode)
    assert torch.allclose(matrix.sum(dim=1), torch.ones(outputs, dtype=torch.float64), rtol=0, atol=1e-15)
    assert bool((matrix >= 0).all())
    exact = [COORDINATES[mode](Fraction(i), scale, size, outputs) for i in range(outputs)]
    wanted = torch.tensor([float(min(max(x, 0), size - 1)) for x in exact], dtype=torch.float64)
    assert torch.allclose(matrix @ places, wanted, rtol=0, atol=1e-13)
    smooth = cubic(size, outputs, scale, mode, -0.5)
    inside = torch.tensor([2 <= x <= size - 3 for x in exact])
    # Keys: with a = -1/2 parabolas are reproduced where no place lies outside.
    assert torch.allclose((smooth @ places**2)[inside], wanted[inside] ** 2, rtol=0, atol=1e-12)
    for outside in (False, True):
        total = cubic(size, outputs, scale, mode, -0.75, outside).sum(dim=1)
        assert torch.allclose(total, torch.ones(outputs, dtype=torch.float64), rtol=0, atol=1e-14)


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_nearest_reads_the_place_that_fractions_say(rounding: str) -> None:
    matrix = nearest(5, 10, Fraction(2), "asymmetric", (rounding,))
    halves = {"ceil": 1, "floor": 0, "round_prefer_ceil": 1, "round_prefer_floor": 0}[rounding]
    wanted = [min(i // 2 + (halves if i % 2 else 0), 4) for i in range(10)]
    assert matrix.argmax(dim=1).tolist() == wanted
    assert bool((matrix.sum(dim=1) == 1).all())


def test_a_place_that_rounding_decides_is_refused() -> None:
    """By two roundings that differ, or by a coordinate that is a whole number in fractions and less in float32."""
    with pytest.raises(ValueError, match="rounding decides"):
        nearest(10, 7, Fraction(7, 10), "asymmetric", ("floor", "ceil"))
    refused = 0
    for size, outputs in itertools.product(range(2, 30, 3), range(2, 120, 3)):
        scale = Fraction(size, outputs)
        rough = [np.floor(np.float32(i) * np.float32(float(scale))) for i in range(outputs)]
        exact = [i * size // outputs for i in range(outputs)]
        try:
            matrix = nearest(size, outputs, scale, "torch", ("floor",))
        except ValueError as error:
            assert "border between" in str(error)
            refused += 1
            assert rough != exact
        else:
            assert matrix.argmax(dim=1).tolist() == exact == rough
    assert refused > 0


@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")
@pytest.mark.parametrize(("outputs", "known"), [(120, True), (97, False), (31, False)])
def test_executions_are_bounded_only_where_float32_holds_the_coordinates(outputs: int, known: bool) -> None:
    """Torch rounds coordinates by 2^-24 of the grid, which weights near zero show beyond any rounding of their own."""
    model = torch.nn.Upsample(size=outputs, mode="linear")
    network = from_module(model, (1, 60))
    x = torch.zeros(1, 1, 60)
    x[..., ::2] = 1e6
    real = network.cast(torch.float64, torch.device("cpu")).evaluate(x.double())
    arithmetic = ARITHMETICS["float32"]
    plain = chain((1, 60), Affine(network.output.op.weight))
    _, errors = execution_errors(plain, Box.point(x.double()), arithmetic)
    assert bool(((model(x).double() - real).abs() <= errors).all()) is known
    refusal = execution_refusal(network, arithmetic)
    assert refusal is None if known else refusal is not None and "is not known" in refusal
