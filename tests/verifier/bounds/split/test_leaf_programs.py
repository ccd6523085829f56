"""Programs of deep subproblems contain them, their multipliers are worth their optimum, and what they end is true."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from encoders.network import Network
from tests.networks.batches import random_batch
from tests.networks.chains import hinge_network
from tests.oracles.activation_patterns import least_values
from tests.oracles.certified_claims import CASES, kept_and_read
from tests.seeds import seeds
from verifier.bounds.split import leaf_programs, search
from verifier.bounds.split.leaf_programs import LeafPrograms
from verifier.bounds.split.prepared import PreparedBall, prepare
from verifier.bounds.split.question import split_question
from verifier.bounds.split.subproblems import Subproblems
from verifier.bounds.split.unit_boxes import first_slopes
from verifier.budget import Budget
from verifier.certificates.certificate import Certificate
from verifier.solvers.base import Termination
from verifier.solvers.highs_backend import WarmModel

# Programs are made of numbers of float32, and solved to within 1e-7 of their ends.
NEAR = 1e-4


@cache
def ball_of(seed: int, planes: bool) -> PreparedBall:
    network = hinge_network(seed, (3, 12, 10, 4))
    batch = random_batch(network, 1, seed)
    return prepare(split_question(network, batch.region(0.6), int(batch.classes[0])), 2, Budget(), planes=planes)


def at_points(ball: PreparedBall, generator: torch.Generator, count: int) -> tuple[torch.Tensor, list[Subproblems]]:
    """Return points of the ball and a subproblem that holds each, of which half of the signs are given."""
    lower, upper = ball.ascent.lower, ball.ascent.upper
    points = lower + (upper - lower) * torch.rand(count, len(lower), generator=generator)
    read = torch.cat(_values(ball, points)[1], dim=1)
    units = len(ball.open_units)
    signs = torch.where(torch.rand(count, units, generator=generator) < 0.5, read.sign(), 0.0).to(torch.int8)
    rows = torch.randint(0, len(ball.rows), (count,), generator=generator)
    slopes, zeros = first_slopes(ball.lines).expand(count, -1), torch.zeros(count, units)
    named = torch.zeros(count, 0) if ball.own_planes is None else ball.own_planes.first[rows]
    all_of = Subproblems(
        torch.full((count,), -torch.inf), torch.arange(count), rows, torch.zeros_like(rows), signs, slopes, zeros, named
    )
    return points, [all_of[i : i + 1] for i in range(count)]


def _values(ball: PreparedBall, points: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return points and what each hinge gives, and what each reads."""
    values, reads = [points], list[torch.Tensor]()
    for stage in ball.ascent.network.hinges:
        reads.append(stage(values))
        values.append(torch.maximum(reads[-1], stage.left * reads[-1]))
    return values, reads


@pytest.mark.parametrize("planes", [False, True])
@pytest.mark.parametrize("seed", seeds(3, 20))
def test_a_program_holds_all_points_of_its_subproblem(seed, planes):
    ball, generator = ball_of(seed, planes), torch.Generator().manual_seed(seed)
    programs = LeafPrograms.on(ball)
    assert programs is not None
    points, parts = at_points(ball, generator, 8)
    columns = torch.cat(_values(ball, points)[0], dim=1).double().numpy()
    margins = (ball.all_stages.outputs(points) * ball.rows[torch.cat([part.rows for part in parts])]).sum(dim=1)
    for column, part, margin in zip(columns, parts, margins.tolist(), strict=True):
        model = programs.model(part)
        assert model is not None
        values = model.A @ column
        assert (values >= model.row_lower - NEAR).all() and (values <= model.row_upper + NEAR).all()
        assert (column >= model.col_lower - NEAR).all() and (column <= model.col_upper + NEAR).all()
        assert float(model.cost @ column) + programs.objective(part) == pytest.approx(margin, abs=NEAR)
        assert programs.off(column, part.signs[0].numpy()).max() <= NEAR


@pytest.mark.parametrize("planes", [False, True])
@pytest.mark.parametrize("seed", seeds(3, 20))
def test_multipliers_are_worth_the_optimum_which_no_ascent_passes_and_no_point_undercuts(seed, planes):
    """The dual of the program: what numbers are worth is evaluated by ascent's own code, and by that of proofs."""
    ball, generator = ball_of(seed, planes), torch.Generator().manual_seed(seed)
    programs = LeafPrograms.on(ball)
    assert programs is not None
    stage = ball.ascent.network.output
    points, parts = at_points(ball, generator, 6)
    for point, part in zip(points, parts, strict=True):
        model = programs.model(part)
        assert model is not None
        solution = WarmModel(model).solve()
        assert solution.termination is Termination.OPTIMAL
        optimum = float(model.cost @ solution.primal) + programs.objective(part)
        slopes, multipliers = (torch.from_numpy(values)[None] for values in programs.numbers(solution.row_dual))
        lines = ball.split_lines(part.signs, part.rows, part.boxes, ball.planes_of(part.points))
        rows = ball.rows[part.rows]
        worth = ball.ascent.bound(stage, rows, lines, slopes.float(), multipliers.float())
        assert float(worth[0]) == pytest.approx(optimum, abs=NEAR)
        ascended = ball.ascent.ascend(stage, rows, lines, part.slopes, part.multipliers, 30, 1e9)[0]
        assert float(ascended[0]) <= optimum + NEAR
        assert optimum <= float((ball.all_stages.outputs(point[None]) * rows).sum()) + NEAR
        proved = ball.proved(
            part.rows.numpy(), part.signs, slopes.numpy(), ball.exact_multipliers(multipliers), part.boxes, part.points
        )
        assert bool(proved[0]) is (optimum > 0) or abs(optimum) < NEAR


@cache
def case(seed: int) -> tuple[Network, Certificate, int]:
    """Return a network, and the certificate of a search near its exact radius that leaves all to programs at once."""
    network, ended = hinge_network(seed, (2, 8, 6, 3)), []
    batch = random_batch(network, 1, seed)
    with pytest.MonkeyPatch.context() as patch:
        _at_once(patch, ended)
        answer = search.decide_ball(
            network, batch.region(CASES[seed]), int(batch.classes[0]), lambda points: False, Budget(), 4000
        )
    assert answer.certificate is not None, answer.reason
    return network, answer.certificate, sum(ended)


def _at_once(patch: pytest.MonkeyPatch, ended: list[int]) -> None:
    """Hand subproblems over from the first split on; count those that programs end."""
    left_of = leaf_programs._left_of

    def counted(*asked: object) -> list[Subproblems] | None:
        left = left_of(*asked)
        ended.append(left == [])
        return left

    patch.setattr(leaf_programs, "DEEP", 1)
    patch.setattr(search, "LEVELS", ((0, 0, None),))
    patch.setattr(leaf_programs, "_left_of", counted)


@pytest.mark.parametrize("seed", CASES)
def test_certificates_by_programs_pass_both_checkers_and_are_true(seed: int, tmp_path: Path):
    network, certificate, _ = case(seed)
    kept_and_read(certificate, network, tmp_path)


def test_programs_do_end_subproblems():
    assert sum(case(seed)[2] for seed in CASES) >= 4


@pytest.mark.parametrize("programs", [1, 64])
@pytest.mark.parametrize("seed", seeds(4, 200))
def test_the_search_by_programs_answers_as_patterns_do(seed, programs, monkeypatch):
    """Against the least margin over enumerated activation patterns; what is left after `programs` goes back."""
    network = hinge_network(seed, (3, 5, 4, 3))
    batch = random_batch(network, 1, seed)
    region, winner = batch.region((0.1, 0.2, 0.35)[seed % 3]), int(batch.classes[0])
    ends, rows = region.enclosure(), -np.eye(3)
    rows[:, winner] += 1.0
    rows = np.delete(rows, winner, axis=0)
    least = float(least_values(network, ends.lower.numpy()[0], ends.upper.numpy()[0], rows).min())
    found = list[torch.Tensor]()

    def attack(points: torch.Tensor) -> bool:
        outputs = network.evaluate(points.to(network.dtype))
        is_unsafe = outputs.argmax(dim=1) != winner
        found.extend(points[is_unsafe])
        return bool(is_unsafe.any())

    _at_once(monkeypatch, [])
    monkeypatch.setattr(leaf_programs, "PROGRAMS", programs)
    answer = search.decide_ball(network, region, winner, attack, Budget(), 4000)
    if abs(least) > 1e-6:
        assert answer.falsified is bool(least < 0)
        assert (answer.certificate is not None) is bool(least > 0)


def test_what_is_refuted_by_a_ray_is_proved():
    """A subproblem whose signs no point has: the ray's multipliers, taken often enough, prove it."""
    ball = ball_of(0, False)
    programs = LeafPrograms.on(ball)
    assert programs is not None
    generator, refuted = torch.Generator().manual_seed(1), 0
    _, parts = at_points(ball, generator, 40)
    for part in parts:
        signs = torch.where(part.signs == 0, torch.randint(-1, 2, part.signs.shape, generator=generator), part.signs)
        own = Subproblems(*({**vars(part), "signs": signs.to(torch.int8)}).values())
        model = programs.model(own)
        assert model is not None
        solution = WarmModel(model).solve()
        if solution.termination is not Termination.INFEASIBLE:
            continue
        dual = leaf_programs._refuting(model, solution.ray)
        if dual is None:
            continue
        slopes, multipliers = programs.numbers(dual)
        refuted += bool(
            ball.proved(
                own.rows.numpy(), own.signs, slopes[None], ball.exact_multipliers(torch.from_numpy(multipliers)[None]),
                own.boxes, own.points,
            )[0]
        )  # fmt: skip
    assert refuted >= 5
