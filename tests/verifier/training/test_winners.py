"""k-winners-take-all in place of relus: what is trained is what files hold, and it is decided by the usual methods."""

import numpy as np
import pytest
import torch
from torch import nn

from encoders import read_network
from encoders.layers import KWinners
from verifier import certify, train
from verifier.data import from_arrays
from verifier.training.architectures import ARCHITECTURES
from verifier.training.winners import with_winners


def test_every_relu_of_a_chain_is_replaced_and_the_weights_are_shared():
    module = ARCHITECTURES["cnn-small"].make((1, 8, 8), (2, 3, 6), (), 4)
    replaced = with_winners(module, 0.25)
    assert [type(layer) for layer in replaced].count(KWinners) == 3
    assert not any(isinstance(layer, nn.ReLU) for layer in replaced)
    assert replaced[0] is module[0]
    assert int((replaced[:2](torch.rand(1, 1, 8, 8)) != 0).sum()) == 8  # a quarter of 2 x 4 x 4


@pytest.mark.parametrize(("name", "shape", "hidden"), [("linear", (4,), ()), ("resnet18", (1, 8, 8), (2,))])
def test_networks_without_relus_in_their_chain_are_refused(name, shape, hidden):
    module = ARCHITECTURES[name].make(shape, hidden, (), 3)
    with pytest.raises(ValueError, match="--winners replaces the relus"):
        with_winners(module, 0.1)


def test_a_trained_network_of_winners_is_read_and_certified(tmp_path):
    """Two classes apart in two of four inputs; methods that need rows with binaries or pieces refuse by name."""
    generator = np.random.default_rng(0)
    y = generator.integers(0, 2, 120)
    x = (0.25 + 0.5 * y[:, None] + generator.uniform(-0.2, 0.2, (120, 4))).astype(np.float32)
    data = from_arrays(x, y, (0.0, 1.0))
    found = train("mlp", data, tmp_path / "w.safetensors", hidden=(8,), winners=0.25, epochs=20, batch=20)
    assert found.metadata["winners"] == 0.25
    assert [node.op.settings() for node in read_network(found.out).nodes][1] == {"count": 2}
    for method in ("interval", "crown", "auto"):
        row = certify(found.out, data, [0.01], method=method, limit=40).results[0]
        assert row.certified >= 30 and row.falsified <= 2
    for method in ("exact", "milp", "restriction"):
        with pytest.raises(ValueError, match="k-winners"):
            certify(found.out, data, [0.01], method=method, limit=4)


def test_a_share_out_of_range_is_refused(tmp_path):
    data = from_arrays(np.zeros((4, 2), dtype=np.float32), np.arange(4) % 2, (0.0, 1.0))
    with pytest.raises(ValueError, match=r"winners must lie in \[0, 1\]"):
        train("mlp", data, tmp_path / "w.safetensors", winners=1.5)
