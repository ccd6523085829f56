"""`train`: a named architecture on named data, into a model file that `certify` reads."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor, nn

from encoders import read_network, write_network
from encoders.formats.torch_export import from_module
from encoders.layers import Mwd, MwdConv2d
from verifier.commands.request import Progress
from verifier.data import Dataset, load_data
from verifier.runs.records import SCHEMA
from verifier.subject import choose_device
from verifier.training.architectures import ARCHITECTURES, Architecture
from verifier.training.recipes import Recipe, recipe_of
from verifier.training.request import TrainOptions, TrainRequest
from verifier.training.trainer import History, Plan, Trainer
from verifier.training.validation import Score, split


@dataclass(frozen=True)
class TrainResult:
    """What `train` returns.

    out: the .safetensors file.
    metadata: what the file says of its training: plan, options, validation scores, best epoch.
    history: the epochs' losses and scores.
    """

    out: Path
    metadata: dict[str, Any]
    history: History

    def to_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        return {"schema": SCHEMA, "command": "train", "out": str(self.out), **self.metadata}


def train(
    name: str,
    data: str | Dataset,
    out: str | Path,
    *,
    progress: Progress | None = None,
    **options: Unpack[TrainOptions],
) -> TrainResult:
    """Train a network and write it to a .safetensors file; return its accuracies.

    name: mwd, mwd-conv, relu, sigmoid, lenet or lenet-linear-convolutions.
    data: a name (its training part), a .npz file, or a `Dataset`.
    out: the file to write.
    progress: called with (batches done, batches in all).
    options: as `TrainRequest` says.

    The epoch with the best validation accuracy (certified accuracy, where an epsilon is given) is kept. A checkpoint
    beside `out` lets the same command continue. Raises ValueError on anything impossible before work starts.
    """
    path = Path(out)
    if path.suffix != ".safetensors":
        raise ValueError(f"{path}: trained models are written as .safetensors")
    if name not in ARCHITECTURES:
        raise ValueError(f"unknown network {name!r}; supported: {', '.join(ARCHITECTURES)}")
    request, architecture = TrainRequest(name, **options), ARCHITECTURES[name]
    dataset = data if isinstance(data, Dataset) else load_data(data, data_dir=request.data_dir, split="train")
    trainer = _prepared(request, architecture, dataset)
    checkpoint = path.with_suffix(".checkpoint")
    if checkpoint.exists():
        trainer.resume(checkpoint)
    path.parent.mkdir(parents=True, exist_ok=True)
    history = trainer.run(checkpoint, progress)
    metadata = _metadata(request, architecture, dataset, trainer)
    network = from_module(trainer.module.cpu(), tuple(trainer.inputs.shape[1:]))
    write_network(network, path, json.loads(json.dumps(metadata)))
    checkpoint.unlink(missing_ok=True)
    return TrainResult(path, metadata, history)


def _prepared(request: TrainRequest, architecture: Architecture, dataset: Dataset) -> Trainer:
    """Return the trainer of a request, ready to run or to be taken up again."""
    recipe, device = recipe_of(request), choose_device(request.device)
    rate = request.learning_rate or recipe.learning_rate or architecture.learning_rate
    plan = Plan(request.epochs, request.batch, rate, request.schedule, request.seed)
    inputs, labels = _tensors(dataset, architecture.images, request.limit, device)
    module = _module(request, architecture, recipe, inputs, int(labels.max()) + 1)
    held_out, kept = split(len(inputs), request.seed)
    score = Score(inputs[held_out], labels[held_out], request.certified_epsilon, dataset.clip)
    optimiser = (recipe.optimiser or architecture.optimiser)(module.parameters(), plan.learning_rate)
    regime = recipe.regime(request, architecture, dataset.clip)
    return Trainer(module, regime, optimiser, (inputs[kept], labels[kept]), plan, score)


def _module(
    request: TrainRequest, architecture: Architecture, recipe: Recipe, inputs: Tensor, classes: int
) -> nn.Module:
    """Return the module to train, with its first weights, on the device of the inputs."""
    torch.manual_seed(request.seed)
    hidden = tuple(request.hidden) or architecture.hidden
    module = architecture.make(inputs.shape[1:], hidden, request.types, classes).to(inputs.device)
    if request.start is not None:
        _load_weights(module, Path(request.start))
    for layer in module.modules():
        if isinstance(layer, Mwd | MwdConv2d):
            layer.pseudo_share = request.pseudo_share
            layer.sharpness = recipe.sharpness if request.sharpness is None else request.sharpness
    return module


def _tensors(dataset: Dataset, images: bool, limit: int | None, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return (inputs, labels) on the device, inputs as vectors unless images are wanted."""
    if dataset.labels is None:
        raise ValueError(f"{dataset.name} has no labels y; training needs them")
    rows = dataset.indices(limit)
    inputs = torch.tensor(np.asarray(dataset.inputs[rows.start : rows.stop], dtype=np.float32))
    labels = torch.tensor(dataset.labels[rows.start : rows.stop])
    return (inputs if images else inputs.flatten(1)).to(device), labels.to(device)


def _load_weights(module: nn.Module, path: Path) -> None:
    """Copy the weights of a native file into the module, layer by layer."""
    layers = [layer for layer in module.modules() if isinstance(layer, Mwd | MwdConv2d)]
    stored = [node.op.parameters() for node in read_network(path).nodes if node.op.measures_distances]
    sizes = [[tuple(layer.u.shape) for layer in layers], [tuple(values["weight"].shape) for values in stored]]
    if not layers or sizes[0] != sizes[1]:
        raise ValueError(f"{path}: holds MWD layers {sizes[1]}, the network to train has {sizes[0]}")
    with torch.no_grad():
        for layer, values in zip(layers, stored, strict=True):
            layer.u.copy_(values["weight"])
            layer.w.copy_(values["attractor"])
            layer.negated.copy_(values["negated"])


def _metadata(request: TrainRequest, architecture: Architecture, dataset: Dataset, trainer: Trainer) -> dict[str, Any]:
    """Return what the model file says of its training."""
    sharpness = recipe_of(request).sharpness if request.sharpness is None else request.sharpness
    start, attack = request.start, request.attack
    return {
        "architecture": request.name, "data": dataset.name, "plan": vars(trainer.plan),
        "certified_epsilon": request.certified_epsilon, "certified_share": request.certified_share,
        "sensitivity_cost": request.sensitivity_cost, "pseudo_share": request.pseudo_share, "sharpness": sharpness,
        "attack": attack and [attack, request.attack_epsilon, request.mixing],
        "hidden": list(request.hidden) or list(architecture.hidden), "start": None if start is None else str(start),
        "validation_scores": trainer.history.scores, "best_epoch": trainer.history.best_epoch + 1,
        "start_digest": None if start is None else hashlib.sha256(Path(start).read_bytes()).hexdigest(),
    }  # fmt: skip
