"""The methods `crown` and `alpha-crown` inside `certify`, and the methods in other norms."""

import pytest
import torch

from encoders import BallRegion, write_network
from encoders.ops import Op
from tests.answers import decided
from tests.networks.chains import random_relu_network
from tests.networks.mwd_chains import random_mwd_network
from verifier import certify
from verifier.batch import Batch
from verifier.budget import Budget
from verifier.methods import METHODS
from verifier.methods.crown import CrownMethod
from verifier.methods.suitable import check_method
from verifier.subject import load_subject
from verifier.verdict import Outcome


@pytest.fixture
def job(tmp_path):
    """Return a subject with 60 inputs and their classes."""
    network = random_relu_network(2, (5, 14, 12, 4))
    path = tmp_path / "model.safetensors"
    write_network(network, path)
    x = torch.rand(60, 5, generator=torch.Generator().manual_seed(0))
    return path, x, network.evaluate(x).argmax(dim=1)


def test_the_order_of_the_methods_is_kept_and_certificates_are_checked(job):
    path, x, y = job
    lower = {}
    for method in ("interval", "crown", "alpha-crown"):
        result = certify(path, (x.numpy(), y.numpy()), [0.02, 0.06], method=method, clip=(0, 1), out=None)
        lower[method] = result.brackets
        assert all(row.certified_checked == row.certified for row in result.results)
    for index, bracket in lower["interval"].items():
        for epsilon in (0.02, 0.06):
            if bracket.at(epsilon) is Outcome.CERTIFIED:
                assert lower["crown"][index].at(epsilon) is Outcome.CERTIFIED
            if lower["crown"][index].at(epsilon) is Outcome.CERTIFIED:
                assert lower["alpha-crown"][index].at(epsilon) is Outcome.CERTIFIED


@pytest.mark.parametrize("norm", ["inf", "2", "1"])
def test_no_method_contradicts_an_attack_in_any_norm(job, norm):
    path, x, y = job
    epsilon = {"inf": 0.05, "2": 0.08, "1": 0.1}[norm]
    found = certify(path, (x.numpy(), y.numpy()), [epsilon], method="auto", norm=norm, clip=(0, 1), out=None)
    alone = certify(path, (x.numpy(), y.numpy()), [epsilon], method="crown", norm=norm, clip=(0, 1), out=None)
    for index, bracket in alone.brackets.items():
        assert bracket.lower < found.brackets[index].upper
        assert found.brackets[index].lower < bracket.upper
    assert found.results[0].certified >= alone.results[0].certified


def test_bounds_in_the_two_norm_beat_the_box_around_the_ball(job):
    path, x, y = job
    crown = certify(path, (x.numpy(), y.numpy()), [0.1], method="crown", norm="2", clip=(0, 1), out=None)
    interval = certify(path, (x.numpy(), y.numpy()), [0.1], method="interval", norm="2", clip=(0, 1), out=None)
    assert crown.results[0].certified > interval.results[0].certified


def test_the_minimiser_of_a_bound_is_tried_as_an_attack(job):
    path, x, y = job
    subject = load_subject(path)
    batch = Batch(subject, x.double(), y, tuple(range(len(x))), (0.0, 1.0), 1.0)
    decision = decided(CrownMethod("crown"), batch, batch.region(0.5), Budget())
    assert decision.witnesses
    region: BallRegion = batch.region(0.5)
    for row, witness in decision.witnesses.items():
        assert not bool(decision.certified[row])
        assert bool(region[torch.tensor([row])].contains(witness.point.unsqueeze(0)))
        assert int(subject.execute(witness.point.unsqueeze(0)).argmax()) != int(y[row]) or witness.tie


def test_no_time_proves_nothing(job):
    path, x, y = job
    batch = Batch(load_subject(path), x.double(), y, tuple(range(len(x))), (0.0, 1.0), 1.0)
    for name in ("crown", "alpha-crown"):
        assert not bool(decided(METHODS[name], batch, batch.region(0.001), Budget(0.0)).certified.any())


def test_networks_that_gain_nothing_and_ops_without_envelopes_are_refused(monkeypatch):
    with pytest.raises(ValueError, match=r"gains nothing over intervals.* Methods for this network: .*contraction"):
        check_method("crown", random_mwd_network(0), "inf")
    network = random_relu_network(0)
    assert METHODS["crown"].refusal(network) is None
    relu = type(network.nodes[1].op)
    monkeypatch.setattr(relu, "envelope", Op.envelope)
    with pytest.raises(ValueError, match=r"'1-relu' \(relu\).* Methods for this network: interval"):
        check_method("crown", network, "inf")


def test_a_run_hands_over_few_inputs_together_where_each_is_a_piece_of_its_own():
    """Of 16 bytes times the square of the width, 2 MiB hold more than one up to a width of 256."""
    sizes, cpu = {}, torch.device("cpu")
    for width in (64, 256, 257):
        network = random_relu_network(0, (4, width, 3))
        sizes[width] = [METHODS[name].batch_for(network, cpu) for name in ("crown", "alpha-crown", "interval", "exact")]
        assert METHODS["crown"].batch_for(network, torch.device("cuda")) == 64
    assert sizes == {64: [64, 64, 64, 16], 256: [64, 64, 64, 16], 257: [16, 16, 64, 16]}
