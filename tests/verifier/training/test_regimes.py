"""Regimes: their losses are their formulas; each trains, resumes bit for bit, and is refused where it cannot fit."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from encoders import read_network
from encoders.formats.native import read_metadata
from verifier import attack, certify, train
from verifier.cli import main
from verifier.data import Dataset, from_arrays, load_data
from verifier.training.adversaries import ADVERSARIES, Adversary
from verifier.training.recipes import RECIPES, Recipe
from verifier.training.regimes import Clean, Perturbed, PerturbedLayer, parts
from verifier.training.request import TrainRequest
from verifier.training.tables import REGIMES

loss = functional.cross_entropy
# What each regime needs or should be tried with, on a network of vectors and on one of images.
OPTIONS = {
    "plain": {}, "dropout": {"dropout": 0.3}, "distillation": {}, "resize-and-pad": {"smallest": 0.8},
    "drop-connect": {"drop_connect": 0.1}, "delta-rule": {"beta": 0.01}, "delta-rule-learnable": {"deviation": 0.05},
    "adversarial": {"restarts": 2, "attack": "pgd-short"},
    "mixed": {"attack": "fgsm-random", "attack_share": 0.3}, "two-step": {"attack": "mi-fgsm"},
    "goodfellow": {}, "lwa": {"attack": "adv-alpha", "attack_epsilon": 0.5, "unclipped": True},
    "lwa-layer": {"layer": "1", "attack_epsilon": 0.2}, "perturbed-only": {"attack_norm": "2"},
    "robust-linear": {"certified_epsilon": 0.05}, "interval": {"certified_epsilon": 0.05, "interval_cost": 0.5},
    "sabr": {"certified_epsilon": 0.05, "attack_steps": 2}, "mtl-interval": {"certified_epsilon": 0.05},
    "sensitivity": {"sensitivity_cost": 0.1}, "crown-interval": {"certified_epsilon": 0.05}, "fine-tuning": {},
    "margins": {"certified_epsilon": 0.05},
}  # fmt: skip
SMALL = {
    "mlp": (6,), "linear": (), "mwd": (6,), "distance": (6,), "cnn-small": (2, 2, 6), "cnn-wide": (2, 2, 6),
    "resnet18": (2,),
}  # fmt: skip


def vectors(count: int = 96) -> Dataset:
    """Return separable clusters in four dimensions."""
    generator = np.random.default_rng(0)
    labels = np.arange(count) % 3
    centres = np.array([[0.2, 0.2, 0.8, 0.5], [0.8, 0.3, 0.2, 0.5], [0.5, 0.8, 0.5, 0.1]])
    x = (centres[labels] + 0.08 * generator.standard_normal((count, 4))).clip(0, 1)
    return from_arrays(x.astype(np.float32), labels, (0.0, 1.0))


def images(count: int = 48) -> Dataset:
    """Return images whose class is the bright quarter."""
    generator = np.random.default_rng(0)
    labels = np.arange(count) % 4
    x = 0.3 * generator.random((count, 1, 8, 8))
    for row, label in enumerate(labels):
        x[row, 0, 4 * (label // 2) :, 4 * (label % 2) :][:4, :4] += 0.6
    return from_arrays(x.astype(np.float32), labels, (0.0, 1.0))


def chain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


def test_losses_are_their_formulas():
    module, adversary = chain(), Adversary(ADVERSARIES["fgsm"], 0.1)
    x, y = torch.rand(9, 4), torch.randint(3, (9,))
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(module(leaf), y), leaf)
    perturbed = x + 0.1 * gradient.sign()

    def losses(regime) -> list[torch.Tensor]:
        return [value.detach() for value in regime(module, x, y, 0.0)]

    clean, attacked = loss(module(x), y).detach(), loss(module(perturbed), y).detach()
    close = {"rtol": 1e-5, "atol": 1e-6}
    assert torch.equal(*losses(Clean(loss)), clean)
    torch.testing.assert_close(losses(Perturbed(loss, adversary)), [attacked], **close)
    torch.testing.assert_close(
        losses(Perturbed(loss, adversary, "batch", 0.3)), [0.7 * clean + 0.3 * attacked], **close
    )
    torch.testing.assert_close(losses(Perturbed(loss, adversary, "steps")), [clean, attacked], **close)


def test_two_steps_perturb_with_the_network_after_the_first():
    module, x, y = chain(), torch.rand(9, 4), torch.randint(3, (9,))
    steps = Perturbed(loss, Adversary(ADVERSARIES["fgsm"], 0.1), "steps")(module, x, y, 0.0)
    next(steps)
    with torch.no_grad():
        module[2].weight.neg_()
    second = next(steps).detach()
    pure = next(Perturbed(loss, Adversary(ADVERSARIES["fgsm"], 0.1))(module, x, y, 0.0)).detach()
    assert torch.equal(second, pure)


def test_a_perturbed_layer_is_moved_by_its_own_gradient_which_reaches_the_layers_before_it():
    """Huang et al. 2015, algorithm 3: z + r with r = c g / |g|_2 of the representation, held fixed."""
    module, x, y = chain(), torch.rand(9, 4), torch.randint(3, (9,))
    z = module[:2](x).detach().requires_grad_()
    (g,) = torch.autograd.grad(loss(module[2](z), y, reduction="sum"), z)
    moved = z.detach() + 0.4 * g / torch.linalg.vector_norm(g, dim=1, keepdim=True)
    value = next(PerturbedLayer(loss, Adversary(ADVERSARIES["adv-loss"], 0.4, "2"), "1")(module, x, y, 0.0))
    torch.testing.assert_close(value.detach(), loss(module[2](moved), y).detach(), rtol=1e-5, atol=1e-6)
    value.backward()
    assert float(module[0].weight.grad.abs().max()) > 0
    r = moved - z.detach()
    module.zero_grad()
    by_hand = module[0].weight
    (expected,) = torch.autograd.grad(loss(module[2](module[:2](x) + r), y), by_hand)
    value = next(PerturbedLayer(loss, Adversary(ADVERSARIES["adv-loss"], 0.4, "2"), "1")(module, x, y, 0.0))
    value.backward()
    torch.testing.assert_close(by_hand.grad, expected, rtol=1e-4, atol=1e-6)


def test_layers_are_named_in_the_refusal():
    with pytest.raises(ValueError, match=r"supported: 0 Linear, 1 ReLU$"):
        parts(chain(), "conv1")
    with pytest.raises(ValueError, match="nothing to train"):
        parts(chain(), "2")


def arguments_of(regime: str) -> tuple[str, Dataset, dict]:
    name = {"robust-linear": "linear", "sensitivity": "mwd", "interval": "cnn-wide", "sabr": "cnn-small"}.get(regime)
    name = "distance" if regime == "margins" else name
    name = name or ("cnn-small" if regime == "resize-and-pad" else "mlp")
    data = images() if name.startswith("cnn") else vectors()
    settings = {"hidden": SMALL[name], "epochs": 3, "batch": 24, "regime": regime, **OPTIONS[regime]}
    return name, data, settings | ({"augment": ("shift", "flip")} if name == "cnn-wide" else {})


def examples(data: Dataset, place: Path) -> dict:
    """Return what fine-tuning needs: a network to start from, and a run with its counterexamples."""
    start = place / "start.safetensors"
    train("mlp", data, start, hidden=SMALL["mlp"], epochs=3, batch=24)
    assert attack(start, data, "pgd", 0.4, out=place / "run").examples
    return {"start": start, "examples": [place / "run"]}


class Stopped(Exception):
    pass


@pytest.mark.parametrize("regime", list(REGIMES))
def test_every_regime_trains_and_resumes_bit_for_bit(tmp_path, regime):
    name, data, settings = arguments_of(regime)
    if regime == "fine-tuning":
        settings |= examples(data, tmp_path)
    whole = train(name, data, tmp_path / "a.safetensors", **settings)

    def stop(done: int, total: int) -> None:
        if done == total // 3 + 1:
            raise Stopped

    with pytest.raises(Stopped):
        train(name, data, tmp_path / "b.safetensors", progress=stop, **settings)
    assert (tmp_path / "b.checkpoint").exists() and not (tmp_path / "b.safetensors").exists()
    resumed = train(name, data, tmp_path / "b.safetensors", **settings)
    assert resumed.history == whole.history and len(whole.history.losses) == 3
    assert read_network(whole.out).digest == read_network(resumed.out).digest
    assert (tmp_path / "a.csv").read_text() == (tmp_path / "b.csv").read_text()
    assert read_metadata(whole.out)["regime"] == regime


@pytest.mark.parametrize("regime", ["adversarial", "lwa", "interval"])
def test_a_regime_that_checkpoints_another_is_not_taken_up(tmp_path, regime):
    name, data, settings = arguments_of(regime)

    def stop(done: int, total: int) -> None:
        if done == total // 2 + 1:
            raise Stopped

    with pytest.raises(Stopped):
        train(name, data, tmp_path / "a.safetensors", progress=stop, **settings)
    epsilon = "certified_epsilon" if regime == "interval" else "attack_epsilon"
    with pytest.raises(ValueError, match="another training"):
        train(name, data, tmp_path / "a.safetensors", **settings | {epsilon: 0.07})


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("mlp", {"regime": "adverserial"}, "supported: plain, dropout"),
        ("mlp", {"regime": "plain", "layer": "1"}, "does not take --layer; supported by lwa-layer"),
        ("mlp", {"regime": "lwa-layer"}, "needs --layer"),
        ("mlp", {"regime": "lwa-layer", "layer": "7"}, "supported: 0 Linear, 1 ReLU"),
        ("mlp", {"regime": "robust-linear", "certified_epsilon": 0.1}, "of the network linear, not of mlp"),
        ("mlp", {"regime": "sensitivity", "sensitivity_cost": 0.1}, "mwd networks only"),
        ("mlp", {"regime": "interval", "certified_epsilon": 0.1, "attack": "pgd"}, "does not take --attack"),
        ("linear", {"regime": "dropout"}, "dense hidden layer"),
        ("mwd", {"regime": "lwa", "attack": "adv-alpha"}, "MWD layers do not have"),
        ("mlp", {"regime": "lwa", "attack_steps": 3}, "has no steps of 3 to set"),
        ("mlp", {"regime": "adversarial", "attack_norm": "3"}, "inf, 2, 1"),
        ("mlp", {"regime": "adversarial", "restarts": 0}, "positive"),
        ("mlp", {"augment": ("flip",)}, "takes vectors"),
        ("mlp", {"augment": ("rotate",)}, "shift, flip"),
        ("mlp", {"patience": 0}, "at least one epoch"),
        ("mlp", {"regime": "mixed", "attack_share": 1.5}, "attack_share"),
    ],
)
def test_what_does_not_fit_is_refused_before_work_starts(tmp_path, name, options, words):
    settings = {"hidden": SMALL[name], "epochs": 1} | options
    with pytest.raises(ValueError, match=words):
        train(name, vectors(), tmp_path / "a.safetensors", **settings)
    assert list(tmp_path.iterdir()) == []


def test_certified_training_names_the_layer_that_intervals_do_not_support(tmp_path):
    data = from_arrays(np.random.default_rng(0).random((40, 3, 8, 8), dtype=np.float32), np.arange(40) % 2, (0.0, 1.0))
    with pytest.raises(ValueError, match=r"regime interval does not fit nin: .* dropout"):
        train("nin", data, tmp_path / "a.safetensors", hidden=(4,), epochs=1, certified_epsilon=0.1)
    assert list(tmp_path.iterdir()) == []


def test_regimes_are_inferred_as_they_were():
    assert TrainRequest("mlp").regime_name == "plain"
    assert TrainRequest("mlp", attack="fgsm").regime_name == "mixed"
    assert TrainRequest("mlp", certified_epsilon=0.1).regime_name == "interval"
    assert TrainRequest("mwd", sensitivity_cost=0.1).regime_name == "sensitivity"


def test_adversarial_training_raises_accuracy_under_attack(tmp_path):
    """Judged by another attack than the one trained on."""
    digits, robust = load_data("digits"), {}
    for regime in ("plain", "adversarial"):
        options = {"attack_epsilon": 0.15, "attack": "fgsm-random"} if regime == "adversarial" else {}
        result = train("mlp", "digits", tmp_path / f"{regime}.safetensors", hidden=(24,), epochs=6, batch=50,
                       regime=regime, learning_rate=0.01, **options)  # fmt: skip
        robust[regime] = attack(result.out, digits, "ifgsm", 0.15, out=None, limit=100).robust
    assert robust["adversarial"] > robust["plain"] + 10


def test_a_training_that_diverges_keeps_the_best_epoch_before_and_says_so(tmp_path, capsys, monkeypatch):
    data = vectors()
    np.savez(tmp_path / "data.npz", x=data.inputs, y=data.labels)

    class Exploding(Clean):
        def __call__(self, module, x, y, progress):
            yield self.loss(module(x), y) * (torch.nan if progress >= 0.5 else 1.0)

    monkeypatch.setitem(RECIPES, "plain", Recipe(lambda job: Exploding(loss)))
    out = tmp_path / "m.safetensors"
    command = ["train", "mlp", "--data", str(tmp_path / "data.npz"), "--hidden", "6", "--epochs", "4"]
    assert main([*command, "--out", str(out)]) == 0
    assert "diverged in epoch 3" in capsys.readouterr().out
    assert read_metadata(out)["diverged_in_epoch"] == 3
    assert len(read_metadata(out)["validation_scores"]) == 2 and read_network(out).input_shape == (4,)


def test_a_training_that_diverges_at_once_leaves_no_model(tmp_path):
    with pytest.raises(ValueError, match="diverged in the first epoch"):
        train("mlp", vectors(), tmp_path / "n.safetensors", hidden=(6,), epochs=2, batch=24, learning_rate=1e30)
    assert list(tmp_path.iterdir()) == []


def test_patience_ends_a_training_and_the_log_has_its_epochs(tmp_path):
    result = train("mlp", vectors(), tmp_path / "a.safetensors", hidden=(6,), epochs=60, batch=24, patience=3,
                   learning_rate=0.02)  # fmt: skip
    scores = result.history.scores
    assert len(scores) == result.history.best_epoch + 4 < 60
    with (tmp_path / "a.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["validation_score"]) for row in rows] == scores
    assert [int(row["epoch"]) for row in rows] == list(range(1, len(scores) + 1))
    assert [float(row["loss"]) for row in rows] == result.history.losses


def test_training_on_interval_ends_raises_what_intervals_certify(tmp_path):
    digits, proved = load_data("digits"), {}
    for regime in ("plain", "interval"):
        options = {"certified_epsilon": 0.05} if regime == "interval" else {"learning_rate": 5e-3}
        result = train("mlp", "digits", tmp_path / f"{regime}.safetensors", hidden=(24,), epochs=8, batch=50,
                       regime=regime, **options)  # fmt: skip
        proved[regime] = (
            certify(result.out, digits, [0.05], method="interval", out=None, limit=120).results[0].certified
        )
    assert proved["interval"] > proved["plain"] + 20
