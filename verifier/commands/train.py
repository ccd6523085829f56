"""`train`: a named architecture on named data, into a model file that `certify` reads."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor, nn

from encoders import Network, write_network
from encoders.formats.torch_export import from_module
from encoders.layers import Mwd, MwdConv2d
from verifier.commands.examples import Examples, read_examples
from verifier.commands.request import Progress
from verifier.data import Dataset, load_data
from verifier.devices.choice import choose_device, work_of_module
from verifier.runs.records import SCHEMA
from verifier.training.architectures import ARCHITECTURES, Architecture
from verifier.training.dropout import with_dropout
from verifier.training.history import History
from verifier.training.log import write_log
from verifier.training.placement import behind_placement, with_placement
from verifier.training.plan import Plan
from verifier.training.random_layers import DROPPED, RANDOM_KINDS, randomised, with_random_layers
from verifier.training.recipes import Job, Recipe, recipe_of
from verifier.training.request import TrainOptions, TrainRequest
from verifier.training.scalars import Scalars
from verifier.training.start import beside_pixels, draw_narrow_weights, load_weights
from verifier.training.tables import REGIMES
from verifier.training.trainer import Regime, Trainer
from verifier.training.validation import JUDGE, Score, bounded_backwards, split
from verifier.training.winners import with_winners

# Passes of a step of training: forward, and back by inputs and by weights.
PASSES = 3


@dataclass(frozen=True)
class TrainResult:
    """What `train` returns.

    out: the .safetensors file.
    metadata: what the file says of its training: plan, options, validation scores, best epoch.
    history: the epochs' losses and scores, and the epoch that diverged.
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

    name: of the table `ARCHITECTURES`: mwd, mwd-conv, relu, sigmoid, linear, mlp, lenet, cnn-small, resnet18, ...
    data: a name (its training part), a .npz file, or a `Dataset`.
    out: the file to write.
    progress: called with (batches done, batches in all).
    options: as `TrainRequest` says.

    The epoch with the best validation score is kept: accuracy, that under attack, or that which intervals certify, by
    what the regime trains for. A checkpoint beside `out` lets the same command continue; a log of the epochs is
    written beside it as .csv. A training that diverges ends with the best epoch before; ValueError if there is none.
    Raises ValueError on anything impossible before work starts.
    """
    path = Path(out)
    if path.suffix != ".safetensors":
        raise ValueError(f"{path}: trained models are written as .safetensors")
    if name not in ARCHITECTURES:
        raise ValueError(f"unknown network {name!r}; supported: {', '.join(ARCHITECTURES)}")
    request, architecture = TrainRequest(name, **options), ARCHITECTURES[name]
    dataset = data if isinstance(data, Dataset) else load_data(data, data_dir=request.data_dir, split="train")
    examples = _examples(request, dataset)
    trainer = prepare(request, architecture, dataset, examples)
    checkpoint = path.with_suffix(".checkpoint")
    if checkpoint.exists():
        trainer.resume(checkpoint)
    path.parent.mkdir(parents=True, exist_ok=True)
    history = trainer.run(checkpoint, progress, _logs(path, request.logdir))
    metadata = _metadata(request, architecture, dataset, trainer, examples)
    write_network(_network(trainer), path, json.loads(json.dumps(metadata)))
    checkpoint.unlink(missing_ok=True)
    return TrainResult(path, metadata, history)


def _network(trainer: Trainer) -> Network:
    """Return what was trained as a graph, random where the module is."""
    means = from_module(trainer.module.cpu(), tuple(trainer.inputs.shape[1:]))
    return with_placement(randomised(means, trainer.module), trainer.module)


def _logs(out: Path, logdir: str | Path | None) -> Callable[[History], None]:
    """Return what writes the log beside the model after each epoch, and its scalars where a folder is given."""
    scalars = None if logdir is None else Scalars(Path(logdir))

    def written(history: History) -> None:
        write_log(out.with_suffix(".csv"), history)
        if scalars is not None:
            scalars.write(history)

    return written


def _examples(request: TrainRequest, dataset: Dataset) -> Examples | None:
    """Return what is added to the inputs, None for nothing."""
    if not request.examples:
        return None
    assert request.start is not None
    return read_examples(request.examples, request.start, dataset, request.levels, request.within)


def prepare(
    request: TrainRequest, architecture: Architecture, dataset: Dataset, examples: Examples | None = None
) -> Trainer:
    """Return the trainer of a request, ready to run or to be taken up again."""
    recipe = recipe_of(request)
    rate = request.learning_rate or recipe.learning_rate or architecture.learning_rate * recipe.rate_share
    plan = Plan(
        request.epochs, request.batch, rate, request.schedule, request.seed, tuple(request.augment),
        request.pseudo_share, request.pseudo_decay, request.pseudo_epochs, request.patience,
        request.ramp if "ramp" in REGIMES[request.regime_name] else 0.0, request.precision,
    )  # fmt: skip
    if plan.augment and not architecture.images:
        raise ValueError(f"--augment changes images; {request.name} takes vectors")
    inputs, labels = _tensors(dataset, architecture.images, request.limit)
    module = beside_pixels(_module(request, architecture, recipe, inputs, int(labels.max()) + 1))
    device = choose_device(request.device, lambda: PASSES * request.batch * work_of_module(module, inputs[:1]))
    inputs, labels, module = inputs.to(device), labels.to(device), module.to(device)
    held_out, kept = split(len(inputs), request.seed)
    optimiser = (recipe.optimiser or architecture.optimiser)(module.parameters(), plan.learning_rate)
    job = Job(request, architecture, dataset.clip, recipe)
    regime = recipe.regime(job)
    _try(regime, module, inputs[kept[:2]], labels[kept[:2]], request)
    judged, trained = (
        _with_examples(inputs, labels, part, examples) if examples is not None else (inputs[part], labels[part])
        for part in (held_out, kept)
    )
    if examples is not None and len(trained[0]) == len(kept):
        raise ValueError("--examples: all of them belong to inputs that are held out or beyond --limit; give more")
    return Trainer(module, regime, optimiser, trained, plan, _score(job, module, *judged))


def _with_examples(inputs: Tensor, labels: Tensor, part: Tensor, examples: Examples) -> tuple[Tensor, Tensor]:
    """Return (inputs, labels) of the given rows and of the examples that belong to them.

    What is held out stays so: examples of held-out inputs are no training data, and judge with these.
    """
    mine = torch.from_numpy(np.isin(examples.rows, part.numpy()))
    points = torch.from_numpy(examples.points)[mine].to(inputs).reshape(-1, *inputs.shape[1:])
    rows = torch.cat([part, torch.from_numpy(examples.rows)[mine]]).to(labels.device)
    return torch.cat([inputs[part], points]), labels[rows]


def _score(job: Job, module: nn.Module, inputs: Tensor, labels: Tensor) -> Score:
    """Return what judges an epoch: what the regime trains for."""
    if not job.recipe.judged:
        backward = job.recipe.backward and bounded_backwards(module, inputs[:2], labels[:2])
        return Score(inputs, labels, job.request.certified_epsilon, job.domain, backward=backward)
    radius = job.request.certified_epsilon or job.request.attack_epsilon
    return Score(inputs, labels, 0.0, job.domain, dataclasses.replace(job.adversary(radius), attack=JUDGE))


def _try(regime: Regime, module: nn.Module, x: Tensor, y: Tensor, request: TrainRequest) -> None:
    """Raise ValueError if the regime does not fit the network: it is tried on two inputs and a copy."""
    with torch.random.fork_rng(devices=[]):
        try:
            reduced = request.precision == "bfloat16"
            with torch.autocast(x.device.type, torch.bfloat16, enabled=reduced, cache_enabled=False):
                for loss in regime(copy.deepcopy(module).train(), x, y, 1.0):
                    loss.detach()
        except TypeError as error:
            raise ValueError(f"regime {request.regime_name} does not fit {request.name}: {error}") from None


def _module(
    request: TrainRequest, architecture: Architecture, recipe: Recipe, inputs: Tensor, classes: int
) -> nn.Module:
    """Return the module to train, with its first weights, on the device of the inputs."""
    torch.manual_seed(request.seed)
    hidden = tuple(request.hidden) or architecture.hidden
    module = architecture.make(inputs.shape[1:], hidden, request.types, classes)
    if request.regime_name == "dropout":
        module = with_dropout(module, request.dropout)
    if request.regime_name in RANDOM_KINDS:
        kind = RANDOM_KINDS[request.regime_name]
        module = with_random_layers(module, kind, request.drop_connect if kind == DROPPED else request.deviation)
    if request.regime_name == "resize-and-pad":
        module = behind_placement(module, inputs.shape[1:], request.smallest)
    if request.winners:
        module = with_winners(module, request.winners)
    if request.start is not None:
        load_weights(module, Path(request.start))
    elif recipe.narrow:
        draw_narrow_weights(module)
    for layer in module.modules():
        if isinstance(layer, Mwd | MwdConv2d):
            layer.sharpness = recipe.sharpness if request.sharpness is None else request.sharpness
    return module


def _tensors(dataset: Dataset, images: bool, limit: int | None) -> tuple[Tensor, Tensor]:
    """Return (inputs, labels), inputs as vectors unless images are wanted."""
    if dataset.labels is None:
        raise ValueError(f"{dataset.name} has no labels y; training needs them")
    rows = dataset.indices(limit)
    inputs = torch.tensor(np.asarray(dataset.inputs[rows.start : rows.stop], dtype=np.float32))
    labels = torch.tensor(dataset.labels[rows.start : rows.stop])
    return inputs if images else inputs.flatten(1), labels


def _metadata(
    request: TrainRequest, architecture: Architecture, dataset: Dataset, trainer: Trainer, examples: Examples | None
) -> dict[str, Any]:
    """Return what the model file says of its training."""
    recipe = recipe_of(request)
    start = request.start
    special = {name: getattr(request, name) for name in REGIMES[request.regime_name]}
    attacked = "attack" in special
    if attacked:
        special["attack"] = [request.attack or recipe.attack, request.attack_epsilon, recipe.mixing]
    if examples is not None:
        special["examples"] = [vars(each) for each in examples.taken]
    if request.teacher is not None:
        special["teacher"] = [str(request.teacher), hashlib.sha256(Path(request.teacher).read_bytes()).hexdigest()]
    return {
        "architecture": request.name, "data": dataset.name, "plan": vars(trainer.plan),
        "regime": request.regime_name, "attack": None, **special,
        "sharpness": recipe.sharpness if request.sharpness is None else request.sharpness,
        "hidden": list(request.hidden) or list(architecture.hidden), "winners": request.winners,
        "start": None if start is None else str(start),
        "validation_scores": trainer.history.scores, "best_epoch": trainer.history.best_epoch + 1,
        "diverged_in_epoch": trainer.history.diverged,
        "start_digest": None if start is None else hashlib.sha256(Path(start).read_bytes()).hexdigest(),
    }  # fmt: skip
