"""Networks to train: what they compute, what files keep of them, and images that are changed on the way."""

import numpy as np
import pytest
import torch
from torch import nn

from encoders import read_network
from encoders.formats.torch_export import from_module
from verifier import train
from verifier.data import from_arrays
from verifier.training.architectures import ARCHITECTURES
from verifier.training.augmentation import flip, shift
from verifier.training.convolutional import network_in_network

SMALL = {
    "linear": ((5,), ()), "mlp": ((5,), (6, 4)), "mwd": ((5,), (6,)), "mwd-conv": ((1, 8, 8), (2, 6)),
    "lenet": ((1, 16, 16), (8,)), "cnn-small": ((3, 9, 8), (2, 3, 6)),
    "cnn-medium": ((3, 9, 8), (2, 3, 6)), "cnn-wide": ((3, 7, 8), (2, 3, 6)),
    "nin": ((3, 8, 8), (6,)), "resnet18": ((3, 8, 8), (2,)),
}  # fmt: skip


def random_data(shape: tuple[int, ...], count: int = 40):
    x = np.random.default_rng(0).random((count, *shape), dtype=np.float32)
    return from_arrays(x, np.arange(count) % 3, (0.0, 1.0))


@pytest.mark.parametrize("name", SMALL)
def test_weights_of_every_architecture_are_taken_from_a_file(tmp_path, name):
    shape, hidden = SMALL[name]
    settings = {"hidden": hidden, "batch": 20, "epochs": 2}
    first = train(name, random_data(shape), tmp_path / "a.safetensors", **settings)
    again = train(
        name, random_data(shape), tmp_path / "b.safetensors", start=first.out, learning_rate=1e-30, limit=20,
        **settings,
    )  # fmt: skip
    before, after = read_network(first.out), read_network(again.out)
    for a, b in zip(before.nodes, after.nodes, strict=True):
        for key, value in a.op.parameters().items():
            if key not in ("mean", "variance"):  # batch statistics move whatever the rate
                assert torch.allclose(value.double(), b.op.parameters()[key].double(), atol=1e-6), (a.name, key)
    assert again.metadata["start_digest"]


def test_batch_statistics_are_taken_as_well(tmp_path):
    from verifier.training.start import load_weights

    shape, hidden = SMALL["resnet18"]
    first = train("resnet18", random_data(shape), tmp_path / "a.safetensors", hidden=hidden, epochs=1, batch=20)
    module = ARCHITECTURES["resnet18"].make(shape, hidden, (), 3)
    load_weights(module, first.out)
    assert from_module(module.eval(), shape).digest == read_network(first.out).digest
    with pytest.raises(ValueError, match=r"holds layers .* the network to train has"):
        load_weights(ARCHITECTURES["resnet18"].make(shape, (3,), (), 3), first.out)
    with pytest.raises(ValueError, match="holds layers"):
        load_weights(nn.Sequential(nn.ReLU()), first.out)


@pytest.mark.parametrize(
    ("name", "shape", "weights"),
    [
        ("linear", (784,), 7850),
        ("mlp", (784,), 785 * 1000 + 1001 * 1000 + 1001 * 10),
        # 16 x 17, 32 x (256 + 1), 1568 x 100 + 100, 1010
        ("cnn-small", (1, 28, 28), 272 + 8224 + 156900 + 1010),
        # What He et al. (2016) have for CIFAR-10: 11.17 million.
        ("resnet18", (3, 32, 32), 11173962),
    ],
)
def test_sizes_are_those_of_the_papers(name, shape, weights):
    architecture = ARCHITECTURES[name]
    module = architecture.make(shape, architecture.hidden, (), 10)
    assert sum(p.numel() for p in module.parameters()) == weights
    module.eval()
    assert module(torch.rand(2, *shape)).shape == (2, 10)


def test_network_in_network_ends_in_a_convolution_without_a_relu():
    module = network_in_network((3, 32, 32), (192,), 10)
    kinds = [type(layer).__name__ for layer in module]
    assert kinds[-3:] == ["Conv2d", "AdaptiveAvgPool2d", "Flatten"] and kinds.count("Conv2d") == 9
    widths = [layer.out_channels for layer in module if isinstance(layer, nn.Conv2d)]
    assert widths == [192, 160, 96, 192, 192, 192, 192, 192, 10]


@pytest.mark.parametrize(
    ("name", "shape", "hidden", "words"),
    [
        ("linear", (4,), (3,), "neither hidden layers"), ("linear", (1, 4, 4), (), "takes vectors"),
        ("cnn-small", (16,), (2, 3, 4), "takes images"), ("cnn-small", (1, 8, 8), (2,), "3 hidden sizes, got 1"),
        ("cnn-wide", (1, 2, 2), (2, 3, 4), "at least 4 x 4"), ("nin", (1, 8, 8), (2, 3), "1 hidden sizes"),
        ("lenet", (1, 8, 8), (5,), "at least 16 x 16"),
    ],
)  # fmt: skip
def test_shapes_and_widths_that_do_not_fit_are_refused(name, shape, hidden, words):
    with pytest.raises(ValueError, match=words):
        ARCHITECTURES[name].make(shape, hidden, (), 10)


def test_shifted_images_are_windows_of_the_padded_ones():
    torch.manual_seed(0)
    images = torch.rand(30, 2, 8, 8)
    padded = torch.nn.functional.pad(images, (1, 1, 1, 1))
    seen = set()
    for image, moved in zip(padded, shift(images), strict=True):
        places = [(i, j) for i in range(3) for j in range(3) if torch.equal(image[:, i : i + 8, j : j + 8], moved)]
        assert len(places) == 1
        seen |= set(places)
    assert len(seen) > 5


def test_flipped_images_are_mirrored_about_half_of_the_time():
    torch.manual_seed(0)
    images = torch.rand(60, 1, 3, 4)
    same = [torch.equal(a, b) for a, b in zip(images, flip(images), strict=True)]
    mirrored = [torch.equal(a.flip(2), b) for a, b in zip(images, flip(images), strict=True)]
    assert 15 < sum(same) < 45 and 15 < sum(mirrored) < 45
    assert all(torch.equal(a, b) or torch.equal(a.flip(2), b) for a, b in zip(images, flip(images), strict=True))
