"""Votes of draws after an attack of the mean, from Python and on the command line."""

import json

import numpy as np
import pytest
import torch

from encoders import write_network
from encoders.ops import RandomAffine
from tests.networks.chains import chain
from verifier import attack, check
from verifier.cli import main


@pytest.fixture
def model(tmp_path):
    """Class 0 where x_0 + z > 1/2, z ~ N(0, .05^2): the mean's boundary is that of the vote."""
    weight, bias = torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([-0.5, 0.0])
    op = RandomAffine(weight, bias, deviation=0 * weight, bias_deviation=torch.tensor([0.05, 0.0]))
    write_network(chain((2,), op), tmp_path / "m.safetensors")
    return tmp_path / "m.safetensors"


def data():
    x = np.array([[0.9, 0.5], [0.7, 0.5], [0.6, 0.5], [0.1, 0.5]], dtype=np.float32)
    return x, np.array([0, 0, 0, 1])


def test_votes_are_taken_at_the_counterexamples_and_elsewhere_at_the_inputs(model):
    # Within .3: 0.9 and 0.1 withstand, where nearly all draws are right; .7 and .6 go to .4 and .3, two and four
    # deviations beyond the boundary, where nearly none is.
    found = attack(model, data(), "fgsm", 0.3, vote=200, clip=(0, 1), out=None)
    assert (found.votes.kept, found.votes.broken, found.votes.open) == (2, 2, 0)
    assert found.votes.draws == 200 and 0.45 < found.votes.single < 0.55
    assert (
        found.to_json()["votes"]["broken"] == 2
        and "votes" not in attack(model, data(), "fgsm", 0.3, out=None).to_json()
    )


def test_votes_are_printed_and_a_run_of_them_is_checked(model, tmp_path, capsys):
    x, y = data()
    np.savez(tmp_path / "data.npz", x=x, y=y)
    run = tmp_path / "run"
    arguments = ["attack", str(model), "--data", str(tmp_path / "data.npz"), "--attack", "fgsm", "--epsilon", "0.3"]
    assert main([*arguments, "--vote", "100", "--out", str(run)]) == 0
    assert "votes of 100 draws" in " ".join(capsys.readouterr().out.split())
    assert json.loads((run / "results.json").read_text())["votes"]["draws"] == 100
    assert not check(run).refused


def test_what_has_no_vote_is_refused(model):
    with pytest.raises(ValueError, match="at least 4 draws"):
        attack(model, data(), "fgsm", 0.3, vote=1, out=None)
    with pytest.raises(ValueError, match="no random op"):
        attack("digits-relu", "digits", "fgsm", 0.1, vote=10, limit=1, out=None)
