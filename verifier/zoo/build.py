"""Train the shipped digits models: `python -m verifier.zoo.build [FOLDER]`, a minute on one core.

Seeded. Inputs are shifted by up to a pixel and get uniform noise. Shifts, noise, widths and unit types were settled by
comparing a few recipes on the held-out part, so the accuracies there are slightly optimistic; the seed and the last
epoch were not chosen. The metadata of each file records what it is and its accuracy on the held-out part.
"""

import argparse
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from encoders.formats import write_network
from encoders.formats.torch_export import from_module
from encoders.layers import Mwd
from verifier.data import load_data
from verifier.zoo import FOLDER

NOISE = 0.1
BATCH = 100
# Top left corner of the window in the image with a border of one pixel.
SHIFTS = ((1, 1), (0, 1), (2, 1), (1, 0), (1, 2))


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a model is made and trained."""

    description: str
    make: Callable[[], nn.Sequential]
    loss: Callable[[Tensor, Tensor], Tensor]
    optimiser: Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer]
    epochs: int


def squared_error(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return the squared distance to the one-hot label: summed over classes, averaged over the batch."""
    return ((outputs - functional.one_hot(labels, outputs.shape[1])) ** 2).sum(dim=1).mean()


def _relu() -> nn.Sequential:
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10))


def _conv() -> nn.Sequential:
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 12, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(12, 16, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10),
    )  # fmt: skip


def _mwd() -> nn.Sequential:
    return nn.Sequential(Mwd(64, 64, "negated"), Mwd(64, 32, "plain"), Mwd(32, 10, "negated"))


def _adamw(parameters: Iterator[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=5e-3, weight_decay=1e-2)


def _adadelta(parameters: Iterator[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.Adadelta(parameters, lr=5.0)


RECIPES = {
    "digits-relu": Recipe("ReLU 64-32-32-10", _relu, functional.cross_entropy, _adamw, 150),
    "digits-conv": Recipe("conv 12, conv 16, 32-10; 288 relus", _conv, functional.cross_entropy, _adamw, 150),
    "digits-mwd": Recipe("MWD 64-64-32-10, types negated, plain, negated", _mwd, squared_error, _adadelta, 120),
}


def shifted(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return the 8 x 8 images, each left alone or moved by one pixel along one axis, zeros moving in."""
    padded = functional.pad(images.reshape(-1, 8, 8), (1, 1, 1, 1))
    moved = torch.empty(len(images), 8, 8)
    which = torch.randint(0, len(SHIFTS), (len(images),), generator=generator)
    for number, (row, column) in enumerate(SHIFTS):
        moved[which == number] = padded[which == number, row : row + 8, column : column + 8]
    return moved.flatten(1)


def train(recipe: Recipe, seed: int) -> nn.Sequential:
    """Return the trained module."""
    data = load_data("digits", split="train")
    assert data.labels is not None
    inputs, labels = torch.tensor(data.inputs).flatten(1), torch.tensor(data.labels)
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    module = recipe.make()
    optimiser = recipe.optimiser(module.parameters())
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, recipe.epochs)
    for _ in range(recipe.epochs):
        for rows in torch.randperm(len(inputs), generator=generator).split(BATCH):
            batch = inputs[rows]
            if torch.rand(1, generator=generator) < 0.5:
                batch = shifted(batch, generator)
            noise = NOISE * (2 * torch.rand(batch.shape, generator=generator) - 1)
            optimiser.zero_grad()
            recipe.loss(module((batch + noise).clamp(0, 1)), labels[rows]).backward()
            optimiser.step()
            for layer in module:
                if isinstance(layer, Mwd):
                    layer.clamp_parameters()
        schedule.step()
    return module.eval()


def build(folder: Path, seed: int = 0) -> None:
    """Train and write every shipped model."""
    data = load_data("digits")
    assert data.labels is not None
    for name, recipe in RECIPES.items():
        module = train(recipe, seed)
        network = from_module(module, (64,))
        predictions = network.evaluate(torch.tensor(data.inputs).flatten(1)).argmax(dim=1)
        accuracy = float((predictions == torch.tensor(data.labels)).double().mean())
        card = {"description": recipe.description, "data": "digits", "held_out_accuracy": accuracy, "seed": seed}
        write_network(network, folder / f"{name}.safetensors", card)
        print(f"{name}: {recipe.description}, {network.parameter_count} weights, accuracy {accuracy:.2%}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER)
    torch.set_num_threads(1)
    build(parser.parse_args().folder)
