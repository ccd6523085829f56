"""Losses and targets: values by hand, their signs, and what is refused."""

import math

import pytest
import torch
from torch.nn import functional

from encoders import BallRegion
from encoders.ops import Affine
from tests.networks.chains import chain, random_relu_network
from verifier.attacks import Search
from verifier.attacks.criteria import (
    LOSSES,
    TARGETS,
    cross_entropy,
    logit_ratio,
    margin,
    margins,
    shortfalls,
    slopes,
)
from verifier.attacks.descent import Descent
from verifier.attacks.steps import Steepest
from verifier.budget import Budget

SCORES = torch.tensor([[3.0, 1.0, 2.0, 0.0]], dtype=torch.float64)
OWN, TARGET = torch.tensor([0]), torch.tensor([1])


def test_a_margin_is_negative_exactly_where_another_class_wins():
    scores = torch.tensor([[3.0, 1.0, 2.0], [1.0, 1.0, 0.0], [0.0, 5.0, 1.0]])
    assert margins(scores, torch.tensor([0, 0, 0])).tolist() == [1.0, 0.0, -5.0]


def test_a_shortfall_is_not_positive_exactly_where_the_target_wins():
    scores = torch.tensor([[3.0, 1.0, 2.0], [1.0, 1.0, 0.0], [0.0, 5.0, 1.0]])
    assert shortfalls(scores, torch.zeros(3).long(), torch.tensor([1, 1, 2])).tolist() == [2.0, 0.0, 4.0]


def test_losses_by_hand():
    partition = math.log(math.exp(3) + math.exp(1) + math.exp(2) + 1)
    assert float(margin(SCORES, OWN)) == 1.0
    assert float(margin(SCORES, OWN, TARGET)) == 2.0
    assert float(cross_entropy(SCORES, OWN)) == pytest.approx(3 - partition)
    assert float(cross_entropy(SCORES, OWN, TARGET)) == pytest.approx(partition - 1)
    # (3 - 2) / (3 - 1), and (3 - 1) / (3 - (1 + 0) / 2).
    assert float(logit_ratio(SCORES, OWN)) == 0.5
    assert float(logit_ratio(SCORES, OWN, TARGET)) == 0.8


def test_a_cross_entropy_is_the_library_s_and_keeps_its_direction_where_that_saturates():
    scores = 5 * torch.randn(50, 4, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    own = torch.randint(4, (50,), generator=torch.Generator().manual_seed(5))
    expected = functional.cross_entropy(scores, own, reduction="none")
    assert torch.allclose(cross_entropy(scores, own), -expected)
    assert torch.allclose(cross_entropy(scores, own, own), expected)
    # At a margin of 40 softmax rounds to (1, 4e-18): the library's gradient lowers nothing, only raises the other.
    sure = torch.tensor([[40.0, 0.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(cross_entropy(sure, OWN).sum(), sure)
    assert float(gradient[0, 0]) == pytest.approx(-float(gradient[0, 1]), rel=1e-6)
    assert float(gradient[0, 0]) > 0
    (usual,) = torch.autograd.grad(-functional.cross_entropy(sure, OWN), sure)
    assert float(usual[0, 0]) == 0.0


def test_the_targeted_margin_is_a_difference_of_cross_entropies():
    scores = torch.randn(50, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    own, target = torch.zeros(50).long(), torch.full((50,), 3)
    # L(t) - L(c): the log-sum-exp cancels.
    difference = cross_entropy(scores, own, target) + cross_entropy(scores, own)
    assert torch.allclose(margin(scores, own, target), difference)


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_falls_as_the_target_gains_or_the_own_class_loses(name):
    scores = torch.randn(100, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    own, target = torch.zeros(100).long(), torch.ones(100).long()
    # With its denominator the ratio may rise where the own class has lost, or falls itself.
    step = torch.tensor([0.0, 1e-3, 0.0, 0.0, 0.0], dtype=torch.float64)
    wins = scores.argmax(dim=1) == 0
    before = LOSSES[name](scores[wins], own[wins], target[wins])
    assert bool((LOSSES[name](scores[wins] + step, own[wins], target[wins]) < before).all())
    step = torch.tensor([-1e-3, 0.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    before = LOSSES[name](scores[wins], own[wins], None)
    assert bool((LOSSES[name](scores[wins] + step, own[wins], None) < before).all())


def test_a_logit_ratio_is_the_same_for_scaled_scores():
    scores = torch.randn(50, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    own = scores.argmax(dim=1)
    assert torch.allclose(logit_ratio(scores, own), logit_ratio(1000 * scores + 7, own))


def test_a_logit_ratio_of_too_few_classes_is_refused():
    with pytest.raises(ValueError, match="needs 3 classes, the network has 2"):
        logit_ratio(torch.zeros(1, 2), OWN)
    with pytest.raises(ValueError, match="needs 4 classes with targets"):
        logit_ratio(torch.zeros(1, 3), OWN, TARGET)


def test_targets_by_hand():
    found = {name: choose(SCORES, OWN).tolist() for name, choose in TARGETS.items() if choose is not None}
    assert found == {"second": [[2]], "least-likely": [[3]], "nearest": [[2, 1, 3]], "all": [[2, 1, 3]]}
    many = torch.arange(12.0)[None]
    assert TARGETS["nearest"](many, torch.tensor([11])).tolist() == [list(range(10, 1, -1))]
    # Where the own class is the least likely, the next to last is aimed at.
    choose = TARGETS["least-likely"]
    assert choose is not None
    assert choose(SCORES, torch.tensor([3])).tolist() == [[1]]


def test_the_printed_sign_of_the_targeted_objective_drives_away_from_the_target():
    # Pallaprolu and Madala (2020) print argmin L(c) - L(t) with L the loss, which is argmin z_t - z_c.
    network = random_relu_network(5, (6, 16, 4))
    x = torch.rand(60, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    own = network.scores(x.float()).argmax(dim=1)
    target = (own + 1) % 4
    region = BallRegion(x.float().double(), torch.full((60,), 0.3, dtype=torch.float64), (0.0, 1.0))
    search = Search(network, region, own, range(60), Budget(), target)

    def reached(sign):
        LOSSES["printed or right"] = lambda scores, c, t: sign * margin(scores, c, t)
        try:
            return int(Descent(20, Steepest(0.1), loss="printed or right").run(search).unsafe.sum())
        finally:
            del LOSSES["printed or right"]

    assert reached(1.0) > 30
    assert reached(-1.0) == 0


@pytest.mark.parametrize(
    ("targets", "message"),
    [([1, 0], "input 1: the target class 0 is the class it has already"), ([1, 7], "classes 0 to 2"),
     ([1], "1 target classes for 2 inputs")],
)  # fmt: skip
def test_impossible_targets_are_refused(targets, message):
    network = chain((1,), Affine(torch.ones(3, 1), torch.zeros(3)))
    region = BallRegion(torch.zeros(2, 1, dtype=torch.float64), torch.ones(2, dtype=torch.float64))
    with pytest.raises(ValueError, match=message):
        Search(network, region, torch.zeros(2).long(), (0, 1), Budget(), torch.tensor(targets))


def test_unknown_losses_and_targets_are_refused():
    with pytest.raises(ValueError, match="unknown loss 'hinge'; supported: margin"):
        Descent(1, Steepest(1.0), loss="hinge")
    with pytest.raises(ValueError, match="unknown target 'first'; supported: any"):
        Descent(1, Steepest(1.0), target="first")


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("aimed", [False, True])
def test_slopes_are_the_gradients_of_the_losses_up_to_a_positive_factor(name, aimed):
    generator = torch.Generator().manual_seed(4)
    scores = (3 * torch.randn(50, 5, generator=generator, dtype=torch.float64)).requires_grad_(True)
    own, target = torch.zeros(50).long(), torch.full((50,), 3) if aimed else None
    (expected,) = torch.autograd.grad(LOSSES[name](scores, own, target).sum(), scores)
    given = slopes(name, scores.detach(), own, target)
    if name == "cross-entropy":
        # Of the log odds: larger by 1 / (1 - softmax) of the class that counts.
        expected = expected / (1 - scores.softmax(dim=1)[:, 3 if aimed else 0, None])
    assert torch.allclose(given, expected, rtol=1e-9, atol=1e-12)


def test_the_slope_of_the_cross_entropy_survives_where_the_softmax_rounds_to_one():
    scores = torch.tensor([[500.0, 1.0, 0.0]])
    assert float(scores.softmax(dim=1)[0, 0]) == 1.0
    share = float(torch.tensor([1.0, 0.0]).softmax(dim=0)[0])
    assert slopes("cross-entropy", scores, torch.tensor([0]))[0].tolist() == pytest.approx([1, -share, share - 1])
