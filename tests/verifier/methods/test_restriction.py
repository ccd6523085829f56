import math

import numpy as np
import pytest
import torch

from encoders.formats.torch_export import from_module
from encoders.formulations.restrict import freeze
from encoders.ops import Affine, Sigmoid
from tests.answers import bracketed
from tests.networks.chains import chain, random_relu_network
from tests.networks.mwd_chains import random_mwd_network
from tests.networks.restriction_questions import ask, conv_network, inputs_of, second_label
from tests.seeds import few_or
from verifier import certify
from verifier.answers import Answer, Witness
from verifier.batch import Batch
from verifier.bounds.interval import refute_at
from verifier.budget import Budget
from verifier.methods import find_method
from verifier.methods.restriction import RestrictionMethod
from verifier.methods.suitable import check_method
from verifier.restriction.lazy import solve_lazily
from verifier.restriction.points import NUDGES, nudged, pixel_alpha, pixel_points
from verifier.restriction.pull import nearest_witness
from verifier.restriction.regions import ask_own_region, ask_region_of, next_region
from verifier.subject import Subject
from verifier.training.architectures import ARCHITECTURES

F64 = torch.float64
TOLERANCE = 1e-6


def batch_of(network, points: torch.Tensor) -> Batch:
    subject = Subject("test", network, lambda x: network.evaluate(torch.from_numpy(x)).numpy(), torch.device("cpu"))
    classes = network.evaluate(points).argmax(dim=1)
    centres = points.to(network.dtype).to(F64)
    return Batch(subject, centres, classes, tuple(range(len(points))), (0.0, 1.0), 1.0)


def float_inputs(seed: int, count: int, n: int) -> torch.Tensor:
    return torch.rand(count, n, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("count", few_or(1, 6))
def test_a_witness_of_the_method_replays_and_is_never_farther_than_the_attacks(count):
    method, improved = RestrictionMethod(), 0
    for seed in range(count):
        network = random_relu_network(seed, (6, 12, 10, 3))
        batch = batch_of(network, float_inputs(seed, 6, 6))
        plain = bracketed(method.attack, batch, [0.3, 0.315], Budget())
        polished = bracketed(method, batch, [0.3], Budget())
        for row, (before, after) in enumerate(zip(plain.brackets, polished.brackets, strict=True)):
            assert after.upper <= before.upper
            if math.isinf(after.upper) or after.upper == 0.0:
                continue
            witness = polished.witnesses[row]
            assert witness.distance == after.upper
            assert bool(refute_at(network, witness.point[None], batch.classes[row : row + 1]).refuted.all())
            assert float((witness.point.double() - batch.centres[row]).abs().max()) <= witness.distance
            improved += int(after.upper < before.upper)
    assert improved >= count * 5 / 6


@pytest.mark.parametrize("count", few_or(4, 12))
def test_the_paper_s_form_bounds_from_above_and_all_labels_never_give_more_than_the_second(count):
    strictly = 0
    for seed in range(count):
        network = random_relu_network(seed, (3, 5, 4))
        batch = batch_of(network, float_inputs(seed, 4, 3))
        brackets = {}
        for targets in ("second", "all"):
            brackets[targets] = bracketed(RestrictionMethod("input", targets), batch, [0.9], Budget()).brackets
        for second, every in zip(brackets["second"], brackets["all"], strict=True):
            assert every.upper <= second.upper * (1 + 1e-6)
            strictly += int(every.upper < 0.99 * second.upper)
    assert strictly >= 1


def test_the_nearest_witness_replays_over_the_tie():
    """The optimum itself is a tie up to rounding; its float32 neighbours fall on either side."""
    for seed in range(10):
        network = random_relu_network(seed, (3, 6, 3))
        batch = batch_of(network, float_inputs(seed, 1, 3))
        target = second_label(network.cast(F64), batch.centres)[1]
        question = ask_own_region(network, batch.centres, target, (0.0, 1.0), 1.0)
        answer = solve_lazily(question)
        if answer.step is None:
            continue
        points = nudged(question, answer.step)
        assert len(points) == len(NUDGES)
        witness = nearest_witness(batch, points)
        assert witness is not None
        assert answer.radius * (1 - 1e-5) <= witness.distance <= answer.radius * 1.02 + 1e-6


@pytest.mark.parametrize("count", few_or(7, 20))
def test_walking_never_moves_away(count):
    steps = gains = 0
    for seed in range(count):
        network = random_relu_network(seed, (4, 10, 8, 3)).cast(F64)
        x = inputs_of(seed, 4)
        reference = second_label(network, x)[0]
        sample = torch.rand(300, 4, dtype=F64, generator=torch.Generator().manual_seed(seed))
        classes = network.evaluate(sample).argmax(dim=1)
        unsafe = sample[classes != reference]
        if not len(unsafe):
            continue
        point = unsafe[(unsafe - x).abs().amax(dim=1).argmin()][None]
        question = ask_region_of(network, x, point, int(network.evaluate(point).argmax()), (0.0, 1.0), 1.0)
        answer = solve_lazily(question)
        for _ in range(5):
            following = next_region(question, answer)
            if following is None:
                break
            after = solve_lazily(following)
            assert after.radius <= answer.radius + 1e-5, seed
            # What was found is really reached: the frozen network is the network there.
            values = network.evaluate(x + torch.from_numpy(after.step))[0]
            assert float(values[question.target]) >= float(values.max()) - 1e-5
            steps, gains = steps + 1, gains + int(after.radius < answer.radius - 1e-4)
            question, answer = following, after
    assert steps >= count / 2 and gains >= count * 3 / 20


def test_a_network_without_pieces_is_refused_with_the_methods_that_apply():
    mwd = random_mwd_network(1)
    with pytest.raises(ValueError, match=r"needs linear pieces.* Methods for this network: interval, .*auto"):
        check_method("restriction", mwd, "inf")
    network = chain((2,), Affine(torch.eye(2)), Sigmoid(), Affine(torch.eye(2)))
    assert "'1-sigmoid'" in (find_method("restriction", "inf").refusal(network) or "")
    assert find_method("restriction", "inf").refusal(random_relu_network(1)) is None


@pytest.mark.parametrize("count", few_or(4, 20))
def test_certify_takes_the_method_and_falsifies_only(count):
    result = certify("digits-relu", "digits", [0.1], method="restriction", limit=count)
    (row,) = result.results
    assert row.certified == 0 and row.falsified >= count * 3 / 4
    attacked = certify("digits-relu", "digits", [0.1], method="auto", limit=count)
    for index, bracket in attacked.brackets.items():
        assert bracket.lower < result.brackets[index].upper


def test_the_pixel_margin_survives_every_rounding_inside_the_region():
    network = chain((5,), Affine(torch.randn(3, 5, dtype=F64, generator=torch.Generator().manual_seed(1))), dtype=F64)
    for seed in range(20):
        x = torch.round(inputs_of(seed, 5) * 255) / 255
        reference, target = second_label(network, x)
        alpha = pixel_alpha(ask(network, x, target))
        answer = solve_lazily(ask(network, x, target, alpha=alpha))
        if answer.step is None:
            continue
        exact = x + torch.from_numpy(answer.step)
        for corner in range(32):
            shift = torch.tensor([(corner >> i) & 1 for i in range(5)], dtype=F64)
            rounded = (torch.floor(exact * 255) + shift).clamp(0, 255) / 255
            if float((rounded - exact).abs().max()) * 255 <= 0.5 + 1e-9:
                values = network.evaluate(rounded)[0]
                assert values[target] >= values[reference] - 1e-9


def test_rounding_to_pixels_keeps_the_margin_of_a_linear_network_within_the_radius_rounded_up():
    """Nearest rounding alone loses the class in some cases; the careful candidates never do."""
    lost = 0
    generator = torch.Generator().manual_seed(3)
    network = chain((30,), Affine(torch.randn(2, 30, dtype=F64, generator=generator)), dtype=F64)
    for seed in range(40):
        x = torch.round(inputs_of(seed, 30) * 255) / 255
        reference, target = second_label(network, x)
        question = ask(network, x, target)
        answer = solve_lazily(question)
        if answer.step is None:
            continue
        points = pixel_points(question, answer.step)
        away = (points - x).abs().flatten(1).amax(dim=1) * 255
        assert bool((away <= math.ceil(answer.radius * 255 - 1e-6) + 1e-6).all())
        assert bool(((points * 255 - torch.round(points * 255)).abs() < 1e-9).all())
        outputs = network.evaluate(points)
        holds = outputs[:, target] >= outputs[:, reference] - 1e-9
        assert bool(holds[-1])
        assert bool(holds[1]) or len(points) == 2
        lost += int(not bool(holds[0]))
    assert lost >= 3
    with pytest.raises(ValueError, match="no image of whole pixels"):
        pixel_points(ask(network, inputs_of(1, 30), 0), np.zeros(30))


def test_a_convolutional_network_is_walked_like_any_other():
    network = conv_network(3)
    x = inputs_of(3, 36).reshape(1, 1, 6, 6)
    batch = Batch(
        Subject("conv", network, lambda v: network.evaluate(torch.from_numpy(v)).numpy(), torch.device("cpu")),
        x, network.evaluate(x).argmax(dim=1), (0,), (0.0, 1.0), 1.0,
    )  # fmt: skip
    findings = bracketed(RestrictionMethod(), batch, [0.2], Budget())
    assert math.isinf(findings.brackets[0].upper) or isinstance(findings.witnesses[0], Witness)


def test_without_time_nothing_is_found_and_nothing_is_said():
    network = random_relu_network(1, (3, 5, 3))
    batch = batch_of(network, float_inputs(1, 3, 3))
    for start in ("attack", "input"):
        findings = bracketed(RestrictionMethod(start), batch, [0.5], Budget(0.0))
        assert all(answer == Answer() for answer in findings.answers)


def test_a_lenet_without_relus_after_its_convolutions_has_fewer_conditions():
    """15,220 conditions with fused relus and pools; 2,880 and 800 windows of 4 cells and 500 relus without."""
    counts = {}
    for name in ("lenet", "lenet-linear-convolutions"):
        module = ARCHITECTURES[name].make((1, 28, 28), (500,), (), 10).double().eval()
        network = from_module(module, (1, 28, 28))
        x = torch.rand(1, 1, 28, 28, dtype=F64, generator=torch.Generator().manual_seed(1))
        _, conditions = freeze(network, x).forward(x)
        counts[name] = int((freeze(network, x).forward(x + 0.1)[1] != 0).sum())
        assert conditions.shape[1] == 4 * (2880 + 800) + 500
    # The winner's own condition is 0 by definition where no relu asks it to be positive.
    assert counts["lenet-linear-convolutions"] == 3 * (2880 + 800) + 500 < counts["lenet"]
