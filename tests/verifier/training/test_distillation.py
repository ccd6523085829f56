"""Defensive distillation: its losses are their formulas, students learn their teacher, and what it hides is seen."""

import hashlib
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from encoders import Network, write_network
from encoders.formats.native import read_metadata
from encoders.formats.torch_export import from_module
from encoders.network import Node
from encoders.ops import Affine
from verifier import train
from verifier.data import Dataset, from_arrays
from verifier.training.distillation import Distilled, read_teacher


def clusters(count: int = 120) -> Dataset:
    """Return separable clusters in four dimensions."""
    generator = np.random.default_rng(0)
    labels = np.arange(count) % 3
    centres = np.array([[0.2, 0.2, 0.8, 0.5], [0.8, 0.3, 0.2, 0.5], [0.5, 0.8, 0.5, 0.1]])
    x = (centres[labels] + 0.05 * generator.standard_normal((count, 4))).clip(0, 1)
    return from_arrays(x.astype(np.float32), labels, (0.0, 1.0))


def test_losses_are_their_formulas_by_hand():
    """Scores (2 log 3, 0) at temperature 2: softmax (3/4, 1/4); a teacher of (0, 2 log 3) says (1/4, 3/4)."""
    x, y = torch.zeros(1, 1), torch.tensor([0])
    module = nn.Linear(1, 2)
    with torch.no_grad():
        module.bias.copy_(torch.tensor([2 * math.log(3), 0.0]))
    bias = torch.tensor([0.0, 2 * math.log(3)])
    teacher = Network((Node("scores", Affine(torch.zeros(2, 1), bias), ("input",)),), (1,))
    (loss,) = Distilled(2.0)(module, x, y, 0.0)
    assert float(loss.detach()) == pytest.approx(math.log(4 / 3), rel=1e-6)
    (loss,) = Distilled(2.0, teacher)(module, x, y, 0.0)
    assert float(loss.detach()) == pytest.approx(0.25 * math.log(4 / 3) + 0.75 * math.log(4), rel=1e-6)


def test_a_student_agrees_with_its_teacher_and_its_softmax_is_sure():
    """At temperature 1 scores are of the size of the temperature, and the gradient of the loss of many is exactly 0."""
    data = clusters()
    x, y = torch.tensor(data.inputs), torch.tensor(data.labels)

    def trained(regime) -> nn.Sequential:
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
        optimiser = torch.optim.Adam(module.parameters(), 0.1)
        for _ in range(200):
            for loss in regime(module, x, y, 0.0):
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
        return module

    def hidden(module: nn.Module) -> float:
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(functional.cross_entropy(module(leaf), y, reduction="sum"), leaf)
        return float((gradient == 0).all(dim=1).float().mean())

    plain, teacher = trained(Distilled(1.0)), trained(Distilled(50.0))
    student = trained(Distilled(50.0, from_module(teacher, (4,))))
    assert float((student(x).argmax(dim=1) == teacher(x).argmax(dim=1)).float().mean()) > 0.95
    assert hidden(student) > 0.8 and hidden(plain) < 0.2


def test_a_model_file_says_whose_outputs_its_labels_were(tmp_path):
    options = {"regime": "distillation", "hidden": (4,), "epochs": 1}
    teacher = train("mlp", clusters(), tmp_path / "teacher.safetensors", **options)
    student = train("mlp", clusters(), tmp_path / "student.safetensors", teacher=teacher.out, **options)
    digest = hashlib.sha256(teacher.out.read_bytes()).hexdigest()
    assert read_metadata(student.out)["teacher"] == [str(teacher.out), digest]
    assert read_metadata(teacher.out)["teacher"] is None and read_metadata(teacher.out)["temperature"] == 20.0


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("mwd", {}, "mwd is trained on squared errors. Supported: relu"),
        ("sigmoid", {}, "sigmoid is trained on squared errors"),
        ("mlp", {"temperature": 0.0}, "temperature be positive"),
        ("mlp", {"temperature": math.inf}, "temperature be positive"),
        ("mlp", {"regime": "plain", "temperature": 5.0}, "does not take --temperature; supported by distillation"),
        ("mlp", {"teacher": "other"}, r"the sizes \(5, 3\), those of the network to train are \(4, 3\)"),
        ("mlp", {"teacher": "random"}, "has random ops"),
        ("mlp", {"teacher": "none"}, "none"),
    ],
)
def test_what_does_not_fit_is_refused_before_work_starts(tmp_path, name, options, words):
    if "teacher" in options:
        path = tmp_path / f"{options['teacher']}.safetensors"
        x = np.random.default_rng(1).random((30, 5 if path.stem == "other" else 4), dtype=np.float32)
        more = {"regime": "drop-connect"} if path.stem == "random" else {}
        if path.stem != "none":
            train("mlp", from_arrays(x, np.arange(30) % 3, (0.0, 1.0)), path, hidden=(4,), epochs=1, **more)
        options = {**options, "teacher": path}
    before = sorted(tmp_path.iterdir())
    with pytest.raises((ValueError, OSError), match=words):
        train(
            name, clusters(), tmp_path / "a.safetensors", hidden=(4,), epochs=1, **{"regime": "distillation", **options}
        )
    assert sorted(tmp_path.iterdir()) == before


def test_another_teacher_is_another_training(tmp_path):
    def network(value: float) -> Network:
        return Network((Node("scores", Affine(torch.full((3, 4), value), torch.zeros(3)), ("input",)),), (4,))

    for value in (1.0, 2.0):
        write_network(network(value), tmp_path / f"{value:g}.safetensors", {})
    one, same, other = (read_teacher(tmp_path / f"{n}.safetensors") for n in (1, 1, 2))
    assert repr(Distilled(5.0, one)) == repr(Distilled(5.0, same)) != repr(Distilled(5.0, other))
    assert repr(Distilled(5.0, one)) != repr(Distilled(4.0, one)) and read_teacher(None) is None
