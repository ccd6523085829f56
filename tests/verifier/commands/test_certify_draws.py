"""Randomised networks end to end: answers are about the mean and say so, or about every draw within some deviations."""

import json

import numpy as np
import pytest
import torch

from encoders import Network, write_network
from encoders.ops import Affine, DropConnect, RandomAffine, Relu
from tests.networks.chains import chain
from verifier import attack, certify, check
from verifier.cli import main
from verifier.methods import METHODS
from verifier.subject import about

F64 = torch.float64
RADII = [0.01, 0.05, 0.1]
WITHIN = 2.0
ABOUT_MEAN = about({"randomised": "mean"})


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trained_for_it() -> Network:
    """Return a network of two classes, x_0 + x_1 against 1, in four hidden units whose weights hardly vary."""
    first = torch.tensor([[1.0, 1.0], [-1.0, -1.0], [1.0, 0.5], [0.5, -1.0]])
    last = torch.tensor([[1.0, -1.0, 0.1, 0.0], [-1.0, 1.0, 0.0, 0.1]])
    return chain(
        (2,),
        RandomAffine(first, torch.tensor([-1.0, 1.0, 0.0, 0.2]), deviation=first.abs() / 100),
        Relu(),
        RandomAffine(last, torch.zeros(2), deviation=last.abs() / 100, bias_deviation=torch.full((2,), 0.01)),
    )


def inputs(count: int = 16) -> tuple[np.ndarray, np.ndarray]:
    x = torch.rand(count, 2, generator=generator(1)).numpy()
    return x, (x.sum(axis=1) < 1).astype(np.int64)


@pytest.fixture
def model(tmp_path):
    write_network(trained_for_it(), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize(("method", "count"), [("interval", 16), ("crown", 16), ("alpha-crown", 2), ("auto", 4)])
def test_what_is_certified_holds_for_every_draw_within_and_more_than_nothing_is(model, method, count):
    network, (x, y) = trained_for_it(), inputs(count)
    found = certify(model, (x, y), RADII, method=method, draws_within=WITHIN, clip=(0, 1), out=None)
    assert found.draws_within == WITHIN and "within 2 deviations" in found.about
    assert found.results[0].certified > 0
    # Of 8 + 8 weights and 2 biases all but two vary; P(|z| <= 2) = 0.9544997.
    assert found.share_of_draws == pytest.approx(0.9544997361036416**16)
    within, source = network.over_draws(WITHIN), generator(2)
    boxes = {place: within.nodes[place].op for place in (0, 2)}
    proved = [(i, max(r for r in RADII if r <= b.lower)) for i, b in found.brackets.items() if b.lower >= RADII[0]]
    centres, radii = torch.from_numpy(x[[i for i, _ in proved]]).to(F64), torch.tensor([r for _, r in proved])
    for _ in range(60):
        z = torch.randn(3, generator=source).sign()
        drawn = [node.op for node in network.nodes]
        for place, box in boxes.items():
            # Corners of the box of weights, a hair within: rounded to float32 they would lie beyond.
            sign = torch.randn(box.centre.weight.shape, generator=source).sign() * 0.999999
            bias = box.centre.bias if box.spread.bias is None else box.centre.bias + box.spread.bias * z[0] * 0.999999
            drawn[place] = Affine(box.centre.weight + box.spread.weight * sign, bias)
        one = chain((2,), *drawn, dtype=F64)
        for _ in range(20):
            points = centres + torch.randn(centres.shape, generator=source, dtype=F64).sign() * radii[:, None].to(F64)
            assert one.evaluate(points.clamp(0, 1)).argmax(dim=1).tolist() == [y[i] for i, _ in proved]


def test_bounds_over_draws_lie_below_those_of_the_mean_and_meet_them_at_no_deviation(model):
    data = inputs()
    options = {"method": "crown", "clip": (0, 1), "out": None}
    mean = certify(model, data, RADII, **options)
    none, some, more = (certify(model, data, RADII, draws_within=k, **options) for k in (0.0, 2.0, 6.0))
    for index, bracket in mean.brackets.items():
        assert none.brackets[index].lower == pytest.approx(bracket.lower, abs=0.01)
        assert more.brackets[index].lower <= some.brackets[index].lower <= bracket.upper
        # What the mean gets wrong some draw gets wrong.
        assert some.brackets[index].lower < bracket.upper
    certified = [[row.certified for row in each.results] for each in (mean, some, more)]
    assert certified[0] >= certified[1] >= certified[2] and certified[0] != certified[2]


def test_answers_about_the_mean_say_so_in_results_records_and_print(model, tmp_path, capsys):
    x, y = inputs()
    data = tmp_path / "data.npz"
    np.savez(data, x=x, y=y)
    run = tmp_path / "run"
    arguments = ["certify", str(model), "--data", str(data), "--epsilon", "0.05", "--clip", "0", "1", "--out", str(run)]
    assert main([*arguments, "--certificates"]) == 0
    assert ABOUT_MEAN in capsys.readouterr().out
    assert json.loads((run / "results.json").read_text())["about"] == ABOUT_MEAN
    assert json.loads((run / "run.json").read_text())["randomised"] == "mean"
    assert not check(run).refused
    assert attack(model, (x, y), "pgd", 0.1, clip=(0, 1), out=None).about == ABOUT_MEAN
    ordinary = tmp_path / "draw.safetensors"
    write_network(trained_for_it().draw(generator(3)), ordinary)
    assert certify(ordinary, (x, y), RADII, method="interval", out=None).about == ""


def test_a_run_over_draws_is_kept_checked_and_not_mixed_with_one_about_the_mean(model, tmp_path, capsys):
    x, y = inputs()
    data = tmp_path / "data.npz"
    np.savez(data, x=x, y=y)
    run = tmp_path / "run"
    arguments = ["certify", str(model), "--data", str(data), "--epsilon", "0.05", "0.5", "--clip", "0", "1"]
    over = [*arguments, "--out", str(run), "--draws-within", "2"]
    assert main(over) == 0
    printed = capsys.readouterr().out
    assert "every draw of the randomised network" in printed and "with probability" in printed
    stored = json.loads((run / "run.json").read_text())
    assert stored["draws_within"] == 2.0 and "randomised" not in stored
    found = check(run)
    assert not found.refused and found.certified > 0 and found.witnesses > 0 and found.checked == 0
    (reason,) = found.without
    assert "weight-box" in reason
    assert main([*arguments, "--out", str(run)]) == 2
    # A run that does not say that it is about draws, or about others, is refused.
    for changed in ({"draws_within": 3.0}, {"draws_within": None, "randomised": "mean"}):
        (run / "run.json").write_text(json.dumps({k: v for k, v in {**stored, **changed}.items() if v is not None}))
        with_change = main(["check", str(run)])
        assert with_change in (1, 2)
    (run / "run.json").write_text(json.dumps({k: v for k, v in stored.items() if k != "draws_within"}))
    with pytest.raises(ValueError, match="of the randomness of the model"):
        check(run)


def test_methods_of_one_network_refuse_the_draws(model):
    within = trained_for_it().over_draws(1.0)
    taken = {name for name, method in METHODS.items() if method.refusal(within) is None}
    # `restriction` and what only attacks make witnesses of the mean, `auto` leaves out the stages that refuse.
    assert taken - {"restriction"} == {"interval", "crown", "alpha-crown", "auto"}
    for name in ("exact", "milp", "lp", "input-split", "contraction", "lipschitz"):
        with pytest.raises(ValueError, match="Methods for this network: interval, crown, alpha-crown"):
            certify(model, inputs(), RADII, method=name, draws_within=1.0, out=None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"draws_within": -1.0}, "a finite number of deviations"),
        ({"draws_within": 1.0, "delta": 0.1}, "leave out --delta"),
        ({"draws_within": 1.0, "certificates": True}, "have no certificates"),
    ],
)
def test_what_is_not_supported_is_refused(model, options, message):
    with pytest.raises(ValueError, match=message):
        certify(model, inputs(), RADII, out=None, **options)


def test_a_network_without_randomness_has_no_draws():
    with pytest.raises(ValueError, match="has no random op"):
        certify("digits-relu", "digits", [0.01], limit=1, draws_within=1.0, out=None)


def test_drop_connect_is_proved_for_every_mask(tmp_path):
    """All 2^8 masks of a small network: what is certified holds for each, at no number of deviations in particular."""
    first, last = torch.tensor([[1.0, 0.8], [-0.8, -1.0]]), torch.tensor([[0.1, 0.3], [-0.1, 0.2]])
    bias = torch.tensor([2.0, 0.0])
    network = chain(
        (2,), DropConnect(first, torch.tensor([0.5, 0.5]), rate=0.2), Relu(), DropConnect(last, bias, rate=0.2)
    )
    write_network(network, tmp_path / "drop.safetensors")
    x, y = np.array([[0.5, 0.5], [0.1, 0.9]], dtype=np.float32), np.zeros(2, dtype=np.int64)
    found = certify(
        tmp_path / "drop.safetensors", (x, y), [0.1], method="crown", draws_within=0.0, clip=(0, 1), out=None
    )
    assert found.results[0].certified == 2 and found.share_of_draws == 1.0
    for mask in range(256):
        bits = torch.tensor([mask >> k & 1 for k in range(8)], dtype=torch.float32) / 0.8
        drawn = chain(
            (2,),
            Affine(first * bits[:4].reshape(2, 2), torch.tensor([0.5, 0.5])),
            Relu(),
            Affine(last * bits[4:].reshape(2, 2), bias),
        )
        corners = torch.cartesian_prod(torch.tensor([-0.1, 0.1]), torch.tensor([-0.1, 0.1]))
        for point in torch.from_numpy(x):
            assert bool((drawn.evaluate((point + corners).clamp(0, 1)).argmax(dim=1) == 0).all())
