"""Commands of Huang et al.: the curves of a training are those of the network that `train` writes."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks import adversary_paper
from encoders import read_network
from verifier import train
from verifier.data import from_arrays
from verifier.training.validation import split


@pytest.mark.parametrize("row", ["normal", "lwa"])
def test_the_curve_of_an_epoch_is_the_clean_accuracy_of_its_network_whatever_judges_it(row, tmp_path, monkeypatch):
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 120)
    images = (generator.uniform(0, 0.6, (120, 1, 28, 28)) + 0.4 * labels[:, None, None, None]).astype(np.float32)
    data = from_arrays(images, labels, (0.0, 1.0))
    monkeypatch.setattr(adversary_paper, "load_data", lambda *_, **__: data)
    how = adversary_paper.methods(1.5, 1.0)[row]
    options = SimpleNamespace(epochs=1, train_inputs=120, data_dir=None)
    curves = adversary_paper.curves_by_epoch(SimpleNamespace(options=options), how)

    path = tmp_path / "lenet.safetensors"
    train("lenet", data, path, epochs=1, seed=0, limit=120, **how)
    held_out, _ = split(120, 0)
    network = read_network(path)
    with torch.no_grad():
        right = network.scores(torch.tensor(images)[held_out]).argmax(dim=1) == torch.tensor(labels)[held_out]
    assert curves["clean"] == [float(right.double().mean())]
    assert curves["clean"][0] > 0.0
    assert len(curves["Adv_Loss"]) == 1
    assert curves["Adv_Loss"] <= curves["clean"]
