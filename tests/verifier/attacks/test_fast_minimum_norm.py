"""FMN, DDN and PDPGD: exact on linear networks, close to the nearest point known elsewhere, in their domain."""

import math

import pytest
import torch

from encoders.ops import Affine, Relu
from tests.networks.chains import chain, random_relu_network
from tests.networks.mwd_chains import random_mwd_network
from tests.networks.searches import best_length, digits_search, length, random_search, search_of
from verifier.attacks import ATTACKS
from verifier.attacks.decoupled_norm import DecoupledNorm
from verifier.attacks.fast_minimum_norm import FastMinimumNorm, Walk
from verifier.attacks.nearest import Nearest
from verifier.attacks.primal_dual import PrimalDual, proximal_point

NORMS = ("inf", "2", "1")
PAIRS = [(name, norm) for name in ("fmn", "ddn", "pdpgd") for norm in ATTACKS[name].norms]
# The last projection overshoots by 2e-4; the rest is float32.
SEGMENT_TOLERANCE = 1e-3


@pytest.mark.parametrize(("name", "norm"), PAIRS)
def test_they_are_exact_on_linear_networks_even_where_the_domain_binds(name, norm):
    # Margin <g, x - .5> + m with g = (3, -1, .5): the first coordinate may move by .05 only.
    g, m = torch.tensor([3.0, -1.0, 0.5]), 0.4
    centre = torch.tensor([[0.05, 0.5, 0.5]])
    network = chain((3,), Affine(torch.stack([g, torch.zeros(3)]), torch.tensor([m - float(g @ centre[0]), 0.0])))
    found = ATTACKS[name].run(search_of(network, centre, 5.0, torch.tensor([0]), norm=norm))
    below, above = centre[0].double().numpy(), 1 - centre[0].double().numpy()
    assert bool(found.unsafe[0])
    expected = best_length(g.double().numpy(), m, below, above, norm)
    assert length((found.points - centre)[0], norm) == pytest.approx(expected, rel=SEGMENT_TOLERANCE)
    assert float(found.points.min()) >= 0 and float(found.points.max()) <= 1


@pytest.mark.parametrize("attack", [
    FastMinimumNorm(projections=0, segment_steps=0), PrimalDual(steps=400, projections=0, segment_steps=0),
])  # fmt: skip
@pytest.mark.parametrize("norm", NORMS)
def test_the_published_searches_come_near_the_least_distance_by_themselves(attack, norm):
    g, m = torch.tensor([1.0, -1.0, 0.5, 0.1]), 0.3
    centre = torch.full((1, 4), 0.5)
    network = chain((4,), Affine(torch.stack([g, torch.zeros(4)]), torch.tensor([m - float(g @ centre[0]), 0.0])))
    found = attack.run(search_of(network, centre, 5.0, torch.tensor([0]), norm=norm))
    dual = {"inf": 2.6, "2": math.sqrt(2.26), "1": 1.0}[norm]
    assert bool(found.unsafe[0])
    # By steps of at least a thousandth of the domain.
    assert m / dual - 1e-6 <= length((found.points - centre)[0], norm) <= 1.05 * m / dual


@pytest.mark.parametrize(("name", "norm"), PAIRS)
def test_they_break_all_digits_about_as_near_as_deepfool_and_with_a_stated_number_of_gradients(name, norm):
    search = digits_search("digits-relu", norm, 20)
    found, other = ATTACKS[name].run(search), ATTACKS["deepfool"].run(digits_search("digits-relu", norm, 20))
    assert bool(found.unsafe.all())
    ratio = [length((a - c).double(), norm) / length((b - c).double(), norm)
             for a, b, c in zip(found.points, other.points, search.region.centre, strict=True)]  # fmt: skip
    # The first deviates from the nearest point by 0.1 to 4 % in the mean, DeepFool by 3 to 9 %.
    assert math.exp(sum(map(math.log, ratio)) / len(ratio)) < 1.02
    assert int(search.record.gradients.max()) <= 300 + 3 * 30 + 2


@pytest.mark.parametrize(("name", "norm"), PAIRS)
def test_targets_are_reached_and_domains_without_ends_are_searched(name, norm):
    network = random_relu_network(3, (6, 10, 4))
    free = random_search(network, 6, 50.0, norm=norm, domain=None)
    assert bool(ATTACKS[name].run(free).unsafe.any())
    targets = (free.classes + 1) % 4
    aimed = search_of(network, free.region.centre, 50.0, free.classes, norm=norm, domain=None, targets=targets)
    found = ATTACKS[name].run(aimed)
    assert bool(found.unsafe.any())
    scores = network.scores(found.points)
    reached = scores.gather(1, targets[:, None])[:, 0] >= scores.amax(dim=1)
    assert bool(reached[found.unsafe].all())


@pytest.mark.parametrize("name", ["fmn", "ddn", "pdpgd"])
def test_where_true_gradients_are_masked_pseudogradients_are_followed(name):
    search = random_search(random_mwd_network(5, (9, 12, 5)), 10, 5.0, norm="2")
    assert bool(ATTACKS[name].run(search).unsafe.any())


def test_the_radius_of_fmn_follows_its_cases():
    # gamma = .05. Beyond the boundary at .5 + .3; shrunk to .38, to the least met, to the boundary at .39 - .1, to a
    # half; grown.
    walk = Walk(torch.arange(6), torch.zeros(6, 1), None)
    walk.epsilon = torch.tensor([math.inf, 0.4, 0.4, 0.4, 0.4, 0.4])
    walk.met = torch.tensor([math.inf, math.inf, math.inf, math.inf, math.inf, 0.45])
    away = torch.tensor([[0.5], [0.39], [0.3], [0.39], [0.39], [0.4]])
    unsafe = torch.tensor([False, True, True, True, True, False])
    boundary = torch.tensor([0.3, 0.005, 0.0, 0.1, 0.3, 0.3])
    FastMinimumNorm().resize(walk, away, unsafe, boundary, 1.0, "2")
    assert walk.epsilon.tolist() == pytest.approx([1.05 * 0.8, 0.38, 0.3, 0.29, 0.2, 0.42])
    assert walk.met.tolist() == pytest.approx([math.inf, 0.39, 0.3, 0.39, 0.39, 0.45])


def test_a_step_into_a_flat_place_is_taken_back():
    # Margin 1 - 2 relu(x) + 2 relu(x - .3), flat at .4 from .3 on, and 9 (x - .9) less beyond .9; the step is 1 long.
    first = Affine(torch.ones(3, 1), torch.tensor([0.0, -0.3, -0.9]))
    last = Affine(torch.tensor([[-2.0, 2.0, -9.0], [0.0, 0.0, 0.0]]), torch.tensor([1.0, 0.0]))
    network = chain((1,), first, Relu(), last)
    search = search_of(network, torch.zeros(1, 1), 5.0, torch.tensor([0]), norm="2")
    found = FastMinimumNorm().run(search)
    assert bool(found.unsafe[0]) and float(found.points) == pytest.approx(0.9 + 0.4 / 9, rel=SEGMENT_TOLERANCE)


def test_the_sphere_of_ddn_shrinks_on_success_and_points_lie_on_it():
    walk = Walk(torch.arange(3), torch.zeros(3, 2), None)
    walk.epsilon, walk.unit = torch.tensor([math.inf, 0.4, 0.4]), torch.full((3,), 2.0)
    attack, unsafe = DecoupledNorm(), torch.tensor([False, True, False])
    attack.resize(walk, torch.zeros(3, 2), unsafe, torch.ones(3), 1.0, "2")
    assert walk.epsilon.tolist() == pytest.approx([2.1, 0.38, 0.42])
    network = chain((2,), Affine(torch.eye(2), torch.zeros(2)))
    nearest = Nearest(search_of(network, torch.full((3, 2), 0.5), 1.0, torch.zeros(3, dtype=torch.int64), norm="2"))
    placed = attack.place(nearest, nearest.centre, torch.tensor([[3.0, 4.0]] * 3), walk.epsilon)
    assert placed[0].tolist() == pytest.approx([2.1 * 0.6, 2.1 * 0.8])


@pytest.mark.parametrize("norm", NORMS)
def test_proximal_points_are_minima(norm):
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(50, 5, generator=generator, dtype=torch.float64)
    weight = 2 * torch.rand(50, generator=generator, dtype=torch.float64)

    def objective(z):
        return weight * torch.linalg.vector_norm(z, float(norm), dim=1) + (z - v).square().sum(dim=1) / 2

    z = proximal_point(v, weight, norm)
    assert bool((z == 0).all(dim=1).any()) and bool((z != 0).any())
    for size in (1e-4, 1e-2, 1.0):
        for _ in range(50):
            other = z + size * torch.randn(50, 5, generator=generator, dtype=torch.float64)
            assert bool((objective(z) <= objective(other) + 1e-12).all())
