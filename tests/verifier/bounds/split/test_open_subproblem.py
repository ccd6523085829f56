"""Why an input stays open is told from the real margin: nothing large is called a tie within rounding."""

import json

import numpy as np
import pytest
import torch

from encoders import write_network
from encoders.ops import Affine
from encoders.region import BallRegion
from tests.networks.chains import chain, random_relu_network
from verifier.bounds.split.open_subproblem import Why, sentence, why_open
from verifier.bounds.split.search import decide_ball
from verifier.budget import Budget
from verifier.cli import main
from verifier.witnesses.replay import Replay

F64 = torch.float64


def ball_of(centre: list[float], radius: float) -> BallRegion:
    return BallRegion(torch.tensor([centre], dtype=F64), torch.tensor([radius], dtype=F64), None)


def test_why_a_part_is_open_is_told_from_the_real_margin_at_its_point():
    """y = (x, .5): the margin of class 0 is x - .5, its reach on the ball about 1."""
    network = chain((1,), Affine(torch.tensor([[1.0], [0.0]]), torch.tensor([0.0, 0.5])))
    region, row = ball_of([0.5], 0.4), torch.tensor([1.0, -1.0], dtype=F64)
    for x, expected in ((0.5, Why.TIE), (0.5 + 1e-9, Why.TIE), (0.5 - 1e-9, Why.TIE), (0.6, Why.UNPROVED),
                        (0.4, Why.DISAGREES), (None, Why.UNSOLVED)):  # fmt: skip
        point = None if x is None else torch.tensor([x], dtype=F64)
        assert why_open(network, region, point, row, 1.0) is expected, x
    # 2^20 (x - 1) - 7/64 is 1/64 at the float32 number 1 + 2^-23 and -1/64 a quarter of a step below.
    steep = chain(
        (1,),
        Affine(torch.ones(1, 1), -torch.ones(1)),
        Affine(torch.tensor([[2.0**20], [0.0]]), torch.tensor([-7 / 64, 0.0])),
    )
    near = ball_of([1.0 + 2.0**-23], 2.0**-25)
    point = torch.tensor([1.0 + 2.0**-23 - 2.0**-25], dtype=F64)
    assert why_open(steep, near, point, row, 1.0) is Why.BETWEEN


def test_the_sentence_counts_each_kind_once():
    assert sentence([Why.TIE, Why.TIE]) == "2 subproblems with all signs known are within rounding of a tie"
    both = sentence([Why.DISAGREES, Why.TIE])
    assert (
        both.startswith("1 subproblems with all") and "; execution and real arithmetic disagree: 1 subproblems" in both
    )


@pytest.mark.parametrize("seed", range(4))
def test_a_large_real_margin_is_never_called_a_tie(seed):
    """An attack that confirms nothing, as where the model's execution shows nothing of what real arithmetic says."""
    network = random_relu_network(seed, (2, 6, 5, 3))
    centre = torch.rand(1, 2, generator=torch.Generator().manual_seed(seed))
    winner = int(network.evaluate(centre).argmax())
    region = BallRegion(centre.to(F64), torch.tensor([0.9], dtype=F64), (0.0, 1.0))
    answer = decide_ball(network, region, winner, lambda _: False, Budget(), 1000)
    assert not answer.falsified
    if not answer.proved:
        assert "execution and real arithmetic disagree" in answer.reason and "tie" not in answer.reason


def test_a_model_that_disagrees_with_its_network_gets_that_reason_in_its_record(tmp_path, monkeypatch):
    network = random_relu_network(0, (2, 6, 5, 3))
    write_network(network, tmp_path / "model.safetensors")
    x = torch.rand(6, 2, generator=torch.Generator().manual_seed(0))
    np.savez(tmp_path / "data.npz", x=x.numpy(), y=network.evaluate(x).argmax(dim=1).numpy())
    monkeypatch.setattr("verifier.witnesses.confirm.replay", _nothing_shown)
    arguments = [
        "certify",
        str(tmp_path / "model.safetensors"),
        "--data",
        str(tmp_path / "data.npz"),
        "--epsilon",
        "0.5",
    ]
    assert main([*arguments, "--method", "exact", "--clip", "0", "1", "--out", str(tmp_path / "run"), "--json"]) == 0
    lines = (tmp_path / "run" / "records.jsonl").read_text().splitlines()
    reasons = [json.loads(line)["reason"] for line in lines]
    assert any(reason and "execution and real arithmetic disagree" in reason for reason in reasons)
    assert not any(reason and "tie" in reason for reason in reasons)


def _nothing_shown(batch, points):
    nothing = torch.zeros(len(points), dtype=torch.bool)
    return Replay(nothing, nothing, nothing)
