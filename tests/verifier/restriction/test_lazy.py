"""The restriction's linear program on networks small enough for brute force."""

import math

import numpy as np
import pytest
import torch

from encoders import Network
from encoders.formulations.restrict import freeze
from encoders.linear_model import Direction
from encoders.ops import Affine, Relu
from tests.networks.chains import chain, random_relu_network
from tests.networks.restriction_questions import ask, conv_network, inputs_of, second_label
from tests.oracles.restriction_optimum import brute_force
from tests.seeds import few_or
from verifier.budget import Budget
from verifier.restriction.lazy import MASTERS, solve_lazily
from verifier.restriction.optimum import Outcome, first_step, nearest_in_box
from verifier.restriction.question import Question
from verifier.restriction.redundant import redundant_conditions
from verifier.restriction.regions import ask_own_region
from verifier.restriction.screen import screen
from verifier.restriction.whole import explicit_model, reduced_model, solve_whole
from verifier.solvers import SOLVERS

F64 = torch.float64
# Solvers keep rows to 1e-7; radii are of size 0.1.
TOLERANCE = 1e-6


@pytest.mark.parametrize("count", few_or(10, 30))
def test_the_three_forms_agree_with_each_other_and_with_an_independent_solver(count):
    outcomes = {Outcome.FOUND: 0, Outcome.INFEASIBLE: 0}
    for seed in range(count):
        network = conv_network(seed) if seed % 3 == 0 else random_relu_network(seed, (4, 8, 6, 3)).cast(F64)
        x = inputs_of(seed, 36).reshape(1, 1, 6, 6) if seed % 3 == 0 else inputs_of(seed, 4)
        question = ask(network, x, second_label(network, x)[1])
        expected = brute_force(question)
        answers = {form: solve_lazily(question, form) for form in MASTERS}
        highs = SOLVERS["highs"]
        answers["reduced"] = solve_whole(question, reduced_model(question), highs)
        answers["explicit"] = solve_whole(question, explicit_model(question), highs)
        for form, answer in answers.items():
            assert answer.outcome is (Outcome.FOUND if math.isfinite(expected) else Outcome.INFEASIBLE), (seed, form)
            assert answer.radius == pytest.approx(expected, abs=TOLERANCE), (seed, form)
            if answer.step is not None:
                assert np.abs(answer.step).max() <= answer.radius + TOLERANCE
                assert question.values(answer.step).min() >= -TOLERANCE
        if math.isfinite(expected):
            assert set(answers["ball"].tight) and set(answers["radius"].tight), "an optimum has multipliers"
        outcomes[answers["ball"].outcome] += 1
    assert min(outcomes.values()) >= count / 10, "both kinds must occur"


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver_finds_the_optimum_of_the_written_out_programs(solver):
    network = random_relu_network(5, (3, 6, 5, 3)).cast(F64)
    x = inputs_of(5, 3)
    question = ask(network, x, second_label(network, x)[1])
    expected = solve_lazily(question)
    lazy = solve_lazily(question, solver=SOLVERS[solver])
    assert lazy.outcome is expected.outcome and lazy.radius == pytest.approx(expected.radius, abs=1e-5)
    assert solve_lazily(question, cutoff=0.9 * expected.radius, solver=SOLVERS[solver]).outcome is Outcome.BEYOND
    for model in (reduced_model(question), explicit_model(question)):
        assert model.direction is Direction.INNER
        answer = solve_whole(question, model, SOLVERS[solver])
        assert answer.outcome is expected.outcome
        assert answer.radius == pytest.approx(expected.radius, abs=1e-5)


def enumerate_regions(network: Network, x: torch.Tensor, reference: int) -> tuple[float, float]:
    """Return (radius of the network, radius in x's own region) from the LPs of every region of a fine grid."""
    axis = torch.linspace(0, 1, 60, dtype=F64) + 1e-4
    grid = torch.cartesian_prod(axis, axis)
    patterns: dict[bytes, torch.Tensor] = {}
    outputs, conditions = freeze(network, grid, tolerance=0.0).forward(grid)
    for point, signs in zip(grid, _signs(network, grid), strict=True):
        patterns.setdefault(signs.numpy().tobytes(), point)
    assert outputs.shape[0] == conditions.shape[0] == len(grid)
    best = math.inf
    for point in patterns.values():
        for target in range(3):
            if target != reference:
                # Ties between two other classes are points of both regions: the union over targets is everything.
                best = min(best, brute_force(ask(network, x, target, at=point[None])))
    own = min(brute_force(ask(network, x, t)) for t in range(3) if t != reference)
    return best, own


def _signs(network: Network, points: torch.Tensor) -> torch.Tensor:
    values, signs = points, []
    for node in network.nodes:
        if isinstance(node.op, Relu):
            signs.append(values > 0)
        values = node.op.evaluate(values)
    return torch.cat(signs, dim=1)


@pytest.mark.parametrize("count", few_or(15, 200))
def test_the_radius_of_a_region_bounds_that_of_the_network_from_above_and_is_equal_where_the_region_holds_it(count):
    equal = 0
    for seed in range(count):
        network = random_relu_network(seed, (2, 3, 3)).cast(F64)
        x = inputs_of(seed, 2)
        reference = second_label(network, x)[0]
        radius, own = enumerate_regions(network, x, reference)
        lazy = min(solve_lazily(ask(network, x, t)).radius for t in range(3) if t != reference)
        assert lazy == pytest.approx(own, abs=TOLERANCE)
        assert lazy >= radius - TOLERANCE
        # No point of a dense sample is nearer than the radius.
        sample = torch.rand(2000, 2, dtype=F64, generator=torch.Generator().manual_seed(seed))
        unsafe = network.evaluate(sample).argmax(dim=1) != reference
        if bool(unsafe.any()):
            assert float((sample[unsafe] - x).abs().amax(dim=1).min()) >= radius - TOLERANCE
        equal += int(math.isfinite(own) and own <= radius + TOLERANCE)
    assert equal >= count / 5


def test_the_first_step_is_a_lower_bound_and_exact_for_a_linear_network():
    network = chain((4,), Affine(torch.randn(3, 4, dtype=F64, generator=torch.Generator().manual_seed(3))), dtype=F64)
    for seed in range(20):
        x = inputs_of(seed, 4)
        question = ask(network, x, second_label(network, x)[1])
        radius, step = first_step(question)
        expected = brute_force(question)
        assert radius <= expected + 1e-9
        assert np.abs(step).max() == pytest.approx(radius) or math.isinf(radius)
        rows = (question.rows(np.arange(2)) @ step + question.at_centre[:2]).min()
        assert radius < expected - 1e-9 or math.isinf(expected) or rows >= -1e-9


def test_the_closed_form_by_hand():
    """g = (2, 1), m = 1, rooms (.2, 1): at epsilon .2 the sum is .6, the rest .4 is coordinate 2's: epsilon .6."""
    radii, steps = nearest_in_box(np.array([[2.0, 1.0]]), np.array([1.0]), np.array([[0.2, 1.0]]), np.ones((1, 2)))
    assert radii[0] == pytest.approx(0.6) and steps[0] == pytest.approx([-0.2, -0.6])
    too_little = nearest_in_box(np.array([[2.0, 1.0]]), np.array([3.0]), np.array([[0.2, 1.0]]), np.ones((1, 2)))
    assert math.isinf(too_little[0][0])


def test_without_the_pixel_box_the_optimum_is_no_image():
    """Bastani et al. leave the box out: their optimum leaves [0, 1] and is smaller."""
    network = chain((2,), Affine(torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=F64), torch.tensor([1.5, 0.0])))
    x = torch.tensor([[0.9, 0.3]], dtype=F64)
    inside = solve_lazily(ask(network, x, 1))
    free = Question(freeze(network, x), x, 1, np.full(2, -9.0), np.full(2, 9.0), 9.0)
    outside = solve_lazily(free)
    assert outside.radius == pytest.approx(0.15) and (x.numpy() + outside.step).max() > 1.0
    assert inside.radius == pytest.approx(0.2) and (x.numpy() + inside.step).max() <= 1.0


def test_an_equality_printed_as_an_inequality_has_other_solutions():
    """Section 3.1 prints equalities as (w x + b >= 0); y = max(0, x) at x > 0 needs y - x = 0, not >= 0."""
    last = Affine(torch.tensor([[0.0], [1.0]]), torch.tensor([0.5, 0.0]))
    network = chain((1,), Affine(torch.tensor([[1.0]])), Relu(), last, dtype=F64)
    x = torch.tensor([[0.2]], dtype=F64)
    model = explicit_model(ask(network, x, 1))
    right = SOLVERS["highs"].solve(model)
    loose = type(model)(
        model.cost, model.A, model.row_lower, np.where(model.row_lower == model.row_upper, np.inf, model.row_upper),
        model.col_lower, model.col_upper, model.direction,
    )  # fmt: skip
    wrong = SOLVERS["highs"].solve(loose)
    assert right.primal[1] == pytest.approx(0.3)
    assert wrong.primal[1] < 0.25, "the printed relation lets the hidden unit rise by itself"


def test_a_direction_that_decides_ties_gives_the_smaller_radius():
    """All hidden units tie at x: taken as inactive there is no way out, along the first step there is."""
    last = Affine(torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.tensor([0.5, 0.0]))
    network = chain((2,), Affine(torch.eye(2)), Relu(), last, dtype=F64)
    x = torch.zeros(1, 2, dtype=F64)
    assert solve_lazily(ask(network, x, 1)).outcome is Outcome.INFEASIBLE
    assert solve_lazily(ask(network, x, 1, direction=torch.ones(1, 2))).radius == pytest.approx(0.25)


@pytest.mark.parametrize("count", few_or(10, 40))
def test_the_region_of_a_point_of_the_target_class_is_feasible_and_never_farther(count):
    for seed in range(count):
        network = random_relu_network(seed, (3, 8, 6, 3)).cast(F64)
        x = inputs_of(seed, 3)
        reference = second_label(network, x)[0]
        sample = torch.rand(200, 3, dtype=F64, generator=torch.Generator().manual_seed(seed))
        classes = network.evaluate(sample).argmax(dim=1)
        unsafe = sample[classes != reference]
        if not len(unsafe):
            continue
        away = (unsafe - x).abs().amax(dim=1)
        point = unsafe[away.argmin()][None]
        target = int(network.evaluate(point).argmax())
        for form in MASTERS:
            answer = solve_lazily(ask(network, x, target, at=point), form)
            assert answer.outcome is Outcome.FOUND
            assert answer.radius <= float(away.min()) + TOLERANCE


@pytest.mark.parametrize("form", MASTERS)
def test_a_cutoff_and_a_time_limit_are_told_apart_from_infeasible(form):
    network = random_relu_network(5, (3, 6, 5, 3)).cast(F64)
    x = inputs_of(5, 3)
    question = ask(network, x, second_label(network, x)[1])
    full = solve_lazily(question, form)
    assert full.outcome is Outcome.FOUND
    beyond = solve_lazily(question, form, cutoff=0.9 * full.radius)
    assert beyond.outcome is Outcome.BEYOND and 0 <= beyond.radius <= full.radius + TOLERANCE
    stopped = solve_lazily(question, form, budget=Budget(0.0))
    assert stopped.outcome is Outcome.STOPPED and stopped.radius <= full.radius
    assert solve_lazily(ask(network, x, question.target, reach=0.5 * full.radius), form).outcome is Outcome.INFEASIBLE
    whole = solve_whole(question, reduced_model(question), SOLVERS["highs"], seconds=0.0)
    assert whole.outcome is Outcome.STOPPED


def test_a_margin_moves_the_optimum_away_and_is_kept():
    network = random_relu_network(5, (3, 6, 5, 3)).cast(F64)
    x = inputs_of(5, 3)
    target = second_label(network, x)[1]
    plain = solve_lazily(ask(network, x, target))
    wider = solve_lazily(ask(network, x, target, alpha=0.05))
    assert wider.outcome is Outcome.FOUND and wider.radius > plain.radius
    outputs = network.evaluate(x + torch.from_numpy(wider.step))[0]
    rest = torch.cat([outputs[:target], outputs[target + 1 :]])
    assert float(outputs[target] - rest.max()) >= 0.05 - TOLERANCE


def test_the_screen_is_the_first_step_of_each_input_and_below_its_program():
    for network, shape in ((random_relu_network(2, (5, 8, 4)).cast(F64), (5,)), (conv_network(2), (1, 6, 6))):
        x = torch.round(4 * torch.rand(12, *shape, dtype=F64, generator=torch.Generator().manual_seed(1))) / 4
        targets = network.evaluate(x).argsort(dim=1, descending=True)[:, 1]
        bounds = screen(network, x, targets, (0.0, 1.0), 1.0)
        for i in range(12):
            question = ask_own_region(network, x[i : i + 1], int(targets[i]), (0.0, 1.0), 1.0)
            assert bounds[i] == pytest.approx(first_step(question)[0], abs=1e-9)
            assert bounds[i] <= solve_lazily(question).radius + TOLERANCE


def test_half_spaces_that_others_imply_are_counted_as_redundant():
    """x <= .5 implies x <= .8 and the domain x >= -1: of relus at .5 - x, .8 - x and x + 1 only the first says more."""
    hidden = Affine(torch.tensor([[-1.0], [-1.0], [1.0]]), torch.tensor([0.5, 0.8, 1.0]))
    network = chain((1,), hidden, Relu(), Affine(torch.ones(2, 3)), dtype=F64)
    question = ask(network, torch.tensor([[0.2]], dtype=F64), 1)
    assert redundant_conditions(question, SOLVERS["highs"]).tolist() == [False, True, True]
