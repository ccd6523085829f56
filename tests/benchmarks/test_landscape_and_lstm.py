"""The loss landscape's numbers, and the LSTM that the delta rule trains, against torch's own."""

import csv
import importlib
import sys

import pytest
import torch
from torch import nn

from encoders.ops import Affine, KWinners, Relu
from tests.conftest import REPOSITORY
from tests.networks.chains import chain


@pytest.fixture(scope="module")
def scripts():
    """Return both benchmarks, which import others as scripts do."""
    sys.path.insert(0, str(REPOSITORY / "benchmarks"))
    try:
        yield importlib.import_module("loss_landscape"), importlib.import_module("delta_rule_lstm")
    finally:
        sys.path.pop(0)


def test_the_grid_has_the_margins_and_k_winners_are_rougher(scripts, tmp_path):
    landscape, _ = scripts
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(60, 8, generator=generator), torch.randn(3, 60, generator=generator)
    relu, winners = (chain((8,), Affine(first), op, Affine(second)) for op in (Relu(), KWinners(6)))
    x = torch.rand(10, 8, generator=generator)
    y = relu.scores(x).argmax(dim=1)
    landscape.picture({"relu": relu, "k winners": winners}, x[:1], y[:1], 0.3, tmp_path)
    assert (tmp_path / "loss-landscape.png").exists()
    rows = list(csv.DictReader((tmp_path / "loss-landscape.csv").read_text().splitlines()))
    assert len(rows) == landscape.GRID**2
    (middle,) = (row for row in rows if float(row["along gradient"]) == float(row["random"]) == 0.0)
    scores = relu.scores(x[:1])[0].sort().values
    assert float(middle["relu"]) == pytest.approx(float(scores[-1] - scores[-2]), abs=1e-3)
    smooth, rough = (landscape.roughness(network, x, y, 0.3) for network in (relu, winners))
    assert rough[0] > smooth[0] and rough[1] < smooth[1]


def test_near_points_have_other_winners_where_a_layer_is_wide(scripts, monkeypatch):
    landscape, _ = scripts
    monkeypatch.setattr(landscape, "PAIRS", 40)
    narrow, wide = landscape.winners_differ(20, 2, 0.01), landscape.winners_differ(4000, 400, 0.01)
    assert narrow[0] < 0.3 and wide[0] > 0.9
    # Independent points share a tenth of a tenth's winners.
    assert wide[1] == pytest.approx(0.1, abs=0.02)
    assert landscape.winners_differ(50, 5, 0.0)[0] == 0.0


def test_the_lstm_is_torch_s(scripts):
    _, recurrent = scripts
    torch.manual_seed(0)
    module = recurrent.Lstm(12, 4, 5, None).eval()
    theirs = nn.LSTM(3, 5, batch_first=True)
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(module.cell.weight[:, :3])
        theirs.weight_hh_l0.copy_(module.cell.weight[:, 3:])
        theirs.bias_ih_l0.copy_(module.cell.bias)
        theirs.bias_hh_l0.zero_()
        x = torch.randn(6, 12)
        expected = module.out(theirs(x.reshape(6, 4, 3))[0][:, -1])
        torch.testing.assert_close(module(x), expected)
    with pytest.raises(ValueError, match="13 inputs are no 4 steps"):
        recurrent.Lstm(13, 4, 5, None)


def test_one_draw_of_the_weights_holds_for_all_steps(scripts):
    _, recurrent = scripts
    torch.manual_seed(0)
    module, x = recurrent.Lstm(12, 4, 5, ("normal", 0.3)), torch.randn(6, 12)
    torch.manual_seed(7)
    trained = module.train()(x)
    torch.manual_seed(7)
    fixed = module.fixed(draw=True)
    torch.testing.assert_close(fixed(x), trained)
    torch.testing.assert_close(module.fixed(draw=False)(x), module.eval()(x))
    first, again = (module.draw(torch.Generator().manual_seed(3))(x) for _ in range(2))
    assert torch.equal(first, again) and not torch.equal(first, fixed(x))
