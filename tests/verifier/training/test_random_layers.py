"""Random layers: draws in training, means in evaluation, and the network that they become."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from encoders.box import Box
from encoders.formats.torch_export import from_module
from encoders.network import Node
from encoders.ops import DropConnect, DropConnect2d, RandomAffine, RandomConv2d
from verifier.training.convolutional import resnet18
from verifier.training.random_layers import (
    DROPPED,
    LEARNABLE,
    NORMAL,
    random_layers,
    randomised,
    sum_of_variances,
    with_random_layers,
)

DRAWS = 4000


def chain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 2, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 9, 4, bias=False), nn.ReLU(), nn.Linear(4, 3)
    )


@pytest.mark.parametrize(("kind", "amount"), [(NORMAL, 0.1), (LEARNABLE, 0.1), (DROPPED, 0.3)])
def test_evaluation_is_the_mean_and_training_draws_around_it(kind, amount):
    plain, x = chain(), torch.rand(5, 1, 6, 6)
    module = with_random_layers(chain(), kind, amount)
    assert torch.equal(module.eval()(x), plain(x))
    layer = module.train()[0]
    # One layer is linear in its weights, so that the mean of its draws is its value at the mean.
    torch.manual_seed(1)
    outputs = torch.stack([layer(x) for _ in range(DRAWS)])
    error = 6 * outputs.std(dim=0) / DRAWS**0.5
    assert bool(((outputs.mean(dim=0) - plain[0](x)).abs() <= error + 1e-6).all())
    assert not torch.equal(outputs[0], outputs[1])


def test_a_learnable_deviation_is_that_of_the_start_stays_positive_and_has_the_gradient_of_its_formula():
    module = with_random_layers(nn.Sequential(nn.Linear(3, 2)), LEARNABLE, 0.2).train()
    (layer,), x = random_layers(module), torch.rand(4, 3)
    torch.testing.assert_close(layer.deviations()["weight"], torch.full((2, 3), 0.2))
    torch.manual_seed(2)
    module(x).square().sum().backward()
    # d/d rho of (x . (mean + softplus(rho) z))^2, with the same z.
    torch.manual_seed(2)
    z, z_bias = torch.randn(2, 3), torch.randn(2)
    outputs = functional.linear(x, layer.layer.weight + 0.2 * z, layer.layer.bias + 0.2 * z_bias)
    expected = (2 * outputs.T @ x) * z * torch.sigmoid(layer.rho_weight)
    torch.testing.assert_close(layer.rho_weight.grad, expected)
    with torch.no_grad():
        layer.rho_weight -= 30.0
    assert bool((layer.deviations()["weight"] > 0).all())


def test_dropped_weights_of_one_unit_are_dropout_of_its_inputs_in_distribution_and_those_of_two_are_not():
    """Liu and Sha (2019) call dropout the binomial case of the delta rule: so it is for each unit by itself, exactly.

    Two units share the inputs that dropout leaves out, each has draws of its own here: E[(y_1 - E y_1)(y_2 - E y_2)] is
    rate / (1 - rate) sum_i w_1i w_2i x_i^2 of dropout, and 0 of dropped weights.
    """
    rate, x = 0.2, torch.tensor([1.0, -2.0, 0.5])
    plain = nn.Sequential(nn.Linear(3, 2))
    with torch.no_grad():
        plain[0].weight.copy_(torch.tensor([[1.0, 0.7, -3.0], [0.4, -1.5, 2.0]]))
    (layer,) = random_layers(with_random_layers(plain, DROPPED, rate).train())
    torch.manual_seed(0)
    with torch.no_grad():
        dropped = torch.stack([layer(x) for _ in range(DRAWS)])
        dropout = plain[0](functional.dropout(x.expand(DRAWS, 3), rate))
    kept = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3)
    values = kept * x / (1.0 - rate) @ plain[0].weight.detach().T + plain[0].bias.detach()
    chance = (kept * (1.0 - rate) + (1.0 - kept) * rate).prod(dim=1)
    for drawn in (dropped, dropout):
        for unit in range(2):
            nearest = (drawn[:, unit, None] - values[:, unit]).abs().min(dim=1)
            assert float(nearest.values.max()) < 1e-5
            shares = torch.bincount(nearest.indices, minlength=8) / DRAWS
            assert bool(((shares - chance).abs() <= 5 * (chance * (1 - chance) / DRAWS).sqrt()).all())
    shared = float(rate / (1.0 - rate) * (plain[0].weight.detach().prod(dim=0) * x.square()).sum())
    error = 5 * float(dropped.std(dim=0).prod()) / DRAWS**0.5
    covariances = [float(torch.cov(drawn.T)[0, 1]) for drawn in (dropped, dropout)]
    assert abs(shared) > 4 * error and covariances == pytest.approx([0.0, shared], abs=error)


@pytest.mark.parametrize(
    ("kind", "convolution", "dense"),
    [
        (NORMAL, RandomConv2d, RandomAffine),
        (LEARNABLE, RandomConv2d, RandomAffine),
        (DROPPED, DropConnect2d, DropConnect),
    ],
)
def test_a_trained_module_becomes_a_network_that_is_drawn_as_the_module_is(kind, convolution, dense):
    module, x = with_random_layers(chain(), kind, 0.1), torch.rand(5, 1, 6, 6)
    network = randomised(from_module(module, (1, 6, 6)), module)
    random = [node.op for node in network.nodes if node.op.randomised]
    assert [type(op) for op in random] == [convolution, dense, dense]
    torch.testing.assert_close(network.evaluate(x), module.eval()(x))
    if kind == DROPPED:
        assert all(op.rate == 0.1 for op in random)
    else:
        parts = [op.parameters() for op in random]
        assert sum_of_variances(module) == pytest.approx(0.01 * (18 + 2 + 72 + 12 + 3))
        assert [set(part) for part in parts] == [
            {"weight", "bias", "deviation", "bias_deviation"}, {"weight", "deviation"},
            {"weight", "bias", "deviation", "bias_deviation"},
        ]  # fmt: skip
    # Two populations of draws, of the module in training and of the network: the same mean and deviation.
    generator = torch.Generator().manual_seed(3)
    module.train()
    torch.manual_seed(4)
    with torch.no_grad():
        ours = torch.stack([network.draw(generator).evaluate(x) for _ in range(600)])
        theirs = torch.stack([module(x) for _ in range(600)])
    spread = ours.std(dim=0) / 600**0.5
    assert bool(((ours.mean(dim=0) - theirs.mean(dim=0)).abs() <= 6 * 2**0.5 * spread).all())
    assert bool(((ours.std(dim=0) / theirs.std(dim=0) - 1).abs() <= 0.3).all())


def test_without_random_layers_the_network_is_left_as_it_is():
    module = chain()
    network = from_module(module, (1, 6, 6))
    assert randomised(network, module).digest == network.digest


def test_what_has_no_layers_or_hides_them_is_refused():
    with pytest.raises(ValueError, match="of which the network has none"):
        with_random_layers(nn.Sequential(nn.ReLU()), NORMAL, 0.1)
    hidden = nn.Sequential(nn.MultiheadAttention(4, 2))
    with pytest.raises(ValueError, match="not within MultiheadAttention"):
        with_random_layers(hidden, NORMAL, 0.1)


@pytest.mark.parametrize(("kind", "amount"), [(NORMAL, 0.01), (DROPPED, 0.1)])
def test_a_residual_network_is_drawn_as_its_module_is_and_bounded_over_draws(kind, amount):
    """ResNet-18 of width 2, its normalisation with statistics that are not trivial."""
    torch.manual_seed(0)
    module = with_random_layers(resnet18((1, 8, 8), (2,), 3), kind, amount)
    x = torch.rand(4, 1, 8, 8)
    with torch.no_grad():
        module.train()(torch.rand(16, 1, 8, 8))
    network = randomised(from_module(module, (1, 8, 8)), module)
    random = [node.op for node in network.nodes if node.op.randomised]
    # 17 convolutions of 3 x 3, 3 of 1 x 1 on shortcuts, and the last layer.
    assert len(random) == len(random_layers(module)) == 21
    torch.testing.assert_close(network.evaluate(x), module.eval()(x))
    boxes = network.cast(torch.float64).over_draws(5.0).interval(Box(x.double(), x.double()))[0]
    generator = torch.Generator().manual_seed(1)
    contained = 0
    for _ in range(10):
        drawn = network.cast(torch.float64).draw(generator)
        outputs = drawn.evaluate(x.double())
        if all(within(mean, draw) for mean, draw in zip(network.nodes, drawn.nodes, strict=True)):
            assert bool(((boxes.lower <= outputs) & (outputs <= boxes.upper)).all())
            contained += 1
    assert contained >= 5


def within(mean: Node, drawn: Node) -> bool:
    """Return whether a draw lies within five deviations of its normal weights."""
    spread = getattr(mean.op, "deviation", None)
    return spread is None or bool(((drawn.op.weight - mean.op.weight).abs() <= 5.0 * spread).all())
