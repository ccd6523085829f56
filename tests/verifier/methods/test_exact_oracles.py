"""Exact answers on tiny networks against brute force: patterns with linear programs, and dense grids.

The share of seeds that runs by default keeps this file at some ten seconds; `-m slow` runs the rest of the 200 of each.
"""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from encoders import Network
from encoders.box import Box
from encoders.formulations.relax import RelaxedNetwork, encode_exactly, relax
from encoders.linear_model import Direction, LinearModel
from encoders.ops import Abs, Affine, LeakyRelu, MaxPool2d, Op, Relu, Reshape, Sigmoid, Tanh
from encoders.passes import expand_max_pools
from tests.answers import decided
from tests.networks.batches import random_batch
from tests.networks.chains import chain, hinge_network
from tests.oracles.activation_patterns import least_values
from tests.seeds import seeds
from verifier.bounds.linear.bounds import linear_bounds
from verifier.budget import Budget
from verifier.methods.exact import ExactMethod
from verifier.solvers import SOLVERS, Solution, Termination

F64 = torch.float64
CASES = 200
# Solvers let rows and binaries miss by 1e-6, which the weights of these networks enlarge.
SOLVER = 2e-5
POOLS: tuple[tuple[Op, ...], ...] = (
    (MaxPool2d((2, 2), (2, 2)),),
    (MaxPool2d((1, 3), (1, 1)), Relu()),
    (Relu(), MaxPool2d((1, 2), (1, 2))),
    (MaxPool2d((2, 2), (2, 2), (1, 0, 1, 0)), Abs()),
)


def pool_network(seed: int) -> Network:
    """Return a network with max pools over small windows of a map that an affine op makes of 3 inputs."""
    generator = torch.Generator().manual_seed(seed)

    def affine(inputs: int, outputs: int) -> Affine:
        weight = 1.5 * torch.randn(outputs, inputs, generator=generator)
        return Affine(weight, 0.5 * torch.randn(outputs, generator=generator) - weight.sum(dim=1) / 2)

    middle = POOLS[seed % len(POOLS)]
    shape: tuple[int, ...] = (1, 2, 4)
    for op in middle:
        shape = op.output_shape(shape)
    size = math.prod(shape)
    return chain((3,), affine(3, 8), Reshape((1, 2, 4)), *middle, Reshape((size,)), affine(size, 3))


def smooth_network(seed: int) -> Network:
    """Return a network of sigmoids or tanhs with 2 inputs, one or two layers deep."""
    generator = torch.Generator().manual_seed(seed)
    sizes = (2, 4, 3) if seed % 2 else (2, 3, 3, 3)
    ops: list[Op] = []
    for inputs, outputs in pairwise(sizes):
        weight = 2.0 * torch.randn(outputs, inputs, generator=generator)
        ops += [Affine(weight, -weight.sum(dim=1) / 2), (Sigmoid(), Tanh())[seed // 2 % 2]]
    return chain((2,), *ops[:-1])


def encoded_on(network: Network, radius: float, seed: int, segments: int = 4) -> tuple[RelaxedNetwork, Box, int]:
    """Return (rows on a ball around a random input, the ball's box, its class)."""
    batch = random_batch(network, 1, seed)
    bounds = linear_bounds(network, batch.region(radius))
    rows = encode_exactly(bounds.network, bounds.boxes, segments)
    return rows, batch.region(radius).enclosure(), int(batch.classes[0])


def differences(reference: int) -> np.ndarray:
    """Return the rows y_reference - y_k of the other classes, of three."""
    return np.delete(np.eye(3)[reference] - np.eye(3), reference, axis=0)


def solved(solver: str, model: LinearModel) -> Solution:
    found = SOLVERS[solver].solve(model, 60.0)
    assert found.termination is Termination.OPTIMAL and found.primal is not None
    return found


def assert_patterns_agree(network: Network, radius: float, seed: int, solver: str = "highs") -> float:
    """Check the least value of every margin; return the least one."""
    encoded, box, reference = encoded_on(network, radius, seed)
    assert encoded.direction is Direction.EXACT
    rows = differences(reference)
    exact = least_values(network, box.lower.numpy()[0], box.upper.numpy()[0], rows)
    for row, value in zip(rows, exact.tolist(), strict=True):
        found = solved(solver, encoded.model(row))
        assert float(encoded.model(row).cost @ found.primal) == pytest.approx(value, abs=SOLVER)
        assert found.bound <= value + SOLVER
    return float(exact.min())


@pytest.mark.parametrize("seed", seeds(8, CASES))
def test_networks_of_hinges_have_the_minimum_of_their_patterns(seed):
    network = hinge_network(seed, (3, 5, 4, 3))
    radius = (0.1, 0.2, 0.35)[seed % 3]
    exact = assert_patterns_agree(network, radius, seed)
    batch = random_batch(network, 1, seed)
    if abs(exact) > 1e-6:
        decision = decided(ExactMethod(), batch, batch.region(radius), Budget())
        assert bool(decision.certified[0]) is (exact > 0)
        assert bool(decision.witnesses) is (exact < 0)


@pytest.mark.parametrize("seed", seeds(8, CASES))
def test_networks_with_max_pools_have_the_minimum_of_their_patterns(seed):
    assert_patterns_agree(pool_network(seed), (0.1, 0.2, 0.35)[seed % 3], seed)


@pytest.mark.parametrize("seed", seeds(4, CASES))
def test_our_search_decides_max_pools_that_are_written_as_relus(seed):
    network = pool_network(seed)
    expanded = expand_max_pools(network)
    batch = random_batch(expanded, 1, seed)
    region = batch.region((0.1, 0.2, 0.35)[seed % 3])
    ends = region.enclosure()
    rows = differences(int(batch.classes[0]))
    exact = float(least_values(network, ends.lower.numpy()[0], ends.upper.numpy()[0], rows).min())
    assert ExactMethod().refusal(expanded) is None
    if abs(exact) > 1e-6:
        decision = decided(ExactMethod(), batch, region, Budget())
        assert bool(decision.certified[0]) is (exact > 0)
        assert bool(decision.witnesses) is (exact < 0)


@pytest.mark.parametrize("seed", seeds(2, 6))
def test_cbc_agrees_with_the_patterns(seed):
    make = pool_network if seed % 2 else lambda s: hinge_network(s, (3, 5, 4, 3))
    assert_patterns_agree(make(seed), 0.2, seed, "pulp")


@pytest.mark.parametrize("seed", seeds(2, 6))
def test_conic_solvers_agree_on_relaxations_and_on_fixed_patterns(seed):
    """cvxpy's solver takes no integers: the relaxation, and the best pattern's program, are what it can be asked."""
    network = pool_network(seed) if seed % 2 else hinge_network(seed, (3, 5, 4, 3))
    encoded, _, reference = encoded_on(network, 0.25, seed)
    row = differences(reference)[0]
    convex = relax(encoded.network, encoded.boxes).model(row)
    model = encoded.model(row)
    best = solved("highs", model)
    pattern = best.primal[model.integer].round()
    lower, upper = model.col_lower.copy(), model.col_upper.copy()
    lower[model.integer] = upper[model.integer] = pattern
    fixed = replace(model, col_lower=lower, col_upper=upper, integer=np.zeros(model.columns, dtype=bool))
    optimum = float(model.cost @ best.primal)
    for program in (convex, fixed):
        values = [float(program.cost @ solved(solver, program).primal) for solver in ("highs", "cvxpy")]
        assert values[0] == pytest.approx(values[1], abs=SOLVER)
        assert values[0] <= optimum + SOLVER
    assert values[0] == pytest.approx(optimum, abs=SOLVER)


def grid_minimum(network: Network, box: Box, row: np.ndarray, count: int) -> tuple[float, float]:
    """Return (the least value of a row of the output over a grid, by how much the exact minimum may be below it)."""
    axes = [
        torch.linspace(float(a), float(b), count, dtype=F64) for a, b in zip(box.lower[0], box.upper[0], strict=True)
    ]
    points = torch.cartesian_prod(*axes)
    values = network.evaluate(points) @ torch.from_numpy(row)
    # Every point is within half a step of the grid; of the Lipschitz constant, in the inf-norm, each layer's share.
    step = max(float(axis[1] - axis[0]) for axis in axes)
    return float(values.min()), float(slopes_from(network, row)[0]) * step / 2


def slopes_from(network: Network, row: np.ndarray) -> list[float]:
    """Return how fast the row of the output changes at most with the input, and with each curve's values, in order."""
    factors = []
    for node in network.nodes:
        if isinstance(node.op, Affine):
            factors.append((node.op.weight.double(), 1.0))
        else:
            factors.append((None, 0.25 if isinstance(node.op, Sigmoid) else 1.0))
    reach: Tensor = torch.from_numpy(row).abs()
    found = []
    for weight, slope in reversed(factors):
        if weight is None:
            found.append(float(reach.sum()))
            reach = reach * slope
        else:
            reach = reach @ weight.abs()
    return [float(reach.sum()), *reversed(found)]


@pytest.mark.parametrize("seed", seeds(8, CASES))
def test_networks_of_curves_have_a_bound_below_their_grid_and_within_their_gaps(seed):
    """bound <= minimum <= grid, and bound >= minimum - sum of each gap times what it can do to the output."""
    network = smooth_network(seed)
    radius = (0.1, 0.25, 0.4)[seed % 3]
    for segments in (2, 8) if seed % 10 == 0 else (4,):
        encoded, box, reference = encoded_on(network, radius, seed, segments)
        assert encoded.direction is Direction.OUTER
        for row in differences(reference):
            grid, finer = grid_minimum(network, box, row, 101)
            found = solved("highs", encoded.model(row))
            assert found.bound <= grid + SOLVER
            slack = sum(
                encoded.gaps.get(node.name, 0.0) * slope
                for node, slope in zip(
                    [node for node in network.nodes if not isinstance(node.op, Affine)],
                    slopes_from(network, row)[1:],
                    strict=True,
                )
            )
            assert float(encoded.model(row).cost @ found.primal) >= grid - finer - slack - SOLVER


@pytest.mark.parametrize("seed", seeds(2, 6))
def test_more_segments_bring_the_bound_of_curves_to_the_minimum(seed):
    network = smooth_network(seed)
    errors = []
    for segments in (1, 4, 16):
        encoded, box, reference = encoded_on(network, 0.3, seed, segments)
        row = differences(reference)[0]
        grid, _ = grid_minimum(network, box, row, 401)
        errors.append(grid - float(encoded.model(row).cost @ solved("highs", encoded.model(row)).primal))
    assert errors[2] <= errors[1] + SOLVER <= errors[0] + 2 * SOLVER
    # 401 points an axis find the minimum to some 1e-3 here.
    assert errors[2] < 0.02


@pytest.mark.parametrize("seed", range(3))
def test_cbc_agrees_on_the_strips_of_curves(seed):
    encoded, _, reference = encoded_on(smooth_network(seed), 0.2, seed)
    model = encoded.model(differences(reference)[0])
    values = [float(model.cost @ solved(solver, model).primal) for solver in ("highs", "pulp")]
    assert values[0] == pytest.approx(values[1], abs=SOLVER)


def test_leaky_slopes_are_among_the_cases():
    kinds = {type(node.op) for seed in range(12) for node in hinge_network(seed, (3, 5, 4, 3)).nodes}
    assert kinds >= {Relu, LeakyRelu, Abs}
