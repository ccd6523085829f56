"""Projections and steepest steps: optimal by independent solvers and by their laws; random points of the balls."""

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.optimize import linprog, minimize

from encoders import BallRegion
from verifier.attacks.ball import Ball, contains
from verifier.attacks.geometry import lengths, project, project_into_box, steepest, stretch_into_box
from verifier.attacks.randomness import as_seeds, ball, integers, signs, uniform

NORMS = ("1", "1.5", "2", "3", "inf")
# Float64 arithmetic on numbers of order 1; bisections go to 2^-60.
TOLERANCE = 1e-9
# SLSQP's own stopping rule.
SOLVER_TOLERANCE = 1e-5


def problems(seed, count=200, n=7):
    """Return (points, radii, caps), some inside, some with caps that bind or vanish."""
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(count, n, generator=generator, dtype=torch.float64)
    radius = 3 * torch.rand(count, generator=generator, dtype=torch.float64)
    caps = 2 * torch.rand(count, n, generator=generator, dtype=torch.float64)
    caps[::5, 0] = 0.0
    return v, radius, caps


@pytest.mark.parametrize("capped", [False, True])
@pytest.mark.parametrize("norm", NORMS)
def test_projections_are_inside_idempotent_and_not_expansive(norm, capped):
    v, radius, caps = problems(0)
    limits = caps if capped else None
    x = project(v, radius, norm, limits)
    assert bool((lengths(x, norm) <= radius * (1 + TOLERANCE)).all())
    assert not capped or bool((x.abs() <= caps).all())
    assert torch.allclose(project(x, radius, norm, limits), x, atol=TOLERANCE)
    other = v + torch.randn(v.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    # The box of caps is the same for both only where it is symmetric, as it is here.
    apart = lengths(project(other, radius, norm, limits) - x, "2")
    assert bool((apart <= lengths(other - v, "2") + TOLERANCE).all())


@pytest.mark.parametrize("norm", NORMS)
def test_a_projection_obeys_the_inequality_that_characterises_it(norm):
    # x is the nearest point of a convex set exactly if <v - x, z - x> <= 0 for all z in it.
    v, radius, caps = problems(2)
    x = project(v, radius, norm, caps)
    generator = torch.Generator().manual_seed(3)
    for _ in range(50):
        z = torch.minimum(torch.randn(v.shape, generator=generator, dtype=torch.float64).abs(), caps) * v.sign()
        z = z * (radius / lengths(z, norm).clamp(min=1e-9)).clamp(max=1.0)[:, None]
        assert float(((v - x) * (z - x)).sum(dim=1).max()) <= TOLERANCE


@pytest.mark.parametrize("norm", NORMS)
def test_a_projection_is_the_optimum_that_a_solver_finds(norm):
    v, radius, caps = (part.numpy() for part in problems(4, count=12))
    x = project(*(torch.from_numpy(part) for part in (v, radius)), norm, torch.from_numpy(caps)).numpy()
    p = float(norm)
    for i in range(len(v)):
        # In |v| nothing has a kink: the nearest point keeps the signs.
        size = np.abs(v[i])
        if p == np.inf:
            inside = {"type": "ineq", "fun": lambda z, i=i: radius[i] - z}
        else:
            inside = {"type": "ineq", "fun": lambda z, i=i: radius[i] ** p - (np.abs(z) ** p).sum()}
        start = np.minimum(caps[i], 0.1 * radius[i] / len(size))
        found = minimize(
            lambda z, size=size: ((z - size) ** 2).sum(), start, constraints=[inside], bounds=[(0, c) for c in caps[i]],
            method="SLSQP", options={"ftol": 1e-14, "maxiter": 500},
        )  # fmt: skip
        assert ((np.abs(x[i]) - size) ** 2).sum() <= found.fun + SOLVER_TOLERANCE
        assert np.abs(x[i]) == pytest.approx(found.x, abs=100 * SOLVER_TOLERANCE)


def test_projections_by_hand():
    one, v = torch.ones(1, dtype=torch.float64), torch.tensor([[3.0, -4.0]], dtype=torch.float64)
    assert project(v, one, "2").tolist() == [[pytest.approx(0.6), pytest.approx(-0.8)]]
    assert project(v, one, "inf").tolist() == [[1.0, -1.0]]
    # m = 3: |3| - 3 = 0 and |-4| - 3 = 1.
    assert project(v, one, "1").tolist() == [[0.0, -1.0]]
    # m = 3 with 5: 0 and 1 are capped to .5, so m falls to 2.5: .5 and 1.5, capped to .5.
    caps = torch.full((1, 2), 0.5, dtype=torch.float64)
    assert project(v, one, "1", caps).tolist() == [[0.5, -0.5]]
    # x + 3 m x^2 = a with m = 1: a = 4 gives x = 1 (1 + 3).
    assert project(torch.tensor([[4.0]], dtype=torch.float64), one, 3.0).tolist() == [[pytest.approx(1.0)]]


def test_a_norm_below_one_is_refused():
    with pytest.raises(ValueError, match="p must be at least 1"):
        project(torch.ones(1, 2), torch.ones(1), 0.5)


@pytest.mark.parametrize("norm", ["1", "2", "inf"])
def test_a_zero_radius_projects_to_the_centre_and_nothing_moves(norm):
    v, _, caps = problems(5, count=4)
    zero = torch.zeros(4, dtype=torch.float64)
    assert not bool(project(v, zero, norm, caps).any())
    assert not bool(steepest(v, zero, norm, caps).any())


@pytest.mark.parametrize("norm", ["1", "2", "inf"])
def test_a_steepest_step_reaches_the_dual_norm(norm):
    # min <g, d> over |d|_p <= s is -s |g|_q, 1/p + 1/q = 1 (Hoelder), without caps.
    g, size, _ = problems(6)
    step = steepest(g, size, norm, torch.full_like(g, torch.inf))
    dual = {"1": torch.inf, "2": 2.0, "inf": 1.0}[norm]
    assert torch.allclose((g * step).sum(dim=1), -size * torch.linalg.vector_norm(g, dual, dim=1))
    assert bool((lengths(step, norm) <= size * (1 + TOLERANCE)).all())


@pytest.mark.parametrize("norm", ["1", "2", "inf"])
def test_a_steepest_step_is_optimal_within_caps(norm):
    g, size, caps = problems(7, count=12)
    step = steepest(g, size, norm, caps)
    assert bool((lengths(step, norm) <= size * (1 + TOLERANCE)).all())
    assert bool((step.abs() <= caps).all())
    for i in range(len(g)):
        cost, bounds = -g[i].abs().numpy(), [(0, float(c)) for c in caps[i]]
        if norm == "2":
            inside = {"type": "ineq", "fun": lambda z, i=i: float(size[i]) ** 2 - (z**2).sum()}
            start = np.minimum(caps[i].numpy(), 1e-2 * float(size[i]))
            best = minimize(lambda z, c=cost: c @ z, start, bounds=bounds, constraints=[inside], method="SLSQP").fun
        elif norm == "1":
            best = linprog(cost, A_ub=np.ones((1, len(cost))), b_ub=[float(size[i])], bounds=bounds).fun
        else:
            best = linprog(cost, bounds=[(0, min(b, float(size[i]))) for _, b in bounds]).fun
        assert float((g[i] * step[i]).sum()) == pytest.approx(best, abs=SOLVER_TOLERANCE)


@pytest.mark.parametrize("norm", ["1", "2", "inf"])
def test_a_zero_gradient_moves_nothing_even_beside_others(norm):
    g = torch.tensor([[0.0, 0.0], [0.0, -1e-30]])
    step = steepest(g, torch.ones(2), norm, torch.full_like(g, torch.inf))
    assert step.tolist() == [[0.0, 0.0], [0.0, 1.0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("norm", ["1", "2", "inf"])
def test_the_balls_of_a_search_lie_in_its_regions(norm, dtype):
    generator = torch.Generator().manual_seed(8)
    centre = torch.rand(300, 50, generator=generator).to(torch.float64)
    radius = torch.rand(300, generator=generator, dtype=torch.float64)
    region = BallRegion(centre, radius, (0.0, 1.0), norm)
    part, gradient = Ball.of(region, dtype), torch.randn(300, 50, generator=generator).to(dtype)
    seeds = as_seeds(range(300), gradient.device)
    points = [part.random(seeds, 0), part.vertex(gradient), part.descend(part.random(seeds, 1), gradient, part.radius)]
    for x in points:
        # What rounding pushes out, about one in a thousand, `BallRegion.clip` pulls back.
        assert float(region.contains(x).double().mean()) >= 0.99
        assert bool(region.contains(region.clip(x, dtype)).all())
        assert torch.allclose(region.clip(x, dtype), x, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("norm", ["1", "2", "inf"])
def test_the_quick_test_of_membership_says_what_the_region_says(norm, dtype):
    generator = torch.Generator().manual_seed(9)
    centre = torch.rand(2000, 30, generator=generator).to(torch.float64)
    radius = torch.rand(2000, generator=generator, dtype=torch.float64)
    radius[:20] = 0.0
    radius[20:40] = 1e-120
    region = BallRegion(centre, radius, (0.0, 1.0), norm)
    ball_of = Ball.of(region, dtype)
    away = ball_of.vertex(torch.randn(2000, 30, generator=generator).to(dtype)) - ball_of.centre
    # Inside, on the edge give or take a few roundings, outside; and not a number.
    eps = torch.finfo(dtype).eps
    for share in (0.0, 0.9, 1 - 64 * eps, 1 - eps, 1.0, 1 + eps, 1 + 64 * eps, 1.1, torch.nan):
        points = ball_of.centre + share * away
        assert torch.equal(contains(region, points), region.contains(points))


def test_points_are_projected_where_squares_are_tiny_or_the_box_has_no_room():
    lower, upper = (
        torch.tensor([[0.0, -1.0], [0.0, 0.0], [-1.0, -1.0]]),
        torch.tensor([[0.0, 1.0], [0.0, 0.0], [1.0, 1.0]]),
    )
    radius = torch.tensor([0.5, 0.5, 0.5])
    v = torch.tensor([[9.0, -3.0], [1.0, 1.0], [0.0, 0.0]])
    assert project_into_box(v, radius, lower, upper).tolist() == [[0.0, -0.5], [0.0, 0.0], [0.0, 0.0]]
    assert stretch_into_box(1e-30 * v, radius, lower, upper).tolist() == [[0.0, -0.5], [0.0, 0.0], [0.0, 0.0]]


def test_random_numbers_belong_to_seeds():
    seeds = torch.arange(6)
    together = uniform(seeds, 3, 10)
    assert torch.equal(together[4:5], uniform(seeds[4:5], 3, 10))
    assert torch.equal(together[:, :4], uniform(seeds, 3, 4))
    assert not torch.equal(together, uniform(seeds, 4, 10))
    assert len(together.unique()) == together.numel()
    assert bool(((together > 0) & (together < 1)).all())


def test_random_numbers_are_uniform_and_unrelated():
    # 200,000 numbers; the thresholds leave a right generator a chance below 1e-6 (and the seeds are fixed).
    numbers = uniform(torch.arange(200), 0, 1000)
    assert stats.kstest(numbers.flatten().numpy(), "uniform").pvalue > 1e-6
    apart = [
        (numbers[:, :-1], numbers[:, 1:]),
        (numbers[:-1], numbers[1:]),
        (numbers, uniform(torch.arange(200), 1, 1000)),
    ]
    for a, b in apart:
        assert abs(float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])) < 5 / a.numel() ** 0.5
    assert torch.bincount(integers(torch.arange(200), 2, 1000, 4).flatten()).tolist() == pytest.approx(
        [50_000] * 4, rel=0.03
    )
    assert abs(float(signs(torch.arange(200), 3, 1000).mean())) < 5 / 200_000**0.5


@pytest.mark.parametrize("norm", ["1", "2", "inf"])
def test_random_points_are_uniform_in_the_unit_ball(norm):
    # |x|^n is uniform on [0, 1], and no direction is preferred.
    points = ball(torch.arange(5000), 0, 3, norm)
    assert stats.kstest((lengths(points, norm) ** 3).numpy(), "uniform").pvalue > 1e-6
    assert float(points.mean(dim=0).abs().max()) < 0.05


def test_large_and_negative_seeds_are_seeds():
    seeds = as_seeds([-1, 2**63, 2**64 + 5, 5], torch.device("cpu"))
    assert seeds[2] == seeds[3]
    assert len(uniform(seeds[:3], 0, 1).unique()) == 3
