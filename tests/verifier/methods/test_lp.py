"""Bounds by linear programs: never above the exact least margin, never looser than CROWN, whatever the multipliers."""

import dataclasses
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from encoders import BallRegion, write_network
from encoders.box import Box
from encoders.formulations.relax import estimate, relax
from encoders.linear_model import Direction, LinearModel
from encoders.network import INPUT, Network, Node
from encoders.ops import Add, Affine, Concat, Conv2d, Curve, MaxPool2d, Relu, Reshape, Sigmoid
from tests.answers import decided
from tests.networks.chains import chain, random_relu_network
from tests.networks.mwd_chains import random_mwd_network
from tests.networks.random_networks import random_network
from tests.seeds import seeds
from verifier import certify
from verifier.batch import Batch
from verifier.bounds.linear.bounds import linear_bounds
from verifier.bounds.programs.lp import MarginProgram
from verifier.budget import Budget
from verifier.certificates.dual_bound import proves_empty, safe_bound
from verifier.methods import METHODS
from verifier.methods.lp import LpMethod
from verifier.solvers.highs_backend import WarmModel
from verifier.subject import load_subject
from verifier.verdict import Outcome

F64 = torch.float64


def ball(network: Network, radius: float, seed: int = 0) -> BallRegion:
    centre = torch.rand(1, *network.input_shape, generator=torch.Generator().manual_seed(seed), dtype=F64)
    return BallRegion(centre, torch.tensor([radius], dtype=F64), (0.0, 1.0))


def lagrangian(model: LinearModel, y: np.ndarray, cost: np.ndarray) -> Fraction:
    """Return the dual value of multipliers in rationals; those at infinite ends must be zero."""
    total = Fraction(0)
    reduced = [Fraction(c) for c in cost.tolist()]
    for i, multiplier in enumerate(y.tolist()):
        if multiplier == 0:
            continue
        total += Fraction(multiplier) * Fraction(float(model.row_lower[i] if multiplier > 0 else model.row_upper[i]))
        part = slice(model.A.indptr[i], model.A.indptr[i + 1])
        for a, j in zip(model.A.data[part].tolist(), model.A.indices[part].tolist(), strict=True):
            reduced[j] -= Fraction(multiplier) * Fraction(a)
    ends = zip(reduced, model.col_lower.tolist(), model.col_upper.tolist(), strict=True)
    return total + sum((min(d * Fraction(a), d * Fraction(b)) for d, a, b in ends), start=Fraction(0))


def random_model(seed: int) -> LinearModel:
    random = np.random.default_rng(seed)
    rows, columns = int(random.integers(1, 8)), int(random.integers(1, 7))
    matrix = random.normal(size=(rows, columns)) * 10.0 ** random.integers(-8, 8, size=(rows, columns))
    lower = np.where(random.random(rows) < 0.3, -np.inf, random.normal(size=rows) - 1)
    upper = np.where(random.random(rows) < 0.3, np.inf, np.where(np.isfinite(lower), lower, 0) + random.random(rows))
    start = random.normal(size=columns)
    cost = random.normal(size=columns)
    return LinearModel(cost, csr_array(matrix), lower, upper, start, start + random.random(columns), Direction.OUTER)


@pytest.mark.parametrize("seed", range(40))
def test_a_safe_bound_is_at_most_the_exact_dual_value_of_any_multipliers(seed):
    model = random_model(seed)
    random = np.random.default_rng(seed + 1000)
    for scale in (1.0, 1e-9, 1e9, 1e-300):
        y = random.normal(size=model.rows) * scale
        usable = np.isfinite(np.where(y > 0, model.row_lower, model.row_upper))
        y = np.where(usable, y, 0.0)
        for cost in (model.cost, np.zeros(model.columns)):
            exact = lagrangian(model, y, cost)
            found = safe_bound(model, y, cost)
            assert Fraction(found) <= exact
            ends = [np.abs(end[np.isfinite(end)]).max(initial=1.0) for end in (model.row_lower, model.row_upper)]
            size = 1.0 + float(np.abs(y).max()) * (float(np.abs(model.A.data).max(initial=0)) + float(max(ends)))
            assert Fraction(found) >= exact - Fraction(1e-12 * size)


def test_multipliers_that_are_no_numbers_prove_little_and_never_too_much():
    model = random_model(3)
    for bad in (math.nan, math.inf, -math.inf, 1e308):
        assert safe_bound(model, np.full(model.rows, bad)) <= safe_bound(model, np.zeros(model.rows)) or bad == 1e308
    assert not proves_empty(model, np.zeros(model.rows))


def least_margin(network: Network, region: BallRegion, row: torch.Tensor, count: int = 4000) -> float:
    """Return the least value of a row over a grid and random points: at least the exact minimum."""
    generator = torch.Generator().manual_seed(1)
    low, high = region.enclosure().lower, region.enclosure().upper
    share = torch.rand(count, *network.input_shape, generator=generator, dtype=F64)
    share[: count // 2] = share[: count // 2].round()
    values = network.cast(F64).evaluate(low + share * (high - low))
    return float((values * row).sum(dim=1).min())


@pytest.mark.parametrize("seed", seeds(40, 200))
def test_the_bound_lies_between_crown_and_the_least_value(seed):
    network = random_relu_network(seed, (2, 4, 3, 3))
    region = ball(network, 0.15 + 0.3 * (seed % 3), seed)
    row = torch.tensor([1.0, -1.0, 0.0], dtype=F64)
    bounds = linear_bounds(network, region)
    crown = float(bounds.minimise(row.reshape(1, 1, 3)).bound)
    program = MarginProgram(relax(bounds.network, bounds.boxes))
    warm = WarmModel(program.relaxed.model(row.numpy()))
    solution = warm.solve()
    found = safe_bound(warm.model, solution.row_dual)
    assert crown - 1e-6 <= found <= least_margin(network, region, row)
    assert found == pytest.approx(solution.bound, abs=1e-9)
    early = program.minimise(row.numpy()).bound
    assert early <= found + 1e-9 and (early > 0) == (found > 0)
    # Corrupted multipliers prove something smaller, never something false.
    generator = np.random.default_rng(seed)
    for noise in (1e-3, 1.0):
        wrong = solution.row_dual + noise * generator.normal(size=len(solution.row_dual))
        assert safe_bound(warm.model, wrong) <= found + 1e-9


@pytest.mark.parametrize("seed", seeds(20, 60))
def test_true_values_satisfy_all_rows_of_random_graphs(seed):
    network = random_network(seed)
    region = ball(network, 0.2, seed)
    bounds = linear_bounds(network, region)
    if not all(bool(box.lower.isfinite().all() and box.upper.isfinite().all()) for box in bounds.boxes.values()):
        return
    relaxed = relax(bounds.network, bounds.boxes)
    model = relaxed.model(np.zeros(math.prod(network.output_shape)))
    assert model.direction is Direction.OUTER
    rows, entries = estimate(network)
    assert model.rows <= rows and model.A.nnz <= entries
    low, high = region.enclosure().lower, region.enclosure().upper
    generator = torch.Generator().manual_seed(seed)
    for _ in range(10):
        share = torch.rand(1, *network.input_shape, generator=generator, dtype=F64).round(decimals=1)
        x = low + share * (high - low)
        names = [node.name for node in network.nodes]
        values = dict(zip(names, bounds.network.fold(x, lambda op, parts: op.evaluate(*parts), names), strict=True))
        point = np.zeros(model.columns)
        for name, columns in relaxed.columns.items():
            point[columns] = (x if name == INPUT else values[name]).flatten().numpy()
        size = 1.0 + float(np.abs(point).max())
        assert model.violation(point) <= 1e-11 * size
    again = relaxed.within(bounds.boxes)
    assert abs(again.A - relaxed.A).nnz == 0 and np.array_equal(again.row_lower, relaxed.row_lower)


def test_nodes_that_move_values_share_columns():
    network = chain((1, 4, 4), Conv2d(torch.ones(2, 1, 2, 2)), Relu(), MaxPool2d((2, 2), (1, 1)), Reshape((8,)),
                    Affine(torch.ones(2, 8)))  # fmt: skip
    bounds = linear_bounds(network, ball(network, 0.1))
    relaxed = relax(bounds.network, bounds.boxes)
    assert np.array_equal(relaxed.columns["3-reshape"], relaxed.columns["2-max-pool2d"])
    twice = Network(
        (
            Node("a", Relu(), (INPUT,)), Node("both", Concat(0), ("a", "a")), Node("sum", Add(), ("both", "both")),
            Node("end", Affine(torch.tensor([[1.0, 2.0, 4.0, 8.0], [1.0, 1.0, 1.0, 1.0]])), ("sum",)),
        ),
        (2,),
    )  # fmt: skip
    bounds = linear_bounds(twice, ball(twice, 0.25))
    relaxed = relax(bounds.network, bounds.boxes)
    assert len(relaxed.columns["both"]) == len(np.unique(relaxed.columns["both"]))
    found = MarginProgram(relaxed).minimise(np.array([-1.0, 1.0])).bound
    assert found <= least_margin(twice, ball(twice, 0.25), torch.tensor([-1.0, 1.0], dtype=F64)) <= found + 1e-6


@pytest.fixture
def job(tmp_path):
    """Return a saved model with 16 inputs and their classes."""
    network = random_relu_network(2, (5, 14, 12, 4))
    path = tmp_path / "model.safetensors"
    write_network(network, path)
    x = torch.rand(16, 5, generator=torch.Generator().manual_seed(0))
    return path, x, network.evaluate(x).argmax(dim=1)


def test_it_proves_all_that_crown_proves_and_contradicts_no_attack(job):
    path, x, y = job
    data = (x.numpy(), y.numpy())
    found = {m: certify(path, data, [0.05], method=m, clip=(0, 1), out=None) for m in ("crown", "lp", "auto")}
    assert found["lp"].results[0].certified >= found["crown"].results[0].certified
    assert found["lp"].results[0].certified_checked == found["lp"].results[0].certified
    for index, bracket in found["lp"].brackets.items():
        assert bracket.lower < found["auto"].brackets[index].upper
        assert found["auto"].brackets[index].lower < bracket.upper
        if found["crown"].brackets[index].at(0.05) is Outcome.CERTIFIED:
            assert bracket.at(0.05) is Outcome.CERTIFIED


def test_a_solver_that_returns_nonsense_leaves_the_input_open(job, monkeypatch):
    path, x, y = job
    batch = Batch(load_subject(path), x.double(), y, tuple(range(len(x))), (0.0, 1.0), 1.0)
    region = batch.region(0.08)
    before = decided(LpMethod(), batch, region, Budget())
    crown = decided(METHODS["crown"], batch, region, Budget())
    real = WarmModel.solve

    def nonsense(self, *arguments):
        found = real(self, *arguments)
        wrong = None if found.row_dual is None else -3.0 * found.row_dual
        return dataclasses.replace(found, row_dual=wrong, ray=wrong, bound=math.inf)

    monkeypatch.setattr(WarmModel, "solve", nonsense)
    after = decided(LpMethod(), batch, region, Budget())
    assert int(crown.certified.sum()) <= int(after.certified.sum()) <= int(before.certified.sum())
    assert not bool((after.certified & ~before.certified).any())


def test_what_it_cannot_take_is_refused_by_name():
    method = LpMethod()
    assert "MWD" in (method.refusal(random_mwd_network(0)) or "")
    large = chain((4000,), Affine(torch.zeros(4000, 4000)), Relu(), Affine(torch.zeros(4000, 4000)))
    assert "32," in (method.refusal(large) or "")
    assert method.refusal(chain((2,), Sigmoid(), Affine(torch.ones(2, 2)))) is None
    assert not bool(decided(METHODS["lp"], _batch(random_relu_network(0)), _region(), Budget(0.0)).certified.any())


def _batch(network: Network) -> Batch:
    from verifier.subject import Subject

    subject = Subject("n", network, lambda x: network.evaluate(torch.from_numpy(x)).numpy(), torch.device("cpu"))
    centres = torch.full((1, 2), 0.5, dtype=F64)
    return Batch(subject, centres, network.evaluate(centres).argmax(dim=1), (0,), (0.0, 1.0), 1.0)


def _region() -> BallRegion:
    return BallRegion(torch.full((1, 2), 0.5, dtype=F64), torch.tensor([0.01], dtype=F64), (0.0, 1.0))


def test_a_warm_model_that_was_changed_answers_as_a_fresh_one():
    network = random_relu_network(4, (3, 12, 10, 3))
    row = np.array([1.0, -1.0, 0.0])
    outer, inner = (linear_bounds(network, ball(network, radius, 4)) for radius in (0.4, 0.2))
    root = relax(outer.network, outer.boxes)
    both = {name: (box, outer.boxes[name]) for name, box in inner.boxes.items()}
    shrunk = {
        name: Box(torch.maximum(a.lower, b.lower), torch.minimum(a.upper, b.upper)) for name, (a, b) in both.items()
    }
    narrow = root.within(shrunk)
    warm = WarmModel(root.model(row))
    warm.solve()
    for relaxed, cost in ((narrow, row), (narrow, -row), (root, row)):
        model = relaxed.model(cost)
        warm.change_model(model)
        found, fresh = warm.solve(), WarmModel(model).solve()
        assert found.bound == pytest.approx(fresh.bound, abs=1e-7)
        assert safe_bound(model, found.row_dual) == pytest.approx(found.bound, abs=1e-8)
    other = linear_bounds(network, ball(network, 0.01, 5))
    with pytest.raises(ValueError, match="sparsity"):
        warm.change_model(relax(other.network, other.boxes).model(row))


@pytest.mark.parametrize(("function", "arguments"), [("log", ()), ("power", (-1.0,)), ("power", (0.5,))])
def test_a_value_without_a_bound_leaves_the_answer_open(function: str, arguments: tuple[float, ...]):
    # Units of x - 0.5 and 0.5 - x, on which the function is not defined everywhere.
    first = Affine(torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=F64), torch.tensor([-0.495, 0.505], dtype=F64))
    last = Affine(torch.eye(2, dtype=F64), torch.tensor([0.0, 9.0], dtype=F64))
    network = chain((2,), first, Curve(function, arguments), last, dtype=F64)
    for method in ("lp", "milp", "crown", "interval"):
        (answer,) = METHODS[method].decide(_batch(network), _region(), Budget(10.0))
        assert not answer.vouched_safe(0.01), method
    assert "has no bound" in str(METHODS["lp"].decide(_batch(network), _region(), Budget(10.0))[0].reason)
