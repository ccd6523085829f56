"""Training: the loop resumes exactly, parameters keep their ranges, regimes do what they say."""

import numpy as np
import pytest
import torch
from torch import nn

from encoders import read_network
from encoders.formats.torch_export import from_module
from encoders.layers import Mwd, MwdConv2d
from encoders.layers.mwd import ATTRACTOR_RANGE, WEIGHT_RANGE
from tests.seeds import few_or
from verifier import certify, train
from verifier.bounds.mwd.lipschitz import distance_sensitivities
from verifier.certificates.distance_chain import dense_layers
from verifier.cli import main
from verifier.data import from_arrays, load_data
from verifier.training.adversaries import ADVERSARIES, Adversary
from verifier.training.architectures import ARCHITECTURES, alternating, squared_error
from verifier.training.interval_regime import IntervalEnds
from verifier.training.plan import Plan
from verifier.training.regimes import Clean, Perturbed
from verifier.training.sensitivity_regime import output_sensitivity
from verifier.training.trainer import Trainer


def blobs(count: int = 240):
    """Return three separable clusters in four dimensions."""
    generator = np.random.default_rng(0)
    labels = np.arange(count) % 3
    centres = np.array([[0.2, 0.2, 0.8, 0.5], [0.8, 0.3, 0.2, 0.5], [0.5, 0.8, 0.5, 0.1]])
    return (centres[labels] + 0.08 * generator.standard_normal((count, 4))).clip(0, 1).astype(np.float32), labels


def make_trainer(epochs: int, seed: int = 0, checkpoint_of: str = "mwd") -> Trainer:
    x, y = blobs()
    torch.manual_seed(seed)
    architecture = ARCHITECTURES[checkpoint_of]
    module = architecture.make((4,), (8,), (), 3)
    plan = Plan(epochs, batch=30, learning_rate=architecture.learning_rate, seed=seed)
    optimiser = architecture.optimiser(module.parameters(), plan.learning_rate)
    data = (torch.from_numpy(x), torch.from_numpy(y))

    def score(trained: nn.Module) -> float:
        with torch.no_grad():
            return float((trained(data[0]).argmax(dim=1) == data[1]).double().mean())

    return Trainer(module, Clean(architecture.loss), optimiser, data, plan, score)


class Stopped(Exception):
    pass


@pytest.mark.parametrize("name", ["mwd", "relu", "sigmoid"])
def test_an_interrupted_training_continues_bit_for_bit(tmp_path, name):
    whole = make_trainer(6, checkpoint_of=name)
    whole.run()
    path = tmp_path / "a.checkpoint"

    def stop_in_fourth_epoch(done: int, total: int) -> None:
        if done == 8 * 3 + 2:
            raise Stopped

    with pytest.raises(Stopped):
        make_trainer(6, checkpoint_of=name).run(path, stop_in_fourth_epoch)
    resumed = make_trainer(6, checkpoint_of=name)
    resumed.resume(path)
    assert len(resumed.history.losses) == 3
    resumed.run(path)
    assert resumed.history == whole.history
    for a, b in zip(resumed.module.state_dict().values(), whole.module.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_training_in_bfloat16_resumes_exactly_and_keeps_float32_weights(tmp_path):
    """Of weights laid out channels last, whose momenta a checkpoint holds in the usual order."""
    images, labels = torch.rand(60, 3, 8, 8).numpy(), np.arange(60) % 3
    options = {"epochs": 3, "hidden": (4, 6, 8), "batch": 20, "certified_epsilon": 0.02, "certified_share": 1.0}
    options |= {"precision": "bfloat16", "batch_statistics": "middles", "learning_rate": 0.01}
    data = from_arrays(images, labels, (0.0, 1.0))
    whole = train("cnn-medium", data, tmp_path / "a.safetensors", **options)

    def stop_in_second_epoch(done: int, total: int) -> None:
        if done == 4:
            raise Stopped

    with pytest.raises(Stopped):
        train("cnn-medium", data, tmp_path / "b.safetensors", progress=stop_in_second_epoch, **options)
    with pytest.raises(ValueError, match="another training"):
        train("cnn-medium", data, tmp_path / "b.safetensors", **options | {"precision": "float32"})
    resumed = train("cnn-medium", data, tmp_path / "b.safetensors", **options)
    assert resumed.history == whole.history and whole.metadata["plan"]["precision"] == "bfloat16"
    for ours, theirs in zip(read_network(resumed.out).nodes, read_network(whole.out).nodes, strict=True):
        for name, value in ours.op.parameters().items():
            assert value.dtype == torch.float32 and torch.equal(value, theirs.op.parameters()[name])


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    path = tmp_path / "a.checkpoint"
    make_trainer(1).run(path)
    with pytest.raises(ValueError, match="another training"):
        make_trainer(2).resume(path)
    path.write_bytes(b"\x80\x04pickle")
    with pytest.raises(ValueError, match="not a checkpoint"):
        make_trainer(1).resume(path)


def test_parameters_stay_in_their_ranges_after_every_step():
    trainer = make_trainer(3)
    seen = []

    def look(done: int, total: int) -> None:
        for layer in trainer.module.modules():
            if isinstance(layer, Mwd):
                u, w = layer.u.detach(), layer.w.detach()
                seen.append((float(u.min()), float(u.max()), float(w.min()), float(w.max())))

    trainer.run(progress=look)
    values = torch.tensor(seen)
    rounding = 1e-8  # 0.01 is no float32
    assert float(values[:, 0].min()) >= WEIGHT_RANGE[0] - rounding
    assert float(values[:, 1].max()) <= WEIGHT_RANGE[1]
    assert float(values[:, 2].min()) >= ATTRACTOR_RANGE[0] and float(values[:, 3].max()) <= ATTRACTOR_RANGE[1]


def test_training_learns_and_keeps_the_best_epoch():
    trainer = make_trainer(8)
    history = trainer.run()
    assert history.scores[history.best_epoch] == max(history.scores) > 0.95


@pytest.mark.parametrize("name", ["mwd", "relu", "sigmoid"])
def test_a_trained_file_is_read_by_certify(tmp_path, name):
    x, y = blobs()
    data = from_arrays(x, y, (0.0, 1.0))
    result = train(name, data, tmp_path / "model.safetensors", epochs=4, hidden=(8,), batch=30)
    assert result.metadata["architecture"] == name
    assert not (tmp_path / "model.checkpoint").exists()
    certified = certify(result.out, (x, y), [0.001], clip=(0.0, 1.0), limit=30, method="interval")
    assert certified.inputs == 30 and certified.correct >= 10


def test_unit_types_and_start_weights_are_taken(tmp_path):
    x, y = blobs()
    data = from_arrays(x, y, (0.0, 1.0))
    first = train("mwd", data, tmp_path / "a.safetensors", epochs=1, hidden=(8,), types=("mixed", "negated"))
    masks = [node.op.negated for node in read_network(first.out).nodes]
    assert bool(masks[1].all()) and not bool(masks[0].all()) and bool(masks[0].any())
    second = train(
        "mwd", data, tmp_path / "b.safetensors", epochs=1, hidden=(8,), types=("mixed", "negated"),
        start=first.out, certified_epsilon=0.05, learning_rate=1e-6,
    )  # fmt: skip
    for a, b in zip(read_network(first.out).nodes, read_network(second.out).nodes, strict=True):
        assert torch.allclose(a.op.weight, b.op.weight, atol=1e-3)
        assert torch.equal(a.op.negated, b.op.negated)


def test_the_interval_regime_is_the_clean_loss_at_radius_zero_and_never_below_it():
    trainer = make_trainer(2)
    trainer.run()
    x, y = trainer.inputs, trainer.labels
    module = trainer.module
    with torch.no_grad():
        clean = float(squared_error(module(x), y))
        losses = [float(next(IntervalEnds(squared_error, e)(module, x, y, 1.0))) for e in (0.0, 0.01, 0.05, 0.1)]
    assert losses[0] == pytest.approx(clean, rel=1e-5)
    assert losses == sorted(losses)


@pytest.mark.parametrize("limit", few_or(45, 360))
def test_interval_training_raises_certified_accuracy(tmp_path, limit):
    digits = load_data("digits")
    plain = train("mwd", "digits", tmp_path / "a.safetensors", epochs=8, hidden=(48, 24))
    better = train(
        "mwd", "digits", tmp_path / "b.safetensors", epochs=6, hidden=(48, 24), start=plain.out,
        certified_epsilon=0.15,
    )  # fmt: skip
    counts = [
        certify(r.out, digits, [0.15], method="interval", limit=limit).results[0].certified for r in (plain, better)
    ]
    assert counts[1] > counts[0] + limit / 36


def test_adversarial_examples_stay_in_the_ball_and_hurt():
    trainer = make_trainer(6, checkpoint_of="relu")
    trainer.run()
    x, y, module = trainer.inputs, trainer.labels, trainer.module
    loss = ARCHITECTURES["relu"].loss
    for attack in ADVERSARIES.values():
        points = Adversary(attack, 0.1, domain=(0.0, 1.0))(module, x, y)
        assert float((points - x).abs().max()) <= 0.1 + 1e-6
        assert float(points.min()) >= 0.0 and float(points.max()) <= 1.0
        with torch.no_grad():
            assert float(loss(module(points), y)) > float(loss(module(x), y))


@pytest.mark.parametrize(("mixing", "steps"), [("pure", 1), ("batch", 1), ("steps", 2)])
def test_the_mixing_styles_take_one_and_two_steps(mixing, steps):
    trainer = make_trainer(1, checkpoint_of="relu")
    regime = Perturbed(ARCHITECTURES["relu"].loss, Adversary(ADVERSARIES["fgsm"], 0.1), mixing)
    assert len(list(regime(trainer.module, trainer.inputs, trainer.labels, 0.0))) == steps


def test_adversarial_training_is_trained_with(tmp_path):
    x, y = blobs()
    result = train(
        "relu", from_arrays(x, y, (0.0, 1.0)), tmp_path / "a.safetensors", epochs=1, hidden=(8,), attack="fgsm"
    )
    assert result.metadata["attack"] == ["fgsm", 0.3, "batch"]


def digits_of(split: str, classes: int, size: int):
    """Return the digits below a class, as images of size x size pixels, means of whole blocks."""
    digits = load_data("digits", split=split)
    kept, block = digits.labels < classes, 8 // size
    images = digits.inputs[kept].reshape(-1, size, block, size, block).mean(axis=(2, 4))
    return from_arrays(images.reshape(len(images), -1), digits.labels[kept], (0.0, 1.0))


@pytest.mark.parametrize(("classes", "size"), [(3, 4), pytest.param(10, 8, marks=pytest.mark.slow)])
def test_convolutional_networks_train_plainly_and_on_interval_ends(tmp_path, classes, size):
    images, held_out = (digits_of(split, classes, size) for split in ("train", "test"))
    plain = train("mwd-conv", images, tmp_path / "a.safetensors", epochs=12, hidden=(6, 24))
    kinds = [node.op.kind for node in read_network(plain.out).nodes]
    assert kinds == ["reshape", "mwd-conv2d", "reshape", "mwd", "mwd"]
    certified = train(
        "mwd-conv", images, tmp_path / "b.safetensors", epochs=4, hidden=(6, 24), start=plain.out,
        certified_epsilon=0.1,
    )  # fmt: skip
    counts = [certify(r.out, held_out, [0.1], method="interval").results[0].certified for r in (plain, certified)]
    assert counts[1] > counts[0]
    with pytest.raises(ValueError, match="takes images"):
        ARCHITECTURES["mwd-conv"].make((7,), (4, 8), (), 10)


def test_the_sensitivity_of_a_module_is_the_certified_bound_and_shares_its_feedback():
    module = nn.Sequential(MwdConv2d(1, 3, 2), nn.Flatten(), Mwd(12, 5), Mwd(5, 4, link="linear"))
    s = output_sensitivity(module)
    layers = dense_layers(from_module(module, (1, 3, 3)), "lipschitz")
    assert torch.allclose(s.double(), distance_sensitivities(layers), rtol=1e-5)
    s.mean().backward()
    assert all(bool((layer.u.grad > 0).any()) for layer in module if not isinstance(layer, nn.Flatten))
    with pytest.raises(TypeError, match="Linear"):
        output_sensitivity(nn.Sequential(nn.Linear(2, 2)))


def test_the_sensitivity_cost_trains_smaller_lipschitz_constants(tmp_path):
    digits = load_data("digits")
    results = [
        train("mwd", "digits", tmp_path / f"{cost}.safetensors", epochs=16, hidden=(32,), sensitivity_cost=cost)
        for cost in (0.0, 0.3)
    ]
    bounds = [distance_sensitivities(dense_layers(read_network(r.out), "lipschitz")).mean() for r in results]
    assert bounds[1] < 0.7 * bounds[0]
    counts = [certify(r.out, digits, [0.1], method="lipschitz").results[0].certified for r in results]
    assert counts[1] > counts[0]


def test_layer_types_alternate_and_end_negated():
    assert alternating(4) == ("plain", "negated", "plain", "negated")
    assert alternating(3) == ("negated", "plain", "negated")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "transformer"}, "supported: mwd"), ({"out": "model.pt"}, "safetensors"), ({"epochs": 0}, "epoch"),
        ({"precision": "bfloat16"}, "the kernels of mwd take float32 only"),
        ({"name": "relu", "precision": "float16"}, "supported: float32, bfloat16"),
        ({"name": "relu", "regime": "crown-interval", "certified_epsilon": 0.1, "precision": "bfloat16"}, "by plain,"),
        ({"name": "sigmoid", "certified_epsilon": 0.1, "precision": "bfloat16"}, "the layer Sigmoid"),
        ({"types": ("plain",)}, "as many unit types"), ({"name": "relu", "types": ("plain",)}, "MWD layers"),
        ({"name": "relu", "regime": "interval"}, "needs --certified-epsilon"), ({"schedule": "steps"}, "schedule"),
        ({"types": ("plain", "sideways")}, "sideways"), ({"name": "lenet"}, "images"),
        ({"learning_rate": -1.0}, "positive"), ({"attack": "cw"}, "fgsm, ifgsm, pgd"),
        ({"certified_share": 1.5}, "certified_share"), ({"sharpness": 0.0}, "sharpness must be positive"),
        ({"name": "mwd-conv", "hidden": (4, 8)}, "do not fit images"),
        ({"name": "relu", "sensitivity_cost": 0.1}, "mwd networks only"), ({"sensitivity_cost": -1.0}, "negative"),
        ({"sensitivity_cost": 1.0, "certified_epsilon": 0.1}, "without certified epsilon"),
        ({"attack": "fgsm", "certified_epsilon": 0.1}, "without a certified epsilon"),
    ],
)  # fmt: skip
def test_impossible_trainings_are_refused_before_anything_is_written(tmp_path, arguments, message):
    x, y = blobs(30)
    settings = {"name": "mwd", "data": from_arrays(x, y), "out": "model.safetensors", "epochs": 1, "hidden": (8,)}
    settings |= arguments
    with pytest.raises(ValueError, match=message):
        train(settings.pop("name"), settings.pop("data"), tmp_path / str(settings.pop("out")), **settings)
    assert list(tmp_path.iterdir()) == []


def test_the_command_trains(tmp_path, capsys):
    x, y = blobs()
    np.savez(tmp_path / "data.npz", x=x, y=y)
    arguments = ["train", "mwd", "--data", str(tmp_path / "data.npz"), "--epochs", "2", "--hidden", "8"]
    assert main([*arguments, "--out", str(tmp_path / "m.safetensors")]) == 0
    assert "validation score" in capsys.readouterr().out
    assert read_network(tmp_path / "m.safetensors").input_shape == (4,)
