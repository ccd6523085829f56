"""Intervals for training: those of the graph, never below an attacked loss, differentiable."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from encoders import BallRegion, Box
from encoders.formats.torch_export import from_module
from encoders.layers import Mwd
from verifier.bounds.interval import compare_classes
from verifier.bounds.linear.margins import linear_margins
from verifier.training.adversaries import ADVERSARIES, Adversary
from verifier.training.architectures import ARCHITECTURES
from verifier.training.backward_bounds import backward_scores
from verifier.training.interval_regime import (
    BackwardBounds,
    Expressive,
    IntervalEnds,
    Ramp,
    SmallBoxes,
    around,
    balance,
    tightness,
)  # fmt: skip
from verifier.training.intervals import Boxes, propagate, worst_scores
from verifier.training.start import draw_narrow_weights
from verifier.training.winners import with_winners

loss = functional.cross_entropy
NETWORKS = {
    "mlp": ((5,), (6, 6)), "sigmoid": ((5,), (6,)), "linear": ((5,), ()), "mwd": ((5,), (6,)),
    "cnn-small": ((2, 8, 8), (2, 3, 6)),
    "cnn-medium": ((1, 8, 8), (2, 3, 6)), "cnn-wide": ((1, 6, 6), (2, 3, 6)), "resnet18": ((1, 8, 8), (2,)),
    "lenet": ((1, 16, 16), (8,)), "nin": ((1, 8, 8), (4,)), "mlp of winners": ((5,), (6, 6)),
    "cnn-small of winners": ((2, 8, 8), (2, 3, 6)),
}  # fmt: skip


def built(name: str) -> tuple[nn.Sequential, torch.Tensor, torch.Tensor]:
    """Return a module in evaluation mode with batch statistics of its own, inputs and labels."""
    torch.manual_seed(0)
    shape, hidden = NETWORKS[name]
    architecture, *winners = name.split(" of ")
    module = ARCHITECTURES[architecture].make(shape, hidden, (), 4)
    module = with_winners(module, 0.4) if winners else module
    x, y = torch.rand(6, *shape), torch.randint(4, (6,))
    module.train()(x)
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                # Negative scales turn boxes around.
                layer.weight.copy_(torch.randn(len(layer.weight)))
                layer.bias.copy_(torch.randn(len(layer.bias)))
    return module.eval(), x, y


@pytest.mark.parametrize("name", NETWORKS)
def test_boxes_are_those_of_the_graph(name):
    module, x, y = built(name)
    with torch.no_grad():
        boxes, worst = worst_scores(module, around(x, x, 0.03, (0.0, 1.0)), y)
        assert torch.allclose(boxes.clean, module(x), atol=1e-5)
    network = from_module(module, tuple(x.shape[1:]))
    box = Box((x.double() - 0.03).clamp(min=0.0), (x.double() + 0.03).clamp(max=1.0))
    (ends,) = network.interval(box, [network.output.name])
    scale = float((ends.upper - ends.lower).max())
    assert torch.allclose(boxes.lower.double(), ends.lower, atol=1e-4 * scale)
    assert torch.allclose(boxes.upper.double(), ends.upper, atol=1e-4 * scale)
    if isinstance(module[-1], nn.Linear):
        # Both merge the last layer with the comparison.
        wins = compare_classes(network, box, y).wins
        assert torch.equal(wins, (worst < 0).scatter(1, y[:, None], True))


@pytest.mark.parametrize("name", ["mlp", "cnn-small", "cnn-wide", "resnet18"])
def test_a_loss_of_ends_alone_runs_inputs_only_for_batch_statistics_and_is_the_same(name):
    module, x, y = built(name)
    module.train()
    (total,) = IntervalEnds(loss, 0.03, 1.0, (0.0, 1.0), Ramp(0.5, 1.0), 0.5)(module, x, y, 0.4)
    start = around(x, x, 0.03 * 0.7, (0.0, 1.0))
    _, worst = worst_scores(module, start, y)
    assert torch.allclose(total, loss(worst, y) + 0.3 * 0.5 * (tightness(start) + balance(start)))


def test_narrow_weights_keep_the_width_of_boxes_where_the_usual_ones_widen_them():
    torch.manual_seed(0)
    widths = []
    for draw in (False, True):
        module = nn.Sequential(*(layer for _ in range(4) for layer in (nn.Linear(200, 200), nn.ReLU())))
        if draw:
            draw_narrow_weights(module)
        x = torch.rand(8, 200)
        boxes = propagate(module, around(x, x, 0.1, None))
        widths.append(float((boxes.upper - boxes.lower).mean().detach()))
    assert widths[0] > 10 * 0.2
    assert 0.5 * 0.2 < widths[1] < 2 * 0.2


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_over_the_ball_lie_in_the_boxes_and_no_attack_costs_more(name):
    module, x, y = built(name)
    criterion = ARCHITECTURES[name.split(" of ")[0]].loss
    with torch.no_grad():
        boxes, worst = worst_scores(module, around(x, x, 0.05, (0.0, 1.0)), y)
        for _ in range(20):
            points = (x + 0.05 * (2 * torch.rand_like(x) - 1)).clamp(0, 1)
            outputs = module(points)
            assert bool(((outputs >= boxes.lower - 1e-5) & (outputs <= boxes.upper + 1e-5)).all())
    for attack in ("fgsm", "ifgsm", "pgd-short"):
        points = Adversary(ADVERSARIES[attack], 0.05, "inf", (0.0, 1.0))(module, x, y)
        with torch.no_grad():
            assert float(criterion(module(points), y)) <= float(criterion(worst, y)) + 1e-5


# In training resnet18 ends in single pixels, whose batch statistics of six inputs bend too much for differences.
@pytest.mark.parametrize(
    ("name", "share", "training"),
    [
        ("mlp", 0.7, False), ("cnn-wide", 0.7, False), ("resnet18", 0.7, False), ("cnn-wide", 0.7, True),
        ("cnn-medium", 1.0, True),
    ],
)  # fmt: skip
def test_the_loss_has_the_gradient_of_differences(name, share, training):
    module, x, y = built(name)
    module, x = module.double().train(training), x.double()
    regime = IntervalEnds(loss, 0.03, share, (0.0, 1.0), Ramp(0.0, 0.6), 0.5, "middles")
    weight = next(module.parameters())
    next(regime(module, x, y, 0.3)).backward()
    for index in range(3):
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                weight.view(-1)[index] += sign * 1e-6
                values.append(float(next(regime(module, x, y, 0.3)).detach()))
                weight.view(-1)[index] -= sign * 1e-6
        difference = (values[0] - values[1]) / 2e-6
        assert float(weight.grad.view(-1)[index]) == pytest.approx(difference, rel=1e-4, abs=1e-6)


BACKWARD = ["mlp", "linear", "cnn-small", "cnn-medium", "cnn-wide", "resnet18"]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", BACKWARD)
def test_backward_bounds_at_a_point_are_the_margins(name, training):
    module, x, y = built(name)
    module = module.double().train(training)
    with torch.no_grad():
        start = around(x.double(), x.double(), 0.0, None)
        boxes, _ = worst_scores(module, start, y)
        bounds = backward_scores(module, start, y)
    margins = boxes.clean - boxes.clean.gather(1, y[:, None])
    assert torch.allclose(bounds, margins, atol=1e-9)


@pytest.mark.parametrize("name", BACKWARD)
def test_backward_bounds_hold_at_points_of_the_ball(name):
    module, x, y = built(name)
    with torch.no_grad():
        start = around(x, x, 0.05, (0.0, 1.0))
        worst_scores(module, start, y)
        bounds = backward_scores(module, start, y)
        points = [(x + 0.05 * (2 * torch.rand_like(x) - 1)).clamp(0, 1) for _ in range(20)]
    points += [Adversary(ADVERSARIES[a], 0.05, "inf", (0.0, 1.0))(module, x, y) for a in ("fgsm", "pgd-short")]
    for point in points:
        scores = module(point).detach()
        assert bool((scores - scores.gather(1, y[:, None]) <= bounds + 1e-4 * (1 + bounds.abs())).all())


def test_backward_bounds_of_one_hidden_layer_are_those_of_linear_bounds_on_the_graph():
    """Behind one layer intervals are exact, so that both bound the same relaxation."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, 4)).double()
    x, y = torch.rand(8, 5, dtype=torch.float64), torch.randint(4, (8,))
    region = BallRegion(x, torch.full((8,), 0.2, dtype=torch.float64), (0.0, 1.0))
    lower = linear_margins(from_module(module, (5,)), region, y).lower
    with torch.no_grad():
        start = around(x, x, 0.2, (0.0, 1.0))
        _, ends = worst_scores(module, start, y)
        bounds = backward_scores(module, start, y)
    asked = lower.isfinite()
    assert int(asked.sum()) > 10
    assert torch.allclose(-lower[asked], bounds[asked], rtol=1e-9)
    assert float(bounds.sum()) < float(ends.sum())


def test_the_share_of_backward_bounds_falls_with_the_ramp():
    module, x, y = built("mlp")
    regime = BackwardBounds(loss, 0.1, 1.0, (0.0, 1.0), Ramp(0.0, 0.5))
    with torch.no_grad():
        start = around(x, x, 0.05, (0.0, 1.0))
        _, worst = worst_scores(module, start, y)
        half = 0.5 * worst + 0.5 * backward_scores(module, start, y)
        whole = IntervalEnds(loss, 0.1, 1.0, (0.0, 1.0))
        assert float(next(regime(module, x, y, 0.25))) == pytest.approx(float(loss(half, y)), rel=1e-5)
        for progress in (0.5, 1.0):
            value = float(next(regime(module, x, y, progress)))
            assert value == pytest.approx(float(next(whole(module, x, y, 1.0))), rel=1e-5)


def test_backward_bounds_name_the_layer_that_they_lack():
    for name, words in (
        ("lenet", "support the layer MaxPool2d; supported: Linear"),
        ("nin", "ends in a linear"),
    ):
        module, x, y = built(name)
        start = around(x, x, 0.05, None)
        worst_scores(module, start, y)
        with pytest.raises(TypeError, match=words):
            backward_scores(module, start, y)


def test_batch_statistics_are_those_of_the_clean_inputs_and_move_the_running_ones_once():
    torch.manual_seed(0)
    module, x = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).train(), torch.rand(4, 1, 6, 6)
    twin = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).train()
    twin.load_state_dict(module.state_dict())
    expected = twin(x)
    boxes = propagate(module, around(x, x, 0.0, None))
    for values in (boxes.clean, boxes.lower, boxes.upper):
        assert torch.allclose(values, expected, atol=1e-5)
    assert torch.allclose(module[1].running_mean, twin[1].running_mean)
    assert int(module[1].num_batches_tracked) == 1


def test_mixtures_lie_between_the_attacked_and_the_interval_loss():
    module, x, y = built("mlp")
    adversary = Adversary(ADVERSARIES["ifgsm"], 0.1, "inf", (0.0, 1.0))
    whole = float(next(IntervalEnds(loss, 0.1, 1.0, (0.0, 1.0))(module, x, y, 1.0)).detach())
    attacked = float(loss(module(adversary(module, x, y)), y).detach())
    values = {a: float(next(Expressive(loss, adversary, a)(module, x, y, 1.0)).detach()) for a in (0.0, 0.3, 1.0)}
    assert values[0.0] == pytest.approx(attacked, rel=1e-5) and values[1.0] == pytest.approx(whole, rel=1e-5)
    assert values[0.3] == pytest.approx(0.7 * attacked + 0.3 * whole, rel=1e-5)
    small = [float(next(SmallBoxes(loss, adversary, s)(module, x, y, 1.0)).detach()) for s in (0.0, 0.3, 1.0)]
    assert small[0] == pytest.approx(attacked, rel=1e-5) and small[2] == pytest.approx(whole, rel=1e-5)
    assert attacked < small[1] < whole


def test_small_boxes_lie_in_the_ball():
    module, x, y = built("mlp")
    points = Adversary(ADVERSARIES["ifgsm"], 0.1, "inf", (0.0, 1.0))(module, x, y, 0.6)
    boxes = around(x, points, 0.04, (0.0, 1.0))
    assert float((boxes.lower - x).abs().max()) <= 0.1 + 1e-6 and float((boxes.upper - x).abs().max()) <= 0.1 + 1e-6


def test_the_ramp_rises_to_the_radius():
    ramp = Ramp(0.2, 0.5)
    assert [ramp.at(p) for p in (0.0, 0.25, 0.5, 1.0)] == pytest.approx([0.2, 0.6, 1.0, 1.0])
    assert Ramp(0.0, 0.0).at(0.0) == 1.0


def test_regularisers_of_a_hand_computed_layer():
    """One relu layer of boxes [-1, 3], [2, 4], [-3, -1]; the input is 1 wide, the layer (4 + 2 + 2) / 3."""
    start = around(torch.zeros(1, 3), torch.zeros(1, 3), 0.5, None)
    zeros = torch.zeros(1, 3)
    start.tape.append(
        (nn.ReLU(), Boxes.between(zeros, torch.tensor([[-1.0, 2.0, -3.0]]), torch.tensor([[3.0, 4.0, -1.0]])))
    )
    assert float(tightness(start)) == pytest.approx((0.5 - 3 / 8) / 0.5)
    # Middles 1, 3, -2 with mean 2/3: active 3, inactive 2; (7/3)^2 against (8/3)^2.
    assert float(balance(start)) == pytest.approx(0.0)
    start.tape[0] = (
        nn.ReLU(),
        Boxes.between(zeros, torch.tensor([[-1.0, 2.0, -9.0]]), torch.tensor([[3.0, 4.0, -7.0]])),
    )
    # Middles 1, 3, -8 with mean -4/3: 3/8 and (13/3)^2 / (20/3)^2.
    expected = ((0.5 - 3 / 8) + (0.5 - (13 / 20) ** 2)) / 2 / 0.5
    assert float(balance(start)) == pytest.approx(expected)


def test_a_layer_that_stands_in_two_places_counts_twice():
    relu = nn.ReLU()
    module = nn.Sequential(nn.Linear(3, 3), relu, nn.Linear(3, 3), relu)
    boxes = propagate(module, around(torch.rand(2, 3), torch.rand(2, 3), 0.1, None))
    assert len(boxes.hinges) == 2 and float(boxes.lower.detach().min()) >= 0


def test_layers_without_intervals_are_named():
    with pytest.raises(TypeError, match="GELU; supported: Sequential, Residual, Linear"):
        propagate(nn.Sequential(nn.Linear(2, 2), nn.GELU()), around(torch.zeros(1, 2), torch.zeros(1, 2), 0.1, None))
    with pytest.raises(TypeError, match="Gaussian link"):
        propagate(Mwd(2, 2, link="linear"), around(torch.zeros(1, 2), torch.zeros(1, 2), 0.1, None))


@pytest.mark.parametrize("name", ["mlp", "cnn-small", "cnn-medium"])
@pytest.mark.parametrize("statistics", ["inputs", "middles"])
def test_a_loss_and_its_gradient_in_bfloat16_are_near_those_in_float32(name, statistics):
    """Also of boxes whose half-width is less than the distance of two numbers of 8 bits, .004 behind one half."""
    module, x, y = built(name)
    module, x = module.train(), 0.5 + x / 2
    regime = IntervalEnds(loss, 1e-3, 1.0, (0.0, 1.0), statistics=statistics)
    found, widths = [], []
    for reduced in (False, True):
        module.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=reduced, cache_enabled=False):
            (total,) = regime(module, x, y, 1.0)
            widths.append(propagate(module, around(x, x, 1e-3, None)).half.detach().float())
        total.backward()
        found.append((float(total.detach()), torch.cat([p.grad.flatten() for p in module.parameters()])))
    (exact, gradient), (near, rounded) = found
    assert near == pytest.approx(exact, rel=0.05)
    assert float((rounded - gradient).norm()) < 0.2 * float(gradient.norm())
    assert torch.allclose(widths[0], widths[1], rtol=0.1)


def test_a_relu_on_middles_is_a_relu_on_ends_with_its_gradient():
    torch.manual_seed(0)
    middle, half = torch.randn(2, 50, dtype=torch.float64).unbind()
    middle, half = middle.requires_grad_(), half.detach().abs().requires_grad_()
    boxes = propagate(nn.ReLU(), Boxes(None, middle, half))
    ends = (middle - half).clamp(min=0), (middle + half).clamp(min=0)
    expected = Boxes.between(None, *ends)
    weights = torch.randn(2, 50, dtype=torch.float64)
    gradients = []
    for each in (boxes, expected):
        gradients.append(torch.autograd.grad((each.middle * weights[0] + each.half * weights[1]).sum(), (middle, half)))
    assert torch.allclose(boxes.middle, expected.middle) and torch.allclose(boxes.half, expected.half)
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.allclose(ours, theirs)


def test_layers_that_need_ends_are_refused_in_bfloat16():
    start = around(torch.rand(2, 1, 8, 8), torch.rand(2, 1, 8, 8), 0.1, None)
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(TypeError, match=r"bfloat16 .* the layer MaxPool2d"):
        propagate(nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2)), start)
