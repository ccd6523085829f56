"""Random resizing and padding: drawn in training, the image in evaluation, and the network that it becomes."""

import numpy as np
import pytest
import torch
from torch import nn

from encoders import read_network
from encoders.formats.torch_export import from_module
from encoders.ops.resize_and_pad import ResizeAndPad
from verifier import certify, train
from verifier.data import Dataset, from_arrays
from verifier.training.placement import behind_placement, with_placement


def images(count: int = 96) -> Dataset:
    """Return images whose class is the bright quarter."""
    generator = np.random.default_rng(0)
    labels = np.arange(count) % 4
    x = 0.3 * generator.random((count, 1, 8, 8))
    for row, label in enumerate(labels):
        x[row, 0, 4 * (label // 2) :, 4 * (label % 2) :][:4, :4] += 0.6
    return from_arrays(x.astype(np.float32), labels, (0.0, 1.0))


def chain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 16, 3))


def test_training_draws_as_the_op_does_and_evaluation_takes_the_image():
    plain, module, x = chain(), behind_placement(chain(), (1, 8, 8), 0.8), torch.rand(5, 1, 8, 8)
    assert torch.equal(module.eval()(x), plain(x))
    module.train()
    torch.manual_seed(3)
    drawn = [module(x) for _ in range(4)]
    torch.manual_seed(3)
    op = ResizeAndPad((1, 8, 8), smallest=6)
    for each in drawn:
        assert torch.equal(each, plain(op.draw(torch.default_generator).evaluate(x)))
    assert not torch.equal(drawn[0], drawn[1])


def test_a_module_becomes_a_network_that_draws_and_others_stay_as_they_are():
    module, x = behind_placement(chain(), (1, 8, 8), 0.8), torch.rand(5, 1, 8, 8)
    behind = from_module(module, (1, 8, 8))
    network = with_placement(behind, module)
    assert network.randomised and not behind.randomised and network.nodes[0].op.smallest == 6
    assert torch.equal(network.evaluate(x), behind.evaluate(x))
    one, other = (network.draw(torch.Generator().manual_seed(seed)) for seed in (1, 2))
    assert not torch.equal(one.evaluate(x), other.evaluate(x))
    assert with_placement(behind, chain()) is behind


def test_a_trained_network_is_right_in_its_draws_and_is_certified_over_all_of_them(tmp_path):
    data = images(192)
    options = {"epochs": 20, "batch": 12, "hidden": (4, 8, 16), "learning_rate": 0.01, "smallest": 0.8}
    result = train("cnn-small", data, tmp_path / "m.safetensors", regime="resize-and-pad", **options)
    network, x, y = read_network(result.out), torch.tensor(data.inputs), torch.tensor(data.labels)
    generator = torch.Generator().manual_seed(1)
    shares = [float((network.draw(generator).evaluate(x).argmax(dim=1) == y).float().mean()) for _ in range(20)]
    # Where the image is drawn is unlike where it was seen: .92 here, .5 of a network trained on images as they are.
    assert float(np.mean(shares)) > 0.8
    certified = certify(result.out, data, [1e-4], method="interval", draws_within=1.0, limit=20, out=None)
    assert certified.share_of_draws == 1.0 and certified.correct >= 18


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("mlp", {}, "takes networks of images .* got one of inputs of shape"),
        ("cnn-small", {"smallest": 1.0}, "smallest must lie between 0 and 1"),
        ("cnn-small", {"smallest": 0.0}, "smallest must lie between 0 and 1"),
        ("cnn-small", {"regime": "plain", "smallest": 0.5}, "does not take --smallest; supported by resize-and-pad"),
    ],
)
def test_what_does_not_fit_is_refused_before_work_starts(tmp_path, name, options, words):
    hidden = (2, 2, 4) if name == "cnn-small" else (4,)
    with pytest.raises(ValueError, match=words):
        train(name, images(), tmp_path / "a.safetensors", hidden=hidden, epochs=1,
              **{"regime": "resize-and-pad", **options})  # fmt: skip
    assert list(tmp_path.iterdir()) == []
