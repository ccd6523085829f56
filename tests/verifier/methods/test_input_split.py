"""The method `input-split` inside `certify`: a hand-computed radius, and networks that it refuses."""

import pytest
import torch

from encoders import write_network
from encoders.ops import Affine, Sigmoid
from tests.networks.chains import chain, random_relu_network
from verifier import certify
from verifier.methods import METHODS


def test_the_radius_of_a_smooth_network_is_the_one_computed_by_hand(tmp_path) -> None:
    # y0 - y1 = sigmoid(4 x) - 3/4, above zero for x > ln(3)/4 = 0.274653...: from x = 1 the radius is 0.725346...
    network = chain((1,), Affine(torch.tensor([[4.0]])), Sigmoid(),
                    Affine(torch.tensor([[1.0], [0.0]]), torch.tensor([0.0, 0.75])))  # fmt: skip
    write_network(network, tmp_path / "model.safetensors")
    data = torch.ones(1, 1).numpy(), torch.zeros(1, dtype=torch.int64).numpy()
    result = certify(tmp_path / "model.safetensors", data, [0.72, 0.73], method="input-split", out=None)
    assert [row.certified for row in result.results] == [1, 0]
    assert [row.falsified for row in result.results] == [0, 1]
    assert result.results[0].certified_checked == 1
    assert result.brackets[0].lower == pytest.approx(0.725346, abs=1e-3) or result.brackets[0].lower >= 0.72


def test_networks_of_many_inputs_are_refused_by_name() -> None:
    refusal = METHODS["input-split"].refusal(random_relu_network(1, (33, 4, 2)))
    assert refusal is not None and "up to 32 inputs; the network has 33" in refusal
    assert METHODS["input-split"].refusal(random_relu_network(1, (32, 4, 2))) is None
