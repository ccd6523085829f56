"""A point that is unsafe only by rounding ends no search: what lies behind it is found, and what does not is kept."""

import math

import numpy as np
import pytest
import torch

from encoders.ops import AddConstant, Affine, Relu
from tests.answers import decided
from tests.networks.batches import batch_of
from tests.networks.chains import chain
from tests.networks.searches import search_of
from verifier.answers import Answer, Witness
from verifier.attacks import ATTACKS
from verifier.attacks.criteria import shortfalls
from verifier.attacks.descent import Descent
from verifier.attacks.steps import Steepest
from verifier.budget import Budget
from verifier.methods.crown import CrownMethod
from verifier.methods.exact import ExactMethod
from verifier.methods.falsify import FalsifyMethod
from verifier.witnesses.pursuit import ROUNDS, pursue, rounding_margin

# y_0 - y_1 of the step below is 2^-40 for x <= .8, far below float32 there, and negative beyond.
GAP = 2.0**-40


def rounded_step(beyond: float = 0.8):
    """Return a network whose margin is GAP up to `beyond` and then falls; in float32 all of that is a tie.

    y_0 = 1 + GAP and y_1 = 1 + relu(x - beyond), the 1 added last.
    """
    weight = torch.tensor([[0.0], [1.0]])
    first = Affine(weight, torch.tensor([GAP, -beyond]))
    return chain((1,), first, Relu(), AddConstant(torch.ones(2)))


def method(name: str) -> FalsifyMethod:
    return FalsifyMethod(name, [ATTACKS[name]])


@pytest.mark.parametrize("name", ["pgd", "ifgsm", "apgd", "corners", "square", "auto", "fab", "cw"])
def test_a_search_goes_on_behind_a_point_that_is_unsafe_by_rounding_only(name):
    network = rounded_step()
    batch = batch_of(network, torch.full((2, 1), 0.7), torch.tensor([0, 0]))
    # In the arithmetic of the search the inputs themselves are unsafe already.
    assert bool((shortfalls(network.scores(batch.centres.float()), batch.classes) <= 0).all())
    decision = decided(method(name), batch, batch.region(0.2), Budget())
    assert set(decision.witnesses) == {0, 1}
    assert all(float(witness.point) > 0.8 for witness in decision.witnesses.values())


@pytest.mark.parametrize("name", ["pgd", "auto", "fab"])
def test_what_is_unsafe_by_rounding_only_is_kept_as_that(name):
    batch = batch_of(rounded_step(), torch.full((1, 1), 0.5), torch.tensor([0]))
    decision = decided(method(name), batch, batch.region(0.2), Budget())
    assert not decision.witnesses and set(decision.execution_only) == {0}


def coarse_line(x):
    """Return .75 - x, as float32 with 22 bits would round it up, and half of that more, against 0."""
    return np.concatenate([np.ceil((0.75 - x.astype(float)) * 2**22) / 2**22 + 2.0**-23, 0 * x], axis=1)


@pytest.mark.parametrize("name", ["fab", "deepfool"])
def test_a_model_that_rounds_worse_than_its_graph_is_followed_too(name):
    # Attacks that end on the boundary of the graph, where class 0 still wins in the model.
    network = chain((1,), Affine(torch.tensor([[-1.0], [0.0]]), torch.tensor([0.75, 0.0])))
    batch = batch_of(network, torch.full((2, 1), 0.7), torch.tensor([0, 0]), coarse_line)
    assert set(decided(method(name), batch, batch.region(0.1), Budget()).witnesses) == {0, 1}


def test_points_between_the_boundary_and_the_margin_are_second_best_and_are_proposed():
    network = chain((1,), Affine(torch.tensor([[-1.0], [0.0]]), torch.tensor([0.6, 0.0])))
    # The margin is .6 - x, so least at .7: unsafe by .1. Asked for by .05 and by .5.
    for slack in (0.05, 0.5):
        search = search_of(network, torch.full((1, 1), 0.5), 0.2, torch.tensor([0]))
        object.__setattr__(search, "slack", torch.tensor([slack], dtype=torch.float64))
        found = Descent(20, Steepest(0.25), restarts=2).run(search)
        assert bool(found.unsafe[0])
        assert float(found.points) >= 0.6 + min(slack, 0.099)


def test_an_attack_that_is_confirmed_at_once_runs_once():
    runs = []

    class Counted(type(ATTACKS["pgd"])):
        def run(self, search):
            runs.append(search.slack)
            return super().run(search)

    network = chain((1,), Affine(torch.tensor([[-1.0], [0.0]]), torch.tensor([0.6, 0.0])))
    batch = batch_of(network, torch.full((2, 1), 0.5), torch.tensor([0, 0]))
    attack = Counted(10, Steepest(0.25))
    assert len(decided(FalsifyMethod("pgd", [attack]), batch, batch.region(0.2), Budget()).witnesses) == 2
    assert runs == [None]
    runs.clear()
    batch = batch_of(rounded_step(), torch.full((1, 1), 0.5), torch.tensor([0]))
    decided(FalsifyMethod("pgd", [attack]), batch, batch.region(0.2), Budget())
    assert runs[0] is None and len(runs) == 1 + len(ROUNDS)
    assert float(runs[1]) < float(runs[2])


def test_points_of_later_rounds_are_confirmed_as_those_of_their_own_inputs():
    # Margins x - .6 and .6 - x: each input has the class that the other's points have.
    network = chain((1,), Affine(torch.tensor([[1.0], [0.0]]), torch.tensor([-0.6, 0.0])))
    search = search_of(network, torch.tensor([[0.7], [0.5]]), 0.2, torch.tensor([0, 1]))
    asked: list[tuple[list[int], list[float]]] = []

    def confirm(rows, points):
        asked.append((rows.tolist(), points.flatten().tolist()))
        first = len(asked) == 1
        return [Answer() if first and row == 1 else broken(points[i]) for i, row in enumerate(rows.tolist())]

    answers = pursue(ATTACKS["pgd"], search, confirm)
    assert [rows for rows, _ in asked] == [[0, 1], [1]]
    assert asked[1][1][0] > 0.6
    assert all(answer.witness is not None for answer in answers)


def broken(point):
    return Answer.broken(Witness(point, 0.1, False), "attack")


def test_the_rounding_margin_covers_what_is_seen():
    network = rounded_step()
    search = search_of(network, torch.full((1, 1), 0.5), 0.2, torch.tensor([0]))
    bounds, missing = rounding_margin(search, torch.full((1, 1), 0.5))
    assert float(missing) == 0.0 and float(bounds) > GAP
    assert math.isclose(float(bounds), 8 * GAP + 16 * 2.0**-23, rel_tol=1e-6)


def test_no_inputs_are_no_error():
    search = search_of(rounded_step(), torch.zeros(0, 1), 0.2, torch.zeros(0, dtype=torch.int64))
    assert pursue(ATTACKS["pgd"], search, lambda hits, points: []) == []


@pytest.mark.parametrize("make", [ExactMethod, lambda: CrownMethod("crown")])
def test_minimisers_and_descents_of_provers_go_on_as_well(make):
    batch = batch_of(rounded_step(), torch.full((1, 1), 0.7), torch.tensor([0]))
    decision = decided(make(), batch, batch.region(0.2), Budget())
    assert set(decision.witnesses) == {0} and not bool(decision.certified[0])
