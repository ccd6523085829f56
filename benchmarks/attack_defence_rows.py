"""The rows of `attack_defence.py`: defences, how each is trained, and what is judged in its cells."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from encoders import Network, Node
from encoders.network import INPUT
from encoders.ops.shape import Reshape
from verifier import train
from verifier.commands.detect import detect
from verifier.commands.job import DataJob, load_job
from verifier.commands.request import Request
from verifier.data import Dataset, load_data
from verifier.detection.files import read_detector
from verifier.detection.odds import Odds
from verifier.votes import votes_at

TEACHER, SURROGATE = "distillation-teacher", "surrogate"


@dataclass(frozen=True)
class Defence:
    """How a row is trained: a network, what differs from plain training, epochs in units of those asked for.

    teacher: whether it learns from the teacher; detected: whether a detector stands in front of the plain network.
    """

    training: Mapping[str, Any] = field(default_factory=dict)
    network: str = "cnn-small"
    epochs: float = 1.0
    teacher: bool = False
    detected: bool = False


@dataclass(frozen=True)
class Scale:
    """What the work is sized by. epsilon: of all balls, in the inf-norm; train: images to train on; draws: of a vote.

    batch, rate: inputs and learning rate of the steps of convolutional networks;
    hidden: of both kinds of networks; settings: of attacks that are to be shorter than the table's, by their names;
    seconds: of the exact search, for each input that it is asked about.
    """

    epsilon: float = 0.1
    inputs: int = 500
    epochs: int = 5
    train: int = 20_000
    batch: int = 50
    rate: float = 3e-3
    draws: int = 100
    seconds: float = 0.5
    hidden: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: {"cnn-small": (8, 16, 64), "mwd": (64, 64)})
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def defences(epsilon: float) -> dict[str, Defence]:
    """Return the rows, those trained for a radius for this one."""
    return {
        "none": Defence(),
        "adversarial training": Defence({"regime": "adversarial", "attack_epsilon": epsilon}),
        # The radius in the 2-norm of Huang et al. (2015) for MNIST.
        "LWA": Defence({"regime": "lwa", "attack_epsilon": 1.5}),
        "certified training": Defence({"regime": "interval", "certified_epsilon": epsilon}, epochs=2.0),
        "MWD": Defence(network="mwd", epochs=2.0),
        "k-WTA": Defence({"winners": 0.08}, epochs=2.0),
        "delta rule": Defence({"regime": "delta-rule-learnable", "deviation": 0.05}),
        "drop-connect": Defence({"regime": "drop-connect", "drop_connect": 0.2}),
        "distillation": Defence({"regime": "distillation", "temperature": 20.0}, teacher=True),
        "resize and pad": Defence({"regime": "resize-and-pad", "smallest": 0.8}),
        "odds detector": Defence(detected=True),
    }


@dataclass(frozen=True, eq=False)
class Row:
    """A trained defence and the inputs: what cells are decided about.

    points, labels: of all inputs, in the model's dtype; clean: of which the defended system is right. detector, draws:
    None where nothing is flagged, and where nothing is drawn.
    """

    name: str
    path: Path
    job: DataJob
    points: Tensor
    labels: Tensor
    clean: Tensor
    surrogate: Network
    detector: Odds | None
    draws: int | None

    @property
    def network(self) -> Network:
        return self.job.subject.network

    @property
    def identity(self) -> list[Any]:
        """What a cell depends on beside its attack."""
        threshold = None if self.detector is None else self.detector.threshold
        return [self.network.digest, self.surrogate.digest, self.job.dataset.digest, len(self.points), threshold,
                self.draws]  # fmt: skip


def trained(defence: Defence, name: str, scale: Scale, data: str, folder: Path, data_dir: Path | None) -> Path:
    """Return the file of a network, trained if it is not there; a training that was stopped goes on."""
    options: dict[str, Any] = {
        "epochs": max(1, round(defence.epochs * scale.epochs)), "limit": scale.train, "data_dir": data_dir,
        "hidden": scale.hidden[defence.network], "device": "cpu", "seed": 1000 if name == SURROGATE else 0,
        **({"batch": scale.batch, "learning_rate": scale.rate} if defence.network == "cnn-small" else {}),
        **defence.training,
    }  # fmt: skip
    if defence.teacher:
        options["teacher"] = trained(Defence(defence.training), TEACHER, scale, data, folder, data_dir)
    told = json.dumps([data, defence.network, options], default=str, sort_keys=True)
    path = folder / f"{name.replace(' ', '-')}-{hashlib.sha256(told.encode()).hexdigest()[:8]}.safetensors"
    if not path.exists():
        print(f"training {name}", flush=True)
        train(defence.network, data, path, **options)
    return path


def fitted(model: Path, scale: Scale, data: str, data_dir: Path | None) -> Odds:
    """Return the detector of a network, fitted to its training images."""
    file = model.with_suffix(".detector.safetensors")
    if not file.exists():
        images = load_data(data, data_dir=data_dir, split="train")
        detect("fit", model, images, file, limit=min(scale.train, 4000), samples=32)
    return read_detector(file)


def make_row(name: str, scale: Scale, data: Dataset, files: tuple[Path, Path], odds: Odds | None) -> Row:
    """Return a row. files: the defence's network and the surrogate's; odds: its detector."""
    path, surrogate = files
    job = load_job(Request(str(path), data, limit=scale.inputs, device="cpu"), "attack")
    points, labels = job.points(job.indices), torch.from_numpy(job.labels(job.indices)).long()
    draws = scale.draws if job.network.randomised else None
    other = load_job(Request(str(surrogate), data, limit=1, device="cpu"), "attack").network
    if tuple(other.input_shape) != tuple(job.network.input_shape):
        other = reshaped(other, job.network)
    if draws is not None:
        right = votes_at(job.network, points, draws, job.seed).winners == labels
    else:
        right = torch.from_numpy(job.subject.execute(points)).argmax(dim=1) == labels
    if odds is not None:
        right &= ~odds.scores(job.network, points, list(job.indices)).flagged
    return Row(name, path, job, points, labels, right, other, odds, draws)


def reshaped(network: Network, like: Network) -> Network:
    """Return a network behind a reshape of another's inputs."""
    behind = (
        Node(node.name, node.op, tuple("image" if name == INPUT else name for name in node.inputs))
        for node in network.nodes
    )
    first = Node("image", Reshape(tuple(network.input_shape)), (INPUT,))
    return Network((first, *behind), like.input_shape, network.dtype, network.source)
