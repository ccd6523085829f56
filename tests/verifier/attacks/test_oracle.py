"""Black-box searches: they ask only for outputs, stop when an input is broken, and keep their stated budgets."""

import pytest
import torch

from encoders.ops import Affine
from tests.networks.chains import chain, random_relu_network
from tests.networks.searches import random_search, search_of
from verifier.attacks.ball import Ball
from verifier.attacks.corners import Corners
from verifier.attacks.descent import Descent
from verifier.attacks.geometry import lengths
from verifier.attacks.local_search import LocalSearch, SinglePixel, set_pixels
from verifier.attacks.oracle import Picture, ask
from verifier.attacks.square import NARROWEST, Square, _peaks, share_at
from verifier.attacks.steps import Steepest
from verifier.attacks.transfer import Transfer

SEARCHES = [Square(120), Corners(40), LocalSearch(10, candidates=4), SinglePixel(), SinglePixel(at_once=2)]


@pytest.mark.parametrize("attack", SEARCHES, ids=str)
def test_queries_stay_within_the_budget_and_end_with_success(attack):
    network = random_relu_network(3, (16, 20, 4))
    search = random_search(network, 40, 0.15)
    broken = attack.run(search).unsafe
    budget = {Square: 120, Corners: 40, LocalSearch: 1 + 10 * 9, SinglePixel: 32}[type(attack)]
    assert int(search.record.queries.max()) <= budget
    assert int(search.record.gradients.sum()) == 0
    assert 0 < int(broken.sum()) < 40
    spent = search.record.queries.double()
    assert float(spent[broken].mean()) <= float(spent[~broken].mean())


@pytest.mark.parametrize("norm", ["inf", "2"])
@pytest.mark.parametrize("shape", [(3, 6, 5), (16,), (7,), (4, 4)])
def test_square_takes_inputs_of_any_shape(norm, shape):
    count = torch.Size(shape).numel()
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3, count, generator=generator)
    from encoders.ops import Reshape

    network = chain(shape, Reshape((count,)), Affine(weight, torch.zeros(3)))
    search = random_search(network, 10, 0.1, norm=norm)
    found = Square(60).run(search)
    assert bool(search.region.contains(found.points).all())
    # It searches: a random point of the ball lowers the margin less.
    before = ask(search, slice(None), search.region.centre.float().flatten(1))
    after = ask(search, slice(None), found.points.flatten(1))
    assert bool((after < before).all())


def test_square_comes_near_the_optimum_of_a_linear_network():
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(1, 16, generator=generator)
    network = chain((16,), Affine(torch.cat([weight, -weight]), torch.tensor([50.0, -50.0])))
    # In the 2-norm its narrowest window, three wide, keeps it away from the optimum of 16 coordinates.
    for norm, share in (("inf", 0.95), ("2", 0.6)):
        search = random_search(network, 5, 0.1, norm=norm, domain=None)
        points = Square(1500).run(search).points.double()
        moved = -((points - search.region.centre) @ weight[0].double())
        best = 0.1 * torch.linalg.vector_norm(weight[0].double(), 1 if norm == "inf" else 2)
        assert float((moved / best).min()) > share


def test_the_share_of_changed_pixels_halves_as_published():
    # Andriushchenko et al. (2020), appendix B: after 10, 50, 200, ... of 10,000 queries.
    assert share_at(0.8, 0.0) == 0.8
    assert share_at(0.8, 0.0011) == 0.4
    assert share_at(0.8, 0.9) == 0.8 / 512


@pytest.mark.parametrize("sides", [(3, 3), (4, 7), (1, 5), (5, 1), (1, 1)])
def test_peaks_have_length_one_and_opposite_signs(sides):
    peaks = _peaks(*sides)
    assert peaks.shape == sides
    assert float(torch.linalg.vector_norm(peaks)) == pytest.approx(1.0)
    assert sides == (1, 1) or (bool((peaks > 0).any()) and bool((peaks < 0).any()))


def test_windows_lie_in_the_picture_and_have_the_asked_size():
    generator = torch.Generator().manual_seed(2)
    for picture in (Picture(1, 8, 8), Picture(3, 5, 9), Picture(1, 1, 13), Picture(1, 2, 2)):
        for share in (0.8, 0.1, 0.001):
            for least in (1, NARROWEST):
                height, width = picture.window(share, least)
                pixels = picture.indices(torch.rand(200, 2, generator=generator), height, width)
                assert pixels.shape == (200, height * width)
                assert int(pixels.min()) >= 0 and int(pixels.max()) < picture.pixels
                assert bool((pixels.sort(dim=1).values.diff(dim=1) > 0).all())


def test_pictures_of_shapes():
    assert Picture.of((3, 4, 5)) == Picture(3, 4, 5)
    assert Picture.of((4, 5)) == Picture(1, 4, 5)
    assert Picture.of((1, 4, 5)) == Picture(1, 4, 5)
    assert Picture.of((64,)) == Picture.of((64, 1)) == Picture.of((1, 1, 64)) == Picture(1, 8, 8)
    assert Picture.of((65,)) == Picture(1, 1, 65)


@pytest.mark.parametrize("norm", ["inf", "2", "1"])
def test_a_single_pixel_is_the_best_of_all_single_pixels(norm):
    network = random_relu_network(4, (9, 12, 3))
    search = random_search(network, 20, 0.1, norm=norm)
    found = SinglePixel(at_once=4).run(search)
    ball = Ball.of(search.region, torch.float32)
    changed = (found.points != ball.centre).sum(dim=1)
    assert int(changed.max()) == 1
    picture, values = Picture.of((9,)), []
    for pixel in range(9):
        for up in (False, True):
            where, side = torch.full((20, 1), pixel), torch.full((20, 1), up)
            values.append(ask(search, slice(None), ball.project(set_pixels(ball, picture, ball.centre, where, side))))
    best = torch.stack(values).amin(dim=0)
    mine = ask(search, slice(None), found.points)
    assert torch.allclose(mine[best > 0], best[best > 0], atol=1e-5)
    assert torch.equal(mine <= 0, best <= 0)


def test_all_channels_of_a_pixel_change_together():
    picture = Picture(3, 2, 2)
    search = random_search(random_relu_network(0, (12, 4, 3)), 1, 0.1)
    ball = Ball.of(search.region, torch.float32)
    moved = set_pixels(ball, picture, ball.centre, torch.tensor([[2]]), torch.tensor([[True]])) - ball.centre
    assert torch.nonzero(moved[0]).flatten().tolist() == [2, 6, 10]


def test_local_search_lowers_the_margin_pixel_by_pixel_to_the_optimum_of_a_linear_network():
    generator = torch.Generator().manual_seed(5)
    weight = torch.randn(1, 12, generator=generator)
    network = chain((12,), Affine(torch.cat([weight, -weight]), torch.tensor([50.0, -50.0])))
    search = random_search(network, 5, 0.1, domain=None)
    points = LocalSearch(rounds=60).run(search).points.double()
    moved = -((points - search.region.centre) @ weight[0].double())
    assert moved.tolist() == pytest.approx([0.1 * float(weight.abs().sum())] * 5, rel=1e-4)


@pytest.mark.parametrize("norm", ["inf", "2", "1"])
def test_corners_are_extreme_points(norm):
    network = random_relu_network(6, (8, 10, 3))
    search = random_search(network, 10, 0.1, norm=norm, domain=None)
    points = Corners(3).run(search).points.double()
    assert torch.allclose(lengths(points - search.region.centre, norm), search.region.radius, rtol=1e-4)
    if norm == "inf":
        assert bool(((points == search.region.lower) | (points == search.region.upper) | (
            (points - search.region.centre).abs() > 0.1 - 1e-6)).all())  # fmt: skip


def test_transfer_asks_the_surrogate_and_never_the_network():
    network, surrogate = random_relu_network(7, (8, 16, 4)), random_relu_network(7, (8, 16, 4))
    search = random_search(network, 30, 0.3)
    attack = Descent(10, Steepest(0.2))
    found = Transfer(surrogate, attack).run(search)
    assert int(search.record.queries.sum() + search.record.gradients.sum()) == 0
    # The surrogate is the network: what breaks one breaks the other.
    assert torch.equal(found.unsafe, attack.run(random_search(network, 30, 0.3)).unsafe)
    other = Transfer(random_relu_network(8, (8, 16, 4)), attack).run(random_search(network, 30, 0.3))
    assert int(other.unsafe.sum()) <= int(found.unsafe.sum())


def test_a_surrogate_of_another_shape_is_refused():
    search = random_search(random_relu_network(7, (8, 16, 4)), 3, 0.3)
    with pytest.raises(ValueError, match=r"surrogate's output shape is \(3,\), the network's \(4,\)"):
        Transfer(random_relu_network(7, (8, 16, 3)), Corners()).run(search)
    with pytest.raises(ValueError, match=r"surrogate's input shape is \(9,\)"):
        Transfer(random_relu_network(7, (9, 16, 4)), Corners()).run(search)


def test_black_box_searches_find_what_a_hidden_gradient_hides():
    # A staircase has gradient 0 almost everywhere: descents from the centre stand still, searches do not.
    from tests.networks.staircase import Staircase

    weight = torch.randn(1, 16, generator=torch.Generator().manual_seed(3))
    network = chain((16,), Staircase(8), Affine(torch.cat([weight, -weight]), torch.tensor([0.1, -0.1])))
    centres = torch.full((1, 16), 0.55)
    classes = network.scores(centres).argmax(dim=1)
    assert not bool(Descent(10, Steepest(0.2)).run(search_of(network, centres, 0.3, classes)).unsafe.any())
    for attack in (Square(200), Corners(200), LocalSearch()):
        assert bool(attack.run(search_of(network, centres, 0.3, classes)).unsafe.any()), attack
