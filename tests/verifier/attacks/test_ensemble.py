"""The ensemble: at least as strong as its parts, within its stated budget, and open about vanishing gradients."""

import numpy as np
import pytest
import torch

from encoders.ops import Affine
from tests.networks.chains import chain, random_relu_network
from tests.networks.mwd_chains import random_mwd_network
from tests.networks.searches import random_search, search_of
from tests.networks.staircase import Staircase
from verifier.attacks import ATTACKS
from verifier.attacks.ensemble import Ensemble
from verifier.attacks.report import Report
from verifier.attacks.source import gradient_vanishes
from verifier.budget import Budget
from verifier.data import load_data
from verifier.subject import load_subject

SMALL = Ensemble(steps=20, starts=1, queries=50, blind_queries=100, corners=30)


@pytest.mark.parametrize(("model", "epsilon"), [("digits-relu", 0.08), ("digits-mwd", 0.2), ("digits-conv", 0.08)])
def test_the_ensemble_is_at_least_as_strong_as_every_other_attack(model, epsilon):
    network, data = load_subject(model, device="cpu").network, load_data("digits")
    centres = torch.from_numpy(np.array(data.inputs[:40], dtype=np.float32)).reshape(-1, *network.input_shape)
    labels = torch.from_numpy(np.array(data.labels[:40])).long()
    right = network.scores(centres).argmax(dim=1) == labels
    centres, labels = centres[right], labels[right]
    strongest = ATTACKS["auto"].run(search_of(network, centres, epsilon, labels)).unsafe
    assert 5 < int(strongest.sum()) < len(labels)
    for name in ("fgsm", "ifgsm", "pgd", "apgd", "square", "corners"):
        other = ATTACKS[name].run(search_of(network, centres, epsilon, labels)).unsafe
        assert int(other.sum()) <= int(strongest.sum()), name


@pytest.mark.parametrize("norm", ["inf", "2", "1"])
@pytest.mark.parametrize("make", [random_relu_network, random_mwd_network])
def test_what_an_input_costs_stays_within_the_stated_budget(make, norm):
    network = make(5, (9, 12, 5))
    search = random_search(network, 25, 0.01, norm=norm)
    broken = SMALL.run(search).unsafe
    gradients, queries = SMALL.cost(network)
    assert not bool(broken.all())
    assert int(search.record.gradients.max()) <= gradients
    assert int(search.record.queries.max()) <= queries


def test_broken_inputs_cost_little():
    network = random_relu_network(5, (9, 12, 5))
    search = random_search(network, 40, 0.3)
    broken = SMALL.run(search).unsafe
    easy = broken & (search.record.gradients <= 12)
    assert int(easy.sum()) > 20
    assert int(search.record.queries[easy].max()) == 0


def test_vanishing_gradients_are_reported():
    weight = torch.randn(1, 16, generator=torch.Generator().manual_seed(3))
    ends = (Affine(torch.cat([weight, -weight]), torch.tensor([0.1, -0.1])),)
    flat, plain = chain((16,), Staircase(8), *ends), chain((16,), *ends)
    centres = torch.full((3, 16), 0.55)
    for network, vanishes in ((flat, True), (plain, False)):
        search = search_of(network, centres, 0.3, network.scores(centres).argmax(dim=1))
        found = SMALL.run(search)
        assert found.report is not None and bool(found.report.tested.all())
        assert found.report.vanishing.tolist() == [vanishes] * 3
        # Where gradients vanish the black-box searches still break the inputs.
        assert bool(found.unsafe.all())
    assert not bool(search_of(flat, centres, 0.3, torch.zeros(3).long()).record.tested.any())


def test_a_gradient_vanishes_by_what_it_promises_and_not_by_its_size():
    # y_0 - y_1 = a x + 1: over a radius of .1 it promises .1 |a| of the missing 1 + .5 a.
    for slope, vanishes in ((1.0, False), (0.05, False), (0.005, True), (0.0, True)):
        network = chain((1,), Affine(torch.tensor([[slope], [0.0]]), torch.tensor([1.0, 0.0])))
        x, classes = torch.full((1, 1), 0.5), torch.tensor([0])
        reach = torch.full((1,), 0.1, dtype=torch.float64)
        for scale in (1.0, 1e-6):
            scaled = chain((1,), *(node.op for node in network.nodes), Affine(scale * torch.eye(2), None))
            for norm in ("inf", "2", "1"):
                assert bool(gradient_vanishes(scaled, x, classes, reach, norm)) == vanishes


def test_a_tight_budget_of_time_is_kept():
    network = random_relu_network(5, (9, 64, 64, 5))
    search = random_search(network, 200, 0.01)
    limited = search_of(network, search.region.centre, 0.01, search.classes, seconds=0.05)
    Ensemble(steps=10_000).run(limited)
    # Far less than 10,000 steps: a step of this network takes about a millisecond.
    assert int(limited.record.gradients.max()) < 5_000
    assert limited.budget.exhausted and isinstance(limited.budget, Budget)


def test_parts_of_a_report_write_into_the_whole():
    report = Report.empty(5, torch.device("cpu"))
    part = report.at(torch.tensor([4, 1])).at(torch.tensor([1, 0]))
    part.count_queries(torch.tensor([0, 0, 1]))
    part.count_queries(slice(None), 10)
    part.count_gradients(torch.tensor([1]))
    part.note_gradient(slice(None), torch.tensor([True, False]))
    part.note_gradient(slice(None), torch.tensor([False, True]))
    assert report.queries.tolist() == [0, 12, 0, 0, 11]
    assert report.gradients.tolist() == [0, 0, 0, 0, 1]
    assert report.tested.tolist() == [False, True, False, False, True]
    assert report.vanishing.tolist() == [False, True, False, False, False]
