"""Training on margins: the loss by hand, the schedule's ends, certificates of what was trained, refusals."""

import math

import pytest
import torch

from encoders import Box, read_network
from encoders.layers.distance import Distance
from verifier import certify, train
from verifier.bounds.interval import proves
from verifier.data import load_data
from verifier.training.architectures import ARCHITECTURES
from verifier.training.distance_regime import BEYOND, RISE, SCALE, SHARES, Margins, share_at, squarings_at
from verifier.training.start import load_weights


def test_the_p_doubles_from_8_to_1024_and_ends_as_the_maximum():
    times = [k / 1000 for k in range(1001)]
    powers = [squarings_at(time) for time in times]
    assert powers[0] == squarings_at(RISE[0]) == 3
    assert squarings_at(RISE[1]) is None and squarings_at(1.0) is None
    steps = [p for p, before in zip(powers, [None, *powers], strict=False) if p != before]
    assert steps == [3, 4, 5, 6, 7, 8, 9, 10, None]
    assert (share_at(0.0), share_at(1.0)) == pytest.approx(SHARES)


def test_the_loss_is_the_clamped_margin_and_a_share_of_the_cross_entropy():
    torch.manual_seed(0)
    module = torch.nn.Sequential(Distance(4, 3, True)).train()
    x, y = torch.rand(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    value = float(next(Margins(0.2)(module, x, y, 1.0)).detach())
    total = 0.0
    for point, label in zip(x.double(), y.tolist(), strict=True):
        scores = [-float((point - w).abs().max()) for w in module[0].w.detach().double()]
        margin = scores[label] - max(score for k, score in enumerate(scores) if k != label)
        entropy = math.log(sum(math.exp(SCALE * score) for score in scores)) - SCALE * scores[label]
        total += min(1.0, max(0.0, 1 - margin / (2 * BEYOND * 0.2))) + SHARES[1] * entropy
    assert value == pytest.approx(total / 6, rel=1e-5)


def test_a_margin_beyond_twice_the_radius_is_what_intervals_prove(tmp_path):
    digits = load_data("digits")
    train(
        "distance", "digits", tmp_path / "d.safetensors", hidden=(8,), epochs=12, batch=50, certified_epsilon=0.05,
        device="cpu",
    )  # fmt: skip
    network = read_network(tmp_path / "d.safetensors")
    x, y = torch.tensor(digits.inputs, dtype=torch.float32).flatten(1), torch.tensor(digits.labels)
    scores = network.scores(x)
    again = ARCHITECTURES["distance"].make((64,), (8,), (), 10)
    load_weights(again, tmp_path / "d.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(again.eval()(x), scores)
    own = torch.nn.functional.one_hot(y, 10).bool()
    margin = scores[own] - scores.masked_fill(own, -torch.inf).amax(1)
    proved = proves(network, Box((x - 0.05).clamp(0, 1), (x + 0.05).clamp(0, 1)), y)
    assert int(proved.sum()) > 50
    # By float32 rounding of values of the size of 10 apart; the domain's edge may prove more.
    assert proved[margin > 0.1 + 1e-4].all()
    found = certify(tmp_path / "d.safetensors", "digits", [0.05], method="interval", out=None)
    assert found.results[0].certified == int(proved.sum())


def test_other_networks_and_unit_types_are_refused():
    with pytest.raises(ValueError, match="regime margins does not fit mlp"):
        train("mlp", "digits", "x.safetensors", regime="margins", certified_epsilon=0.1, hidden=(4,))
    with pytest.raises(ValueError, match="unit types of distance networks"):
        train("distance", "digits", "x.safetensors", certified_epsilon=0.1, hidden=(4,), types=("plain", "plain"))
