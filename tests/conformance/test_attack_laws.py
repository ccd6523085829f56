"""The law of every attack: inside ball and domain, a true mask, the same whatever the grouping, honest counts."""

import dataclasses

import pytest
import torch

from encoders import BallRegion, Box
from encoders.ops import Affine
from tests.networks.chains import chain, random_relu_network
from tests.networks.mwd_chains import random_mwd_network
from tests.networks.searches import random_search, search_of
from verifier.attacks import ATTACKS, Attack
from verifier.attacks.criteria import margins
from verifier.attacks.source import Source

# Every attack in every norm it declares.
CASES = [(name, norm) for name, attack in ATTACKS.items() for norm in attack.norms]
# Settings cut for the laws, which hold for any.
FEW = {
    "pgd": {"restarts": 2},
    "pgd-adadelta": {"steps": 40, "restarts": 2},
    "square": {"queries": 150},
    "auto": {"queries": 60, "blind_queries": 60, "steps": 20, "starts": 1},
    "lbfgs": {"steps": 4, "targets": 1, "segment_steps": 2},
    "cw": {"searches": 3, "steps": 30},
    "cw-l0": {"searches": 2, "steps": 30, "rounds": 4},
    "fab": {"restarts": 1},
    "pdpgd": {"steps": 60},
    "sigma-zero": {"steps": 60},
}
# A ball of these radii breaks some of the inputs below and not all.
RADII = {"inf": 0.2, "2": 0.35, "1": 0.6}
# Those that change few coordinates: the nearest or the worst point of a ball is not among theirs.
NOT_OPTIMAL = {"single-pixel", "cw-l0", "sigma-zero", "jsma"}


def quick(name: str) -> Attack:
    return dataclasses.replace(ATTACKS[name], **FEW.get(name, {}))


@pytest.mark.parametrize("name", [name for name, norm in CASES if norm == "inf" and name not in NOT_OPTIMAL])
def test_every_attack_finds_the_optimum_of_a_linear_network(name):
    # y_0 - y_1 = 2 x_0 - x_1 - .25 from (.5, .5): the least value in the ball is .25 - 3 e, so rho = 1/12.
    network = chain((2,), Affine(torch.tensor([[1.0, -1.0], [-1.0, 0.0]]), torch.tensor([0.0, 0.25])))
    centres, classes = torch.full((1, 2), 0.5), torch.tensor([0])
    assert not bool(ATTACKS[name].run(search_of(network, centres, 1 / 12 - 1e-4, classes)).unsafe)
    found = ATTACKS[name].run(search_of(network, centres, 1 / 12 + 1e-4, classes))
    assert bool(found.unsafe)
    assert found.points[0].tolist() == pytest.approx([0.5 - 1 / 12, 0.5 + 1 / 12], abs=2e-4)


@pytest.mark.parametrize(("name", "norm"), CASES)
@pytest.mark.parametrize("make", [random_relu_network, random_mwd_network])
def test_proposals_lie_in_the_ball_and_the_reported_mask_is_true(name, norm, make):
    network = make(4, (6, 12, 10, 4))
    search = random_search(network, 8 if ATTACKS[name].minimal else 25, RADII[norm], norm=norm)
    found = quick(name).run(search)
    assert found.points.dtype == torch.float32
    assert bool(search.region.contains(found.points).all())
    assert bool(((found.points >= 0) & (found.points <= 1)).all())
    assert torch.equal(found.unsafe, margins(network.scores(found.points), search.classes) <= 0)
    assert bool(found.unsafe.any())


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_a_zero_radius_finds_the_centre_and_a_missing_domain_does_no_harm(name, norm):
    network = random_relu_network(6, (6, 8, 3))
    search = random_search(network, 4, 0.0, norm=norm)
    found = quick(name).run(search)
    assert torch.equal(found.points.double(), search.region.centre)
    assert not bool(found.unsafe.any())
    search = random_search(network, 4, 0.5, norm=norm, domain=None)
    assert bool(search.region.contains(quick(name).run(search).points).all())


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_proposals_lie_in_a_box_with_bounds_for_each_coordinate(name, norm):
    network = random_relu_network(4, (6, 12, 10, 4))
    search = random_search(network, 6, RADII[norm], norm=norm)
    centre = search.region.centre
    lower, upper = centre.amin(dim=0, keepdim=True) - 0.01, centre.amax(dim=0, keepdim=True) + 0.3
    # One coordinate has no room at all.
    centre[:, 2] = lower[:, 2] = upper[:, 2] = 0.5
    region = BallRegion(centre, search.region.radius, Box(lower, upper), norm)
    found = quick(name).run(dataclasses.replace(search, region=region))
    assert bool(region.contains(found.points).all())
    assert bool((found.points[:, 2] == 0.5).all())
    assert torch.equal(found.unsafe, margins(network.scores(found.points), search.classes) <= 0)


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_results_do_not_depend_on_the_grouping_of_inputs(name, norm):
    # In float64, where products of one row and of many rows differ too little to matter.
    network = random_relu_network(3, (6, 12, 10, 4))
    network = dataclasses.replace(network.cast(torch.float64), dtype=torch.float64)
    generator = torch.Generator().manual_seed(3)
    centres = torch.rand(4, 6, generator=generator, dtype=torch.float64)
    search = search_of(network, centres, RADII[norm] / 2, network.scores(centres).argmax(dim=1), norm=norm)
    together = quick(name).run(search)
    for row in range(4):
        alone = quick(name).run(search.at(torch.tensor([row])))
        assert bool(alone.unsafe) == bool(together.unsafe[row])
        assert torch.allclose(alone.points[0], together.points[row], atol=1e-9)


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_declares_whether_it_differentiates_and_counts_what_it_asks(name, monkeypatch):
    network, evaluations = random_relu_network(7, (6, 12, 4)), []
    scores = type(network).scores

    def counted(self, x, *gradients):
        evaluations.append(len(x))
        return scores(self, x, *gradients)

    def refused(*_, **__):
        raise AssertionError("a gradient was taken")

    search = random_search(network, 20, 0.1, norm=ATTACKS[name].norms[0])
    monkeypatch.setattr(type(network), "scores", counted)
    if not ATTACKS[name].needs_gradient:
        monkeypatch.setattr(torch.autograd, "grad", refused)
        monkeypatch.setattr(torch.Tensor, "backward", refused)
        monkeypatch.setattr(torch.Tensor, "requires_grad_", refused)
    found = quick(name).run(search)
    # The base class looks once more at every point, and the ensemble at every stage's.
    counted_here = int((search.record.queries + search.record.gradients).sum())
    assert counted_here <= sum(evaluations) - 20
    if name != "auto":
        assert counted_here == sum(evaluations) - 20
    assert (int(search.record.gradients.sum()) > 0) == ATTACKS[name].needs_gradient
    assert found.report is search.report


@pytest.mark.parametrize("name", ATTACKS)
def test_no_time_means_no_attack(name):
    search = random_search(random_relu_network(4), 5, 0.9, norm=ATTACKS[name].norms[0], seconds=0.0)
    assert torch.equal(quick(name).run(search).points.double(), search.region.centre)


@pytest.mark.parametrize("name", ATTACKS)
def test_no_inputs_are_no_error(name):
    network = random_relu_network(4)
    norm, nothing = ATTACKS[name].norms[0], torch.zeros(0, dtype=torch.int64)
    search = search_of(network, torch.zeros(0, 2), 0.1, nothing, norm=norm)
    assert quick(name).run(search).points.shape == (0, 2)


@pytest.mark.parametrize("name", [name for name in ATTACKS if name not in NOT_OPTIMAL])
def test_a_search_with_targets_is_content_with_nothing_else(name):
    network = random_relu_network(8, (6, 12, 4))
    search = random_search(network, 30, 0.4, norm=ATTACKS[name].norms[0])
    targets = (search.classes + 1) % 4
    search = dataclasses.replace(search, targets=targets, report=None)
    found = quick(name).run(search)
    scores = network.scores(found.points)
    assert bool((scores.gather(1, targets[:, None]).squeeze(1) >= scores.amax(dim=1))[found.unsafe].all())
    assert bool(found.unsafe.any())


def test_an_attack_cannot_misreport():
    class Liar(Attack):
        def propose(self, search):
            return search.region.centre + 100.0

    search = random_search(random_relu_network(2), 10, 0.01)
    assert bool(search.region.contains(Liar().run(search).points).all())


def test_a_norm_that_an_attack_does_not_support_is_refused():
    class OnlyBoxes(Attack):
        def propose(self, search):
            raise AssertionError("not reached")

    search = random_search(random_relu_network(2), 3, 0.1, norm="2")
    with pytest.raises(ValueError, match="OnlyBoxes does not support the 2-norm; it supports: inf"):
        OnlyBoxes().run(search)


def test_the_pseudogradient_source_has_the_same_scores_and_other_gradients():
    network = random_mwd_network(5, (6, 12, 10, 4))
    x = torch.rand(20, 6, generator=torch.Generator().manual_seed(5), dtype=torch.float64, requires_grad=True)
    true, pseudo = Source(network).scores(x), Source(network, pseudo=True).scores(x)
    assert torch.allclose(true, pseudo, atol=1e-12)
    gradients = [torch.autograd.grad(scores[:, 0].sum(), x)[0] for scores in (true, pseudo)]
    reached = [int((g != 0).sum()) for g in gradients]
    assert reached[1] > reached[0]
