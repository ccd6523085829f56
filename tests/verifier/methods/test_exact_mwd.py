"""MWD networks exactly: contraction, rows with binaries, grids and brute force tell the same story."""

from dataclasses import replace
from itertools import product

import mpmath
import numpy as np
import pytest
import torch

from encoders import Box, Network, Node
from encoders.formulations.relax import encode_exactly
from encoders.linear_model import Direction
from encoders.network import INPUT
from encoders.ops import Mwd, MwdConv2d
from encoders.ops.mwd_exact import MOST_LITERALS, gaussian_lines
from encoders.region import BallRegion
from tests.networks.mwd_chains import KINDS, network_of
from tests.seeds import seeds
from verifier.bounds.linear.bounds import linear_bounds
from verifier.solvers import SOLVERS, Termination

pytest.importorskip("numba")

from verifier.bounds.mwd import contraction
from verifier.certificates.distance_chain import dense_layers

F64 = torch.float64
# HiGHS keeps rows to 1e-7 and whole numbers to 1e-6, which big constants multiply.
SOLVER_TOLERANCE = 1e-5


@pytest.mark.parametrize("seed", range(6))
def test_lines_hold_the_curve_and_are_as_near_as_their_parts_are_narrow(seed):
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(1, 40, generator=generator, dtype=F64) * (1.0, 1.5, 4.0, 0.01, 0.8, 30.0)[seed]
    width = torch.rand(1, 40, generator=generator, dtype=F64) * (1.0, 0.2, 1.0, 1e-6, 1e-13, 2.0)[seed]
    low[0, :3], width[0, 0] = torch.tensor([0.0, 0.5**0.5, 0.7]), 0.0
    box = Box(low, low + width)
    lines = gaussian_lines(box)
    with mpmath.workdps(50):
        for j in range(40):
            slopes, offsets = (
                [mpmath.mpf(float(getattr(lines, f"{side}_{part}")[0, j])) for side in ("lower", "upper")]
                for part in ("slope", "offset")
            )
            a, b = mpmath.mpf(float(box.lower[0, j])), mpmath.mpf(float(box.upper[0, j]))
            for share in range(33):
                z = a + (b - a) * share / 32
                value = mpmath.exp(-z * z)
                assert slopes[0] * z + offsets[0] <= value <= slopes[1] * z + offsets[1]
            # Between the chord and a tangent of its slope lie h^2 / 8 max |f''|, and |f''| <= 2.
            height = offsets[1] - offsets[0] + (slopes[1] - slopes[0]) * b
            assert height <= (b - a) ** 2 / 2 + mpmath.mpf("1e-14")


def layer(kind, seed, units, inputs):
    """Return a random layer: plain, negated, mixed or linear (mixed, with biases); a weight of it is zero."""
    generator = torch.Generator().manual_seed(seed)
    weight, attractor = (torch.rand(units, inputs, generator=generator, dtype=F64) for _ in range(2))
    weight = 3.0 * weight
    weight[0, 0] = 0.0
    negated = torch.arange(units) % 2 == 0 if kind in ("mixed", "linear") else torch.full((units,), kind == "negated")
    bias = torch.randn(units, generator=generator, dtype=F64) if kind == "linear" else None
    return Mwd(weight, attractor, negated, bias, "linear" if kind == "linear" else None)


def exact_outputs(op, x):
    """Return (distances, outputs) at x in mpmath."""
    distances, outputs = [], []
    for j in range(len(op.negated)):
        terms = [
            abs(mpmath.mpf(u) * (mpmath.mpf(v) - mpmath.mpf(w)))
            for u, w, v in zip(op.weight[j].tolist(), op.attractor[j].tolist(), x, strict=True)
        ]
        z = max(terms)
        flip = bool(op.negated[j])
        if op.has_linear_link:
            outputs.append(mpmath.mpf(float(op.bias[j])) + (z if flip else -z))
        else:
            outputs.append(-mpmath.expm1(-z * z) if flip else mpmath.exp(-z * z))
        distances.append(z)
    return distances, outputs


def rows_hold(rows, values):
    """Return whether values `(columns,)` keep every row and the ends of the auxiliary columns, in mpmath."""
    matrix, held = rows.matrix, True
    for r in range(matrix.shape[0]):
        part = slice(matrix.indptr[r], matrix.indptr[r + 1])
        total = sum(
            (mpmath.mpf(float(a)) * values[j] for a, j in zip(matrix.data[part], matrix.indices[part], strict=True)),
            start=mpmath.mpf(0),
        )
        held = held and (rows.lower[r] == -np.inf or total >= mpmath.mpf(float(rows.lower[r])))
        held = held and (rows.upper[r] == np.inf or total <= mpmath.mpf(float(rows.upper[r])))
    return held


@pytest.mark.parametrize("kind", ["plain", "negated", "mixed", "linear"])
@pytest.mark.parametrize("seed", range(4))
def test_every_row_holds_at_points_of_the_box_for_some_binaries(seed, kind):
    op = layer(kind, seed, 2, 2)
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(1, 2, generator=generator, dtype=F64) * (0.8, 0.2, 0.5, 0.0)[seed]
    box = Box(low, low + (0.1, 0.7, 0.0, 1.0)[seed])
    rows = op.exact(box, segments=2)
    columns = rows.matrix.shape[1]
    first = columns - rows.binaries
    # Binaries that a row sums up to 1: exactly one of them is.
    groups = []
    for r in range(rows.matrix.shape[0]):
        places = rows.matrix.indices[rows.matrix.indptr[r] : rows.matrix.indptr[r + 1]]
        if rows.lower[r] == rows.upper[r] == 1.0 and len(places) > 1 and (places >= first).all():
            groups.append(places.tolist())
    assert sum(len(group) for group in groups) == rows.binaries
    strips = (first - 6) if not op.has_linear_link else 0
    assert strips == len(rows.auxiliary[0]) - 2
    with mpmath.workdps(60):
        for share in torch.cat([torch.rand(6, 2, generator=generator, dtype=F64), torch.zeros(1, 2), torch.ones(1, 2)]):
            x = torch.minimum(box.lower[0] + share * (box.upper - box.lower)[0], box.upper[0]).tolist()
            distances, outputs = exact_outputs(op, x)
            ends = rows.auxiliary
            assert all(ends[0][j] <= z <= ends[1][j] for j, z in enumerate(distances))
            found = False
            for chosen in product(*groups):
                values = [*map(mpmath.mpf, x), *outputs, *distances, *[mpmath.mpf(0)] * (columns - 6)]
                for place in chosen:
                    values[place] = mpmath.mpf(1)
                # The value in the chosen strip of a curve is the distance: the row -z + sum a = 0 says of whom.
                for r in range(rows.matrix.shape[0]):
                    part = slice(rows.matrix.indptr[r], rows.matrix.indptr[r + 1])
                    places, data = rows.matrix.indices[part].tolist(), rows.matrix.data[part].tolist()
                    if (
                        rows.lower[r] == rows.upper[r] == 0.0
                        and -1.0 in data
                        and set(places[1:]) <= set(range(6, first))
                    ):
                        z = distances[places[data.index(-1.0)] - 4]
                        for place in places[1:]:
                            values[place] = z * values[place + strips]
                found = found or rows_hold(rows, values)
            assert found


@pytest.mark.parametrize("kind", ["plain", "negated", "mixed", "linear"])
@pytest.mark.parametrize("segments", [1, 3, 9])
def test_rows_pin_the_output_to_the_declared_gap(kind, segments):
    op = layer(kind, 5, 4, 3)
    network = Network((Node("layer", op, (INPUT,)),), (3,), F64)
    low = torch.tensor([[0.1, 0.3, 0.2]], dtype=F64)
    box = Box(low, low + 0.5)
    encoded = encode_exactly(network, {INPUT: box, "layer": op.interval(box)}, segments)
    gap = encoded.gaps["layer"]
    assert gap < (1e-9 if kind == "linear" else (0.5, 0.1, 0.02)[(1, 3, 9).index(segments)])
    x = low + 0.5 * torch.rand(3, generator=torch.Generator().manual_seed(segments), dtype=F64)
    y = op.evaluate(x)[0].numpy()
    for unit, sign in product(range(4), (1.0, -1.0)):
        model = encoded.model(sign * np.eye(4)[unit])
        lower, upper = model.col_lower.copy(), model.col_upper.copy()
        lower[:3] = upper[:3] = x[0].numpy()
        answer = SOLVERS["highs"].solve(replace(model, col_lower=lower, col_upper=upper), 60.0)
        assert answer.termination is Termination.OPTIMAL
        end = sign * float(model.cost @ answer.primal)
        assert sign * (y[unit] - end) >= -SOLVER_TOLERANCE
        assert abs(y[unit] - end) <= gap + SOLVER_TOLERANCE


def test_more_segments_bring_the_bound_to_the_minimum():
    network = network_of("gaussian-mixed", 3, (2, 5, 4, 3))
    box = Box(torch.full((1, 2), 0.2, dtype=F64), torch.full((1, 2), 0.8, dtype=F64))
    axis = torch.linspace(0.2, 0.8, 301, dtype=F64)
    outputs = network.cast(F64).evaluate(torch.cartesian_prod(axis, axis))
    least = float((outputs[:, 0] - outputs[:, 1]).min())
    misses = [least - milp_bound(network, box, 0, 1, segments) for segments in (1, 4, 16)]
    # The grid's minimum is within 0.002 of the exact one by the Lipschitz constant, and above it.
    assert -SOLVER_TOLERANCE <= misses[2] < misses[1] < misses[0]
    assert misses[2] < 0.02


def test_a_convolution_has_the_rows_of_its_dense_layer():
    generator = torch.Generator().manual_seed(2)
    weight, attractor = (torch.rand(2, 1, 2, 2, generator=generator, dtype=F64) for _ in range(2))
    op = MwdConv2d(weight, attractor, torch.tensor([True, False]), (1, 1), (1, 0, 0, 0))
    box = Box(torch.zeros(1, 1, 2, 2, dtype=F64), torch.full((1, 1, 2, 2), 0.6, dtype=F64))
    rows = op.exact(box, segments=2)
    flat = Box(box.lower.flatten(1), box.upper.flatten(1))
    dense = op.distance_layer((1, 2, 2)).exact(flat, segments=2)
    assert (rows.matrix != dense.matrix).nnz == 0 and np.array_equal(rows.upper, dense.upper)


def test_large_layers_and_unbounded_boxes_are_refused():
    op = layer("plain", 0, 64, 64)
    with pytest.raises(ValueError, match=f"binaries, more than the {MOST_LITERALS:,}"):
        op.exact(Box(torch.zeros(1, 64, dtype=F64), torch.ones(1, 64, dtype=F64)))
    image = torch.zeros(1, 1, 100, 100, dtype=F64)
    wide = MwdConv2d(torch.ones(2, 1, 2, 2), torch.zeros(2, 1, 2, 2), torch.zeros(2).bool())
    with pytest.raises(ValueError, match="19,602 mwd units on 10,000 inputs needs up to 392,040,000 binaries"):
        wide.exact(Box(image, image))
    op = layer("plain", 0, 2, 2)
    with pytest.raises(ValueError, match="bounded boxes"):
        op.exact(Box(torch.full((1, 2), -torch.inf, dtype=F64), torch.ones(1, 2, dtype=F64)))


def milp_bound(network, box, reference, other, segments):
    """Return HiGHS's lower bound of the minimum of y_reference - y_other over the rows on a cube."""
    region = BallRegion((box.lower + box.upper) / 2, ((box.upper - box.lower) / 2).amax(dim=1), None)
    bounds = linear_bounds(network, region)
    encoded = encode_exactly(bounds.network, bounds.boxes, segments)
    assert encoded.direction is Direction.OUTER
    row = np.zeros(network.output_shape[0])
    row[reference], row[other] = 1.0, -1.0
    answer = SOLVERS["highs"].solve(encoded.model(row), 60.0)
    assert answer.termination is Termination.OPTIMAL
    return answer.bound


@pytest.mark.parametrize("seed", seeds(40, 200))
def test_contraction_grids_and_rows_with_binaries_agree(seed):
    kind = KINDS[seed % len(KINDS)]
    generator = torch.Generator().manual_seed(1000 + seed)
    inputs = 2 + seed % 2
    sizes = (inputs, *[int(n) for n in torch.randint(2, 9, (1 + seed // 2 % 2,), generator=generator)], 3)
    network = network_of(kind, seed, sizes)
    centre = torch.rand(1, inputs, generator=generator, dtype=F64)
    radius = 0.02 + 0.2 * float(torch.rand(1, generator=generator))
    box = Box(centre - radius, centre + radius)
    reference = int(network.scores(centre).argmax())
    other = (reference + 1 + seed % 2) % 3
    axis = torch.linspace(0, 1, 101 if inputs == 2 else 25, dtype=F64)
    points = box.lower + torch.cartesian_prod(*[axis] * inputs) * (box.upper - box.lower)
    outputs = network.cast(F64).evaluate(points)
    least = float((outputs[:, reference] - outputs[:, other]).min())
    bound = milp_bound(network, box, reference, other, 3)
    assert bound <= least + SOLVER_TOLERANCE
    packed = contraction.pack(dense_layers(network, "contraction"))
    answer = contraction.search(packed, box.lower[0].numpy(), box.upper[0].numpy(), reference, other, 20_000)
    assert answer.code in (contraction.REFUTED, contraction.FOUND)
    if least <= -1e-12:
        assert answer.code == contraction.FOUND
    if bound > SOLVER_TOLERANCE:
        assert answer.code == contraction.REFUTED
    if answer.code == contraction.FOUND:
        assert bound <= SOLVER_TOLERANCE
