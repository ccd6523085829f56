"""`train`: a named architecture on named data, into a model file that `certify` reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from encoders import Box, write_network
from encoders.formats.torch_export import from_module
from encoders.layers import Mwd, MwdConv2d
from verifier.bounds.interval import proves
from verifier.data import Dataset, load_data
from verifier.subject import choose_device
from verifier.training.architectures import ARCHITECTURES, adam
from verifier.training.interval_regime import IntervalEnds
from verifier.training.regimes import ADVERSARIAL_SETTINGS, Adversarial, Clean
from verifier.training.sensitivity_regime import Sensitivity
from verifier.training.trainer import History, Plan, Regime, Trainer

# Certified training uses Adam, which is far ahead of AdaDelta there; of the rates tried on held-out training images
# this one certifies most (benchmarks/RESULTS.md).
CERTIFIED_LEARNING_RATE = 1e-2

# Shares exp(4 (t^2 - z^2)) certify 1 to 2 points more than the paper's exp(t^2 - z^2) in training on interval ends; in
# plain training they lose (benchmarks/RESULTS.md). More than 4 leaves the range of the float32 kernel at z = 3.
CERTIFIED_SHARPNESS = 4.0

MWD_NETWORKS = ("mwd", "mwd-conv")

# Inputs of the training part that validation holds back.
VALIDATION_SHARE = 1 / 12


@dataclass(frozen=True)
class TrainResult:
    """What `train` returns: the file, its metadata (accuracies, plan), and the history of the epochs."""

    out: Path
    metadata: dict[str, Any]
    history: History


def train(
    name: str,
    data: str | Dataset,
    out: str | Path,
    *,
    epochs: int = 30,
    hidden: Sequence[int] = (),
    types: Sequence[str] = (),
    batch: int = 100,
    learning_rate: float | None = None,
    schedule: str = "cosine",
    seed: int = 0,
    pseudo_share: float = 1.0,
    sharpness: float | None = None,
    certified_epsilon: float = 0.0,
    certified_share: float = 0.5,
    sensitivity_cost: float = 0.0,
    attack: str | None = None,
    attack_epsilon: float = 0.3,
    mixing: Literal["batch", "steps"] = "batch",
    start: str | Path | None = None,
    limit: int | None = None,
    data_dir: str | Path | None = None,
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> TrainResult:
    """Train a network and write it to a .safetensors file; return its accuracies.

    name: mwd, mwd-conv, relu, sigmoid or lenet. pseudo_share: of the MWD layers' gradients, 1 pseudo to 0 true;
    sharpness: of the pseudogradient's shares (see `mwd`), by default 1 and CERTIFIED_SHARPNESS on interval ends.
    attack: fgsm, ifgsm or pgd, to mix adversarial examples of radius attack_epsilon in (see `Adversarial`).
    certified_epsilon: train MWD networks on the ends of the intervals of this radius, which rises to it during
    training; certified_share is the part of the loss that the ends have. sensitivity_cost: add that times the mean
    Lipschitz bound of the outputs to the loss of an MWD network (see `Sensitivity`). start: take the weights of this
    file (same architecture). The epoch with the best validation accuracy (certified accuracy, where an epsilon is
    given) is kept. A checkpoint beside `out` lets the same command continue. Raises ValueError on anything impossible
    before work starts.
    """
    path = Path(out)
    if path.suffix != ".safetensors":
        raise ValueError(f"{path}: trained models are written as .safetensors")
    if name not in ARCHITECTURES:
        raise ValueError(f"unknown network {name!r}; supported: {', '.join(ARCHITECTURES)}")
    if attack is not None and (certified_epsilon or attack not in ADVERSARIAL_SETTINGS):
        known = ", ".join(ADVERSARIAL_SETTINGS)
        raise ValueError(f"attack {attack!r}: supported for training are {known}, without a certified epsilon")
    if sharpness is not None and not 0.0 < sharpness < float("inf"):
        raise ValueError(f"sharpness must be positive, got {sharpness}")
    if not 0.0 <= certified_share <= 1.0:
        raise ValueError(f"certified_share must lie in [0, 1], got {certified_share}")
    if (certified_epsilon or sensitivity_cost) and name not in MWD_NETWORKS:
        raise ValueError("certified and sensitivity training are built for mwd networks only")
    if sensitivity_cost < 0 or (sensitivity_cost and (certified_epsilon or attack is not None)):
        raise ValueError("a sensitivity cost must not be negative, and is used without certified epsilon and attack")
    architecture, place = ARCHITECTURES[name], choose_device(device)
    if certified_epsilon:
        architecture = replace(architecture, optimiser=adam, learning_rate=CERTIFIED_LEARNING_RATE)
    plan = Plan(epochs, batch, learning_rate or architecture.learning_rate, schedule, seed)
    dataset = data if isinstance(data, Dataset) else load_data(data, data_dir=data_dir, split="train")
    inputs, labels = _tensors(dataset, architecture.images, limit, place)
    classes = int(labels.max()) + 1
    torch.manual_seed(seed)
    module = architecture.make(inputs.shape[1:], tuple(hidden) or architecture.hidden, types, classes).to(place)
    if start is not None:
        _load_weights(module, Path(start), tuple(inputs.shape[1:]))
    if sharpness is None:
        sharpness = CERTIFIED_SHARPNESS if certified_epsilon else 1.0
    for layer in module.modules():
        if isinstance(layer, Mwd | MwdConv2d):
            layer.pseudo_share, layer.sharpness = pseudo_share, sharpness
    regime: Regime = Sensitivity(architecture.loss, sensitivity_cost) if sensitivity_cost else Clean(architecture.loss)
    if attack is not None:
        steps, step, random_start = ADVERSARIAL_SETTINGS[attack]
        regime = Adversarial(architecture.loss, attack_epsilon, steps, step, random_start, mixing, domain=dataset.clip)
    if certified_epsilon:
        regime = IntervalEnds(certified_epsilon, certified_share, dataset.clip)
    held_out, kept = _split(len(inputs), seed)
    score = _Score(inputs[held_out], labels[held_out], certified_epsilon, dataset.clip)
    optimiser = architecture.optimiser(module.parameters(), plan.learning_rate)
    trainer = Trainer(module, regime, optimiser, (inputs[kept], labels[kept]), plan, score)
    checkpoint = path.with_suffix(".checkpoint")
    if checkpoint.exists():
        trainer.resume(checkpoint)
    path.parent.mkdir(parents=True, exist_ok=True)
    history = trainer.run(checkpoint, progress)
    metadata = {
        "architecture": name, "data": dataset.name, "plan": vars(plan), "certified_epsilon": certified_epsilon,
        "certified_share": certified_share, "sensitivity_cost": sensitivity_cost,
        "pseudo_share": pseudo_share, "sharpness": sharpness, "attack": attack and [attack, attack_epsilon, mixing],
        "hidden": list(hidden) or list(architecture.hidden), "start": None if start is None else str(start),
        "validation_scores": history.scores, "best_epoch": history.best_epoch + 1,
        "start_digest": None if start is None else hashlib.sha256(Path(start).read_bytes()).hexdigest(),
    }  # fmt: skip
    write_network(from_module(module.cpu(), tuple(inputs.shape[1:])), path, json.loads(json.dumps(metadata)))
    checkpoint.unlink(missing_ok=True)
    return TrainResult(path, metadata, history)


@dataclass(frozen=True, eq=False)
class _Score:
    """The validation score: accuracy, or accuracy certified by intervals where an epsilon is given."""

    inputs: Tensor
    labels: Tensor
    epsilon: float
    domain: tuple[float, float] | None

    def __call__(self, module: nn.Module) -> float:
        """Return the share of held-out inputs."""
        with torch.no_grad():
            predictions = torch.cat([module(part).argmax(dim=1) for part in self.inputs.split(500)])
        right = predictions == self.labels
        if not self.epsilon:
            return float(right.double().mean())
        network = from_module(module.cpu(), tuple(self.inputs.shape[1:]))
        module.to(self.inputs.device)
        # float32 bounds are enough to choose an epoch; a certificate is computed anew in float64.
        ends = (self.inputs - self.epsilon, self.inputs + self.epsilon)
        if self.domain is not None:
            ends = (ends[0].clamp(min=self.domain[0]), ends[1].clamp(max=self.domain[1]))
        masks = [
            proves(network, Box(low, high), label)
            for low, high, label in zip(ends[0].split(500), ends[1].split(500), self.labels.split(500), strict=True)
        ]
        return float((torch.cat(masks) & right).double().mean())


def _tensors(dataset: Dataset, images: bool, limit: int | None, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return (inputs, labels) on the device, inputs as vectors unless images are wanted."""
    if dataset.labels is None:
        raise ValueError(f"{dataset.name} has no labels y; training needs them")
    rows = dataset.indices(limit)
    inputs = torch.tensor(np.asarray(dataset.inputs[rows.start : rows.stop], dtype=np.float32))
    labels = torch.tensor(dataset.labels[rows.start : rows.stop])
    return (inputs if images else inputs.flatten(1)).to(device), labels.to(device)


def _split(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return (held-out, kept) rows, a seeded split."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    held_out = max(1, round(count * VALIDATION_SHARE))
    return order[:held_out], order[held_out:]


def _load_weights(module: nn.Module, path: Path, shape: tuple[int, ...]) -> None:
    """Copy the weights of a native file into the module, layer by layer."""
    from encoders import read_network
    from encoders.ops import Mwd as MwdOp
    from encoders.ops import MwdConv2d as MwdConv2dOp

    layers = [layer for layer in module.modules() if isinstance(layer, Mwd | MwdConv2d)]
    ops = [node.op for node in read_network(path).nodes if isinstance(node.op, MwdOp | MwdConv2dOp)]
    sizes = [[tuple(layer.u.shape) for layer in layers], [tuple(op.weight.shape) for op in ops]]
    if not layers or sizes[0] != sizes[1]:
        raise ValueError(f"{path}: holds MWD layers {sizes[1]}, the network to train has {sizes[0]}")
    with torch.no_grad():
        for layer, op in zip(layers, ops, strict=True):
            layer.u.copy_(op.weight)
            layer.w.copy_(op.attractor)
            layer.negated.copy_(op.negated)
