"""The stochastic delta rule: its formulas, its schedules, plain training where nothing is random, and divergence."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from encoders import read_network
from verifier import certify, train
from verifier.data import from_arrays
from verifier.training.delta_rule import DeltaRule
from verifier.training.random_layers import NORMAL, random_layers, with_random_layers
from verifier.training.request import TrainRequest

loss = functional.cross_entropy


def clusters(count: int = 120):
    """Return separable clusters in four dimensions."""
    generator = np.random.default_rng(0)
    labels = np.arange(count) % 3
    centres = np.array([[0.2, 0.2, 0.8, 0.5], [0.8, 0.3, 0.2, 0.5], [0.5, 0.8, 0.5, 0.1]])
    x = (centres[labels] + 0.05 * generator.standard_normal((count, 4))).clip(0, 1)
    return from_arrays(x.astype(np.float32), labels, (0.0, 1.0))


def moved(schedule: str, progress: list[float], deviation: float = 0.1) -> tuple[list[float], list[float]]:
    """Return the mean deviation after each batch of two epochs, and the mean size of the gradients."""
    torch.manual_seed(0)
    module = with_random_layers(nn.Sequential(nn.Linear(4, 3)), NORMAL, deviation).train()
    regime, x, y = DeltaRule(loss, 0.5, 0.7, schedule, 2), torch.rand(9, 4), torch.randint(3, (9,))
    after, sizes = [], []
    for share in progress:
        for value in regime(module, x, y, share):
            module.zero_grad()
            value.backward()
        (layer,) = random_layers(module)
        after.append(float(layer.deviations()["weight"].mean()))
        sizes.append(float(layer.layer.weight.grad.abs().mean()))
    return after, sizes


def test_deviations_move_by_their_formula_and_schedule():
    # Two epochs of four batches: decays are due at each half epoch, from the third batch on.
    progress = [n / 8 for n in range(8)]
    decays = {"batch": [1] * 8, "printed": [0, 0, 1, 0, 1, 0, 1, 0], "published": [0, 0, 1, 0, 1, 0, 1, 0]}
    for schedule, due in decays.items():
        after, sizes = moved(schedule, progress)
        expected = 0.1
        for number, value in enumerate(after):
            expected += 0.5 * sizes[number] if schedule != "published" or due[number] else 0.0
            expected *= 0.7 if due[number] else 1.0
            assert value == pytest.approx(expected, rel=1e-5), (schedule, number)


def test_no_deviation_and_no_growth_is_plain_training_bit_for_bit(tmp_path):
    """Also from a checkpoint on: what is drawn and not used moves no other randomness."""
    options = {"hidden": (6,), "epochs": 3, "batch": 16, "seed": 1}
    plain = train("mlp", clusters(), tmp_path / "plain.safetensors", **options)
    ruled = train(
        "mlp", clusters(), tmp_path / "ruled.safetensors", regime="delta-rule", deviation=0.0, beta=0.0, **options
    )
    assert plain.history.losses == ruled.history.losses
    networks = [read_network(result.out) for result in (plain, ruled)]
    for one, other in zip(*(network.nodes for network in networks), strict=True):
        for name, value in one.op.parameters().items():
            assert torch.equal(value, other.op.parameters()[name])
    assert [network.randomised for network in networks] == [False, True]


def test_as_printed_it_diverges_and_stops_cleanly_with_the_best_epoch_before(tmp_path):
    """Growth by gradients that grow with it: more growth than .05 shows in few batches what that does in many."""
    result = train(
        "mlp", clusters(), tmp_path / "m.safetensors", regime="delta-rule", deviation_schedule="printed",
        beta=1.0, zeta=1.0, epochs=60, batch=200, hidden=(16, 16, 16), learning_rate=0.02,
    )  # fmt: skip
    assert result.history.diverged is not None and result.metadata["diverged_in_epoch"] == result.history.diverged
    network = read_network(result.out)
    assert all(bool(v.isfinite().all()) for node in network.nodes for v in node.op.parameters().values())


@pytest.mark.parametrize("regime", ["delta-rule", "delta-rule-learnable", "drop-connect"])
def test_a_trained_network_is_right_at_its_mean_and_in_its_draws_and_is_certified_over_them(tmp_path, regime):
    data = clusters()
    options = {"deviation": 0.01} if regime != "drop-connect" else {"drop_connect": 0.02}
    result = train(
        "mlp", data, tmp_path / "m.safetensors", regime=regime, epochs=25, batch=10, hidden=(12,),
        learning_rate=0.02, **options,
    )  # fmt: skip
    network, (x, y) = read_network(result.out), (torch.tensor(data.inputs).float(), torch.tensor(data.labels))
    generator = torch.Generator().manual_seed(1)
    accuracies = [float((network.draw(generator).evaluate(x).argmax(dim=1) == y).float().mean()) for _ in range(20)]
    assert float((network.evaluate(x).argmax(dim=1) == y).float().mean()) > 0.9
    assert np.mean(accuracies) > 0.8
    # Three deviations of a rule that has decayed, or of deviations that training has shrunk.
    found = certify(result.out, data, [0.001], method="crown", draws_within=3.0, limit=20, out=None)
    if regime != "drop-connect":
        assert found.results[0].certified > 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"regime": "delta-rule", "deviation_schedule": "daily"}, "supported: batch, printed, published"),
        ({"regime": "delta-rule", "zeta": 1.5}, "zeta in"),
        ({"regime": "delta-rule-learnable", "deviation": 0.0}, "learnable: not 0"),
        ({"regime": "drop-connect", "drop_connect": 1.0}, r"drop_connect must lie in \[0, 1\)"),
        ({"regime": "delta-rule", "beta": -1.0}, "beta must be positive or 0"),
        ({"regime": "drop-connect", "beta": 0.1}, "does not take --beta; supported by delta-rule"),
    ],
)
def test_what_cannot_be_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        TrainRequest("mlp", **options)
