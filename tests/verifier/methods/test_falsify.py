"""Nothing is falsified unless it was replayed in the user's model and is unsafe in real arithmetic."""

import numpy as np
import pytest
import torch

from encoders.ops import Affine
from tests.answers import bracketed, decided
from tests.networks.batches import batch_of
from tests.networks.chains import chain, random_relu_network
from tests.seeds import seeds
from verifier.answers import Answer
from verifier.budget import Budget
from verifier.methods import METHODS
from verifier.verdict import Outcome
from verifier.witnesses.confirm import own_ties
from verifier.witnesses.replay import replay


def random_batch(seed=0, runtime=None):
    network = random_relu_network(seed, (5, 10, 8, 3))
    centres = torch.rand(12, 5, generator=torch.Generator().manual_seed(seed))
    return batch_of(network, centres, network.evaluate(centres).argmax(dim=1), runtime)


def test_brackets_are_consistent_and_witnesses_are_inside_them():
    batch = random_batch()
    findings = bracketed(METHODS["auto"], batch, [0.05, 0.2], Budget())
    outcomes = [b.at(0.2) for b in findings.brackets]
    assert {Outcome.FALSIFIED} <= set(outcomes)
    for row, witness in findings.witnesses.items():
        point = witness.point[None]
        assert findings.brackets[row].lower < witness.distance == findings.brackets[row].upper
        assert float((point.double() - batch.centres[row]).abs().max()) <= witness.distance
        outputs = batch.subject.execute(point)[0]
        assert outputs.argmax() != int(batch.classes[row]) or witness.tie


def test_a_model_that_disagrees_with_its_graph_falsifies_nothing():
    # The runtime always answers the reference class: no proposal survives the replay.
    network = random_relu_network(0, (5, 10, 8, 3))
    centres = torch.rand(20, 5, generator=torch.Generator().manual_seed(0))
    classes = network.evaluate(centres).argmax(dim=1)
    constant = np.array([[1.0, 0.0, 0.0]], dtype=np.float32)
    rows = torch.nonzero(classes == 0).squeeze(1)[:3]
    batch = batch_of(network, centres[rows], classes[rows], lambda x: np.repeat(constant, len(x), axis=0))
    assert len(rows) == 3
    findings = bracketed(METHODS["auto"], batch, [0.2], Budget())
    assert not findings.witnesses
    assert all(b.upper == float("inf") for b in findings.brackets)


def test_a_point_that_only_the_execution_shows_is_reported_apart():
    # Class 0 wins by 1e-3 everywhere; the runtime rounds to halves, so it sees a tie.
    network = chain((1,), Affine(torch.tensor([[1.0], [1.0]]), torch.tensor([1e-3, 0.0])))
    centres = torch.full((1, 1), 0.5)
    batch = batch_of(network, centres, torch.tensor([0]), lambda x: np.round(2 * np.repeat(x, 2, axis=1)) / 2)
    shown = replay(batch, centres)
    assert (bool(shown.executed), bool(shown.real), bool(shown.tie)) == (True, False, True)
    assert own_ties(batch, "attack") == [Answer()]


def test_nan_outputs_are_no_witness():
    batch = random_batch(runtime=lambda x: np.full((len(x), 3), np.nan, dtype=np.float32))
    assert not bool(replay(batch, batch.centres.float()).executed.any())


def test_an_input_that_ties_itself_has_upper_zero():
    # y_0 = y_1 = 0 at x = 0: exact in float and in the enclosure? The enclosure adds slack, so use a clear loss.
    network = chain((1,), Affine(torch.tensor([[1.0], [0.0]]), torch.tensor([-1.0, 0.0])))
    batch = batch_of(network, torch.tensor([[0.5]]), torch.tensor([0]))
    findings = bracketed(METHODS["auto"], batch, [0.1], Budget())
    assert findings.brackets[0].upper == 0.0
    assert findings.brackets[0].lower < 0.0


def test_zero_seconds_leave_everything_open():
    findings = bracketed(METHODS["auto"], random_batch(), [0.01, 0.2], Budget(0.0))
    assert all(b.at(e) is Outcome.OPEN for b in findings.brackets for e in (0.01, 0.2))
    assert not findings.witnesses


@pytest.mark.parametrize("seed", seeds(1, 3))
def test_decide_and_bracket_agree(seed):
    batch = random_batch(seed)
    findings = bracketed(METHODS["auto"], batch, [0.05], Budget())
    decision = decided(METHODS["auto"], batch, batch.region(0.05), Budget())
    for row, bracket in enumerate(findings.brackets):
        assert (bracket.at(0.05) is Outcome.CERTIFIED) == bool(decision.certified[row])
        assert (bracket.at(0.05) is Outcome.FALSIFIED) == (row in decision.witnesses)
