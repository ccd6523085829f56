"""Robust linear models: the closed form is the worst case, and the certified error what attacks measure."""

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import nn
from torch.nn import functional

from encoders import read_network
from verifier import attack, certify, train
from verifier.data import from_arrays, load_data
from verifier.training.linear_regime import RobustLinear, linear_layer, worst_margins


def binary(seed: int, inputs: int = 6) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(inputs, 2).double()


def corners(inputs: int) -> torch.Tensor:
    return torch.tensor(list(itertools.product((-1.0, 1.0), repeat=inputs)), dtype=torch.float64)


@pytest.mark.parametrize("label", [0, 1])
def test_the_loss_is_the_greatest_over_the_corners_and_the_printed_one_is_not(label):
    """log(1 + exp(-y h + eps |w|_1)) against 2^6 corners; Pallaprolu, Madala (2020) print -eps |w|_1."""
    for seed in range(4):
        layer, x, y = binary(seed), torch.rand(1, 6, dtype=torch.float64), torch.tensor([label])
        with torch.no_grad():
            worst = max(float(functional.cross_entropy(layer(x + 0.3 * c), y)) for c in corners(6))
        loss = float(next(RobustLinear(0.3)(nn.Sequential(layer), x, y, 0.0)).detach())
        assert loss == pytest.approx(worst, rel=1e-12)
        weight, bias = layer.weight.detach(), layer.bias.detach()
        w, b = weight[1] - weight[0], bias[1] - bias[0]
        h = float(((x @ w) + b) * (2 * label - 1))
        size = float(w.abs().sum())
        assert loss == pytest.approx(np.log1p(np.exp(-h + 0.3 * size)), rel=1e-12)
        assert np.log1p(np.exp(-h - 0.3 * size)) < worst


@pytest.mark.parametrize(("norm", "dual"), [("inf", 1.0), ("2", 2.0), ("1", torch.inf)])
def test_without_a_domain_the_radius_times_the_dual_norm_is_lost(norm, dual):
    torch.manual_seed(0)
    layer = nn.Linear(8, 4).double()
    x, y = torch.rand(5, 8, dtype=torch.float64), torch.randint(4, (5,))
    rows = layer.weight[None] - layer.weight[y][:, None]
    scores = layer(x)
    plain = scores - scores.gather(1, y[:, None])
    expected = plain + 0.2 * torch.linalg.vector_norm(rows, dual, dim=2)
    assert torch.allclose(worst_margins(layer, x, y, 0.2, norm), expected, rtol=1e-12)


def test_in_a_domain_the_1_norm_agrees_with_a_linear_program():
    torch.manual_seed(1)
    layer = nn.Linear(5, 3).double()
    x, y = torch.rand(4, 5, dtype=torch.float64), torch.randint(3, (4,))
    worst = worst_margins(layer, x, y, 0.6, "1", (0.0, 1.0)).detach()
    for row, k in itertools.product(range(4), range(3)):
        d = (layer.weight[k] - layer.weight[y[row]]).detach().numpy()
        bounds = [(0, 1 - v) for v in x[row].tolist()] + [(0, v) for v in x[row].tolist()]
        found = linprog(np.concatenate([-d, d]), A_ub=np.ones((1, 10)), b_ub=[0.6], bounds=bounds)
        scores = layer(x[row]).detach()
        assert float(worst[row, k]) == pytest.approx(float(scores[k] - scores[y[row]]) - found.fun, abs=1e-9)


def test_the_gradient_is_that_of_the_maximum():
    layer, x, y = binary(2), torch.rand(3, 6, dtype=torch.float64), torch.tensor([0, 1, 1])
    regime, module = RobustLinear(0.2, "2", (0.0, 1.0)), nn.Sequential(layer)
    next(regime(module, x, y, 0.0)).backward()
    step = 1e-6
    for i in range(6):
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                layer.weight[0, i] += sign * step
                values.append(float(next(regime(module, x, y, 0.0)).detach()))
                layer.weight[0, i] -= sign * step
        assert float(layer.weight.grad[0, i]) == pytest.approx((values[0] - values[1]) / (2 * step), abs=1e-7)


def test_other_networks_are_refused():
    with pytest.raises(ValueError, match="one linear layer"):
        linear_layer(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)))


def check_that_certified_is_worst(tmp_path, trained, tested, epsilon: float, **options) -> int:
    """Train; hold intervals, the closed form and the exact attack of a linear model against one another."""
    result = train(
        "linear", trained, tmp_path / f"{epsilon}.safetensors", regime="robust-linear", certified_epsilon=epsilon,
        learning_rate=0.01, **options,
    )  # fmt: skip
    certified = certify(result.out, tested, [epsilon], method="interval", out=None).results[0].certified
    robust = attack(result.out, tested, "fgsm", epsilon, out=None).robust
    op = read_network(result.out).output.op
    layer = nn.Linear(*reversed(op.weight.shape)).double()
    layer.load_state_dict({"weight": op.weight.double(), "bias": op.bias.double()})
    x, y = torch.tensor(np.asarray(tested.inputs)).double().flatten(1), torch.tensor(tested.labels)
    worst = worst_margins(layer, x, y, epsilon, "inf", (0.0, 1.0)).scatter(1, y[:, None], -torch.inf)
    assert certified == robust == int((worst.amax(dim=1) < 0).sum())
    return certified


def two_classes(name: str, split: str, **options):
    data = load_data(name, split=split, **options)
    kept = data.labels < 2
    inputs = np.asarray(data.inputs)[kept]
    return from_arrays(inputs.reshape(len(inputs), -1), data.labels[kept], (0.0, 1.0))


@pytest.mark.parametrize("epsilon", [0.1, 0.3])
def test_the_certified_error_on_two_digits_is_the_measured_worst_case(tmp_path, epsilon):
    trained, tested = (two_classes("digits", split) for split in ("train", "test"))
    certified = check_that_certified_is_worst(tmp_path, trained, tested, epsilon, epochs=10, batch=20)
    assert 0 < certified <= len(tested.labels)


@pytest.mark.slow
def test_the_certified_error_on_mnist_0_against_1_is_the_measured_worst_case(tmp_path, shared_data):
    trained, tested = (two_classes("mnist", split, data_dir=shared_data / "mnist") for split in ("train", "test"))
    few = from_arrays(np.asarray(tested.inputs)[:400], tested.labels[:400], (0.0, 1.0))
    assert check_that_certified_is_worst(tmp_path, trained, few, 0.2, epochs=1, limit=4000) > 340
