"""Replaced derivatives are taken where the forward pass went; expectations are those over all draws."""

from itertools import product

import pytest
import torch

from encoders.ops import Affine
from encoders.views.pseudogradient import replace_backward
from tests.networks.chains import chain, random_relu_network
from tests.networks.searches import random_search
from tests.networks.staircase import Staircase
from tests.seeds import few_or
from verifier.attacks.criteria import slopes
from verifier.attacks.descent import Descent
from verifier.attacks.source import Source
from verifier.attacks.steps import Steepest
from verifier.attacks.wrappers import Expect, Replace


def straight(op, x):
    return x


def test_a_replaced_derivative_is_taken_at_the_value_of_the_replaced_function():
    # f(y) = y^3 after g(x) = round(x), straight through: 3 g(x)^2, and not 3 x^2 as printed.
    x = torch.tensor([0.4, 0.9, 1.7], dtype=torch.float64, requires_grad=True)
    value = replace_backward(torch.round)(x) ** 3
    assert value.tolist() == [0.0, 1.0, 8.0]
    (gradient,) = torch.autograd.grad(value.sum(), x)
    assert gradient.tolist() == [0.0, 3.0, 12.0]
    printed = 3 * x.detach() ** 2
    assert not torch.allclose(gradient, printed)


def test_the_stand_in_is_differentiated_at_x():
    x = torch.tensor([0.3, 1.2], dtype=torch.float64, requires_grad=True)
    value = replace_backward(torch.round, lambda t: t**2)(x)
    (gradient,) = torch.autograd.grad((value * torch.tensor([1.0, 10.0])).sum(), x)
    assert value.tolist() == [0.0, 1.0]
    assert gradient.tolist() == pytest.approx([0.6, 24.0])


def test_a_function_that_returns_its_argument_can_be_replaced():
    x = torch.ones(2, requires_grad=True)
    (gradient,) = torch.autograd.grad(replace_backward(lambda t: t, lambda t: 3 * t)(x).sum(), x)
    assert gradient.tolist() == [3.0, 3.0]


def test_replaced_gradients_break_what_a_quantised_network_hides():
    network = random_relu_network(3, (8, 16, 4))
    steps = chain((8,), Staircase(32), *(node.op for node in network.nodes))
    hidden = Descent(10, Steepest(0.1)).run(random_search(steps, 100, 0.15)).unsafe
    sources = (Replace({"staircase": straight}),)
    shown = Descent(10, Steepest(0.1), sources=sources).run(random_search(steps, 100, 0.15)).unsafe
    # Without a gradient random directions are left, which break a third of what the replaced one does.
    assert int(hidden.sum()) < int(shown.sum()) / 2
    assert int(shown.sum()) > 30


def test_a_replaced_source_has_the_scores_of_the_network():
    network = random_relu_network(3, (8, 16, 4))
    x = torch.rand(5, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Replace({"relu": straight})(network).scores(x), network.scores(x))


def test_an_op_of_two_inputs_cannot_be_replaced():
    from encoders import Network, Node
    from encoders.network import INPUT
    from encoders.ops import Add

    network = Network((Node("sum", Add(), (INPUT, INPUT)),), (2,))
    with pytest.raises(ValueError, match="'add' has 2 inputs; only ops with one"):
        Replace({"add": straight})(network).scores(torch.zeros(1, 2))


def masked(network, x, keep):
    """Return the scores of a network whose inputs are kept where `keep` is 1, and doubled for it."""
    return network.scores(2 * x * keep)


def dropped(network, x, generator):
    return masked(network, x, torch.bernoulli(torch.full((x.shape[1],), 0.5), generator=generator))


@pytest.mark.parametrize("count", few_or(100, 400))
def test_the_mean_gradient_is_unbiased_and_gets_nearer_with_more_draws(count):
    # Inputs are dropped with probability 1/2: 2^4 equally likely networks, whose mean gradient is the expectation.
    network = random_relu_network(1, (4, 8, 3))
    x = torch.rand(3, 4, generator=torch.Generator().manual_seed(1)).requires_grad_(True)
    classes = torch.tensor([0, 1, 2])

    def loss(scores):
        # ln(softmax_c / (1 - softmax_c)): what the slopes of the cross-entropy are of.
        return torch.logit(scores.softmax(dim=1).gather(1, classes[:, None]).squeeze(1))

    draws = [loss(masked(network, x, torch.tensor(keep))).sum() for keep in product([0.0, 1.0], repeat=4)]
    (exact,) = torch.autograd.grad(torch.stack(draws).mean(), x)

    def error(count, seed):
        source = Expect(dropped, count, seed)(network)
        return source.differentiate(x, lambda z: slopes("cross-entropy", z, classes))[1] - exact

    few = torch.stack([error(1, seed) for seed in range(count)])
    many = torch.stack([error(25, seed) for seed in range(count // 4)])
    # Unbiased: the mean over all runs is within 5 standard errors of zero in each coordinate.
    assert bool((few.mean(dim=0).abs() <= 5 * few.std(dim=0) / count**0.5 + 1e-7).all())
    # The variance falls as 1 / N: 25 draws, a fifth of the deviation.
    assert float(many.norm() / (count // 4) ** 0.5) == pytest.approx(float(few.norm() / count**0.5) / 5, rel=0.15)


def test_more_draws_break_more_of_a_randomised_network():
    network = random_relu_network(2, (8, 16, 4))

    def broken(draws):
        """Return how many proposals the expectation over 200 fresh draws confirms."""
        search = random_search(network, 100, 0.1)
        points = Descent(10, Steepest(0.2), sources=(Expect(dropped, draws),), loss="cross-entropy").propose(search)
        mean = Expect(dropped, 200, seed=99)(network).scores(points)
        return int((mean.argmax(dim=1) != search.classes).sum())

    assert broken(16) > broken(1)


def test_a_run_with_the_same_seed_draws_the_same():
    network = random_relu_network(2, (8, 16, 4))
    x = torch.rand(3, 8, generator=torch.Generator().manual_seed(2))
    assert torch.equal(Expect(dropped, 3, 5)(network).scores(x), Expect(dropped, 3, 5)(network).scores(x))
    assert not torch.equal(Expect(dropped, 3, 5)(network).scores(x), Expect(dropped, 3, 6)(network).scores(x))


def test_no_draws_are_refused():
    with pytest.raises(ValueError, match="at least one draw"):
        Expect(dropped, 0)(random_relu_network(2))


def test_without_replacements_a_source_is_the_plain_one():
    network = chain((3,), Affine(torch.eye(3), torch.zeros(3)))
    x = torch.rand(4, 3)
    assert torch.equal(Replace({})(network).scores(x), Source(network).scores(x))
