"""Regions: stored bounds rounded inward, enclosures outward."""

import math
from fractions import Fraction

import pytest
import torch

from encoders import BallRegion, Box


def region_of(centre: list[float], radius: float, domain: tuple[float, float] | None = (0.0, 1.0)) -> BallRegion:
    return BallRegion(torch.tensor([centre], dtype=torch.float64), torch.tensor([radius], dtype=torch.float64), domain)


def test_stored_bounds_lie_in_the_real_ball_and_the_enclosure_contains_it():
    generator = torch.Generator().manual_seed(0)
    centres = torch.rand(200, 3, generator=generator, dtype=torch.float64)
    radii = torch.rand(200, generator=generator, dtype=torch.float64) * 0.3
    region = BallRegion(centres, radii, None)
    box = region.enclosure()
    inexact = 0
    for row in range(200):
        for column in range(3):
            low = Fraction(float(centres[row, column])) - Fraction(float(radii[row]))
            high = Fraction(float(centres[row, column])) + Fraction(float(radii[row]))
            assert Fraction(float(box.lower[row, column])) <= low <= Fraction(float(region.lower[row, column]))
            assert Fraction(float(region.upper[row, column])) <= high <= Fraction(float(box.upper[row, column]))
            inexact += Fraction(float(region.lower[row, column])) != low
    assert inexact > 100  # rounding to nearest would have been wrong about half the time


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_clipped_points_are_inside_whatever_the_dtype(dtype):
    generator = torch.Generator().manual_seed(1)
    centres = torch.rand(300, 4, generator=generator).to(dtype).to(torch.float64)
    region = BallRegion(centres, torch.rand(300, generator=generator, dtype=torch.float64) * 1e-2, (0.0, 1.0))
    points = region.clip(torch.rand(300, 4, generator=generator, dtype=torch.float64) * 2 - 0.5, dtype)
    assert points.dtype == dtype
    assert bool(region.contains(points).all())


def test_a_point_lies_in_the_ball_of_its_own_distance():
    generator = torch.Generator().manual_seed(2)
    centres = torch.rand(500, 5, generator=generator, dtype=torch.float64)
    points = torch.rand(500, 5, generator=generator, dtype=torch.float64)
    region = BallRegion(centres, torch.zeros(500, dtype=torch.float64), (0.0, 1.0))
    distance = region.distance(points)
    assert bool(region.with_radius(distance).contains(points).all())
    assert not bool(region.with_radius(distance * (1 - 1e-12)).contains(points).any())


def test_the_domain_cuts_the_ball():
    region = region_of([0.1, 0.9], 0.3)
    assert region.lower.tolist() == [[0.0, pytest.approx(0.6)]]
    assert region.upper.tolist() == [[pytest.approx(0.4), 1.0]]


@pytest.mark.parametrize(
    ("centre", "radius", "message"),
    [([0.5], -1.0, "not negative"), ([0.5], math.nan, "not negative"), ([1.5], 0.1, "outside the domain"),
     ([math.nan], 0.1, "NaN"), ([0.5], math.inf, "finite")],
)  # fmt: skip
def test_impossible_regions_are_refused(centre, radius, message):
    with pytest.raises(ValueError, match=message):
        region_of(centre, radius)


def squared(centre: torch.Tensor, point: torch.Tensor) -> Fraction:
    return sum(
        ((Fraction(float(a)) - Fraction(float(b))) ** 2 for a, b in zip(centre, point, strict=True)), Fraction(0)
    )


def summed(centre: torch.Tensor, point: torch.Tensor) -> Fraction:
    return sum((abs(Fraction(float(a)) - Fraction(float(b))) for a, b in zip(centre, point, strict=True)), Fraction(0))


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1.0, 1e200])
def test_distances_are_rounded_up_and_tight_in_every_norm(scale):
    generator = torch.Generator().manual_seed(3)
    centres = torch.rand(100, 7, generator=generator, dtype=torch.float64) * scale
    points = torch.rand(100, 7, generator=generator, dtype=torch.float64) * scale
    points[:10] = centres[:10]
    points[10:20, 1:] = centres[10:20, 1:]
    radii = torch.zeros(100, dtype=torch.float64)
    # Each of at most some twenty roundings costs one unit.
    tight = Fraction(1 + 1e-14)
    for norm, power, exactly in (("2", 2, squared), ("1", 1, summed)):
        distances = BallRegion(centres, radii, None, norm).distance(points)
        for row in range(100):
            exact, found = exactly(centres[row], points[row]), Fraction(float(distances[row]))
            assert exact <= found**power <= exact * tight**power


@pytest.mark.parametrize("norm", ["2", "1"])
def test_accepted_points_truly_lie_in_the_ball_of_the_norm(norm):
    # Points on the sphere up to rounding: about half of them lie outside.
    generator = torch.Generator().manual_seed(4)
    centres = torch.rand(400, 5, generator=generator, dtype=torch.float64)
    away = torch.randn(400, 5, generator=generator, dtype=torch.float64)
    away = 0.3 * away / torch.linalg.vector_norm(away, float(norm), dim=1, keepdim=True)
    region = BallRegion(centres, torch.full((400,), 0.3, dtype=torch.float64), None, norm)
    points = centres + away
    accepted, outside = region.contains(points), 0
    for row in range(400):
        inside = summed(centres[row], points[row]) <= Fraction(0.3)
        if norm == "2":
            inside = squared(centres[row], points[row]) <= Fraction(0.3) ** 2
        assert inside or not bool(accepted[row])
        outside += not inside
    assert 50 < outside < 350
    # Twenty roundings up cost less than this.
    assert bool(region.contains(centres + (1 - 1e-14) * away).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("norm", ["2", "1"])
def test_clipped_points_are_inside_in_every_norm(norm, dtype):
    generator = torch.Generator().manual_seed(5)
    centres = torch.rand(300, 9, generator=generator).to(dtype).to(torch.float64)
    radii = torch.rand(300, generator=generator, dtype=torch.float64)
    radii[:20] = 0.0
    region = BallRegion(centres, radii, (0.0, 1.0), norm)
    points = torch.rand(300, 9, generator=generator, dtype=torch.float64) * 2 - 0.5
    clipped = region.clip(points, dtype)
    assert clipped.dtype == dtype
    assert bool(region.contains(clipped).all())
    assert torch.equal(region.clip(clipped, dtype), clipped)
    assert torch.equal(clipped[:20], centres[:20].to(dtype))
    # A point that is pulled in ends near the sphere, or (float16) a rounding of each coordinate short of it.
    if dtype != torch.float16:
        pulled = region.distance(points.clamp(0, 1)) > radii
        assert torch.allclose(region.distance(clipped)[pulled], radii[pulled], atol=2e-6)


@pytest.mark.parametrize("norm", ["inf", "2", "1"])
def test_a_part_and_another_radius_keep_the_norm_and_the_enclosure_holds_the_ball(norm):
    region = BallRegion(
        torch.full((3, 2), 0.5, dtype=torch.float64), torch.full((3,), 0.2, dtype=torch.float64), None, norm
    )
    assert region[1:].norm == region.with_radius(0.1).norm == norm
    box = region.enclosure()
    assert bool((box.lower <= 0.3).all()) and bool((box.upper >= 0.7).all())


def test_a_point_with_nan_or_infinity_is_in_no_ball():
    points = torch.tensor([[math.nan, 0.5], [math.inf, 0.5]], dtype=torch.float64)
    for norm in ("inf", "2", "1"):
        region = BallRegion(
            torch.full((2, 2), 0.5, dtype=torch.float64), torch.ones(2, dtype=torch.float64), None, norm
        )
        assert not bool(region.contains(points).any())


def test_an_unknown_norm_is_refused():
    with pytest.raises(ValueError, match="unknown norm '3'; supported: inf, 2, 1"):
        BallRegion(torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, dtype=torch.float64), None, "3")


def test_a_two_norm_barely_above_its_greatest_coordinate_is_rounded_up():
    # 1 + 1e-18 is no float: the root of the rounded-up sum rounds back to 1, which would be too small.
    region = BallRegion(torch.zeros(1, 2, dtype=torch.float64), torch.ones(1, dtype=torch.float64), None, "2")
    point = torch.tensor([[1.0, 1e-9]], dtype=torch.float64)
    assert float(region.distance(point)) > 1.0
    assert not bool(region.contains(point))
    assert bool(region.contains(torch.tensor([[1.0, 0.0]], dtype=torch.float64)))


def random_box(seed: int, count: int = 6) -> Box:
    """Return a box of sides of all sizes, one of them a point, at places of all sizes."""
    generator = torch.Generator().manual_seed(seed)
    lower = torch.randn(1, count, generator=generator, dtype=torch.float64) * 10.0 ** torch.arange(-2, count - 2)
    width = torch.rand(1, count, generator=generator, dtype=torch.float64) * 10.0 ** -torch.arange(0, count)
    width[0, seed % count] = 0.0
    return Box(lower, lower + width)


@pytest.mark.parametrize("seed", range(20))
def test_a_box_with_bounds_for_each_coordinate_is_a_region_exactly(seed):
    box = random_box(seed)
    region = BallRegion.of_box(box)
    enclosure = region.enclosure()
    for lower, upper in ((region.lower, region.upper), (enclosure.lower, enclosure.upper)):
        assert torch.equal(lower, box.lower)
        assert torch.equal(upper, box.upper)
    corners = torch.cat([box.lower, box.upper])
    assert bool(region[torch.zeros(2, dtype=torch.int64)].contains(corners).all())
    for side in range(box.shape[0]):
        beyond = box.upper.clone()
        beyond[0, side] = torch.nextafter(beyond[0, side], torch.tensor(math.inf, dtype=torch.float64))
        assert not bool(region.contains(beyond))
    wide = torch.nextafter(box.upper - box.lower, torch.tensor(math.inf, dtype=torch.float64)).max()
    assert float(region.radius) <= 0.5001 * float(wide)


@pytest.mark.parametrize("norm", ["inf", "2", "1"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_balls_are_cut_to_a_box_as_to_a_pair(norm, dtype):
    generator = torch.Generator().manual_seed(7)
    centres = torch.rand(50, 4, generator=generator).to(torch.float64)
    radii = torch.rand(50, generator=generator, dtype=torch.float64)
    pair, box = (
        BallRegion(centres, radii, domain, norm)
        for domain in ((0.0, 1.0), Box(torch.zeros(1, 4, dtype=torch.float64), torch.ones(1, 4, dtype=torch.float64)))
    )
    points = torch.rand(50, 4, generator=generator, dtype=torch.float64) * 4 - 2
    for region in (box, box[torch.arange(50)], box.with_radius(box.radius), box.on_processor()):
        assert torch.equal(region.lower, pair.lower) and torch.equal(region.upper, pair.upper)
        assert torch.equal(region.enclosure().lower, pair.enclosure().lower)
        assert torch.equal(region.enclosure().upper, pair.enclosure().upper)
        assert torch.equal(region.clip(points, dtype), pair.clip(points, dtype))
        assert torch.equal(region.contains(points), pair.contains(points))


@pytest.mark.parametrize("seed", range(6))
def test_clipped_points_lie_in_a_box_whose_sides_hold_numbers_of_the_dtype(seed):
    box = random_box(seed)
    narrow = Box(*(end.to(torch.float32).to(torch.float64) for end in (box.lower, box.upper)))
    region = BallRegion.of_box(narrow)
    points = region.clip(torch.full((1, 6), 1e6, dtype=torch.float64), torch.float32)
    assert bool(region.contains(points))
    assert torch.equal(points.to(torch.float64), narrow.upper)


def test_a_box_that_does_not_fit_its_centres_is_refused():
    box = Box(torch.zeros(1, 2, dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64))
    with pytest.raises(ValueError, match="outside the domain"):
        BallRegion(torch.tensor([[0.5, 1.5]], dtype=torch.float64), torch.ones(1, dtype=torch.float64), box)
    with pytest.raises(ValueError, match="one box of"):
        BallRegion(torch.zeros(1, 3, dtype=torch.float64), torch.ones(1, dtype=torch.float64), box)


def scaled_region(seed: int, spread: float) -> BallRegion:
    """Return balls with a scale, all numbers of sizes up to 10^spread apart."""
    generator = torch.Generator().manual_seed(seed)

    def sizes(*shape: int) -> torch.Tensor:
        return torch.exp(spread * 2.302585 * (torch.rand(*shape, generator=generator, dtype=torch.float64) * 2 - 1))

    centre = torch.randn(60, 4, generator=generator, dtype=torch.float64) * sizes(60, 4)
    return BallRegion(centre, sizes(60), None, "inf", sizes(4))


@pytest.mark.parametrize(("seed", "spread"), [(0, 0.5), (1, 8.0), (2, 60.0), (3, 150.0)])
def test_scaled_balls_are_boxes_rounded_inward_and_outward(seed, spread):
    region = scaled_region(seed, spread)
    box = region.enclosure()
    for row in range(60):
        for column in range(4):
            centre, radius = Fraction(float(region.centre[row, column])), Fraction(float(region.radius[row]))
            width = radius * Fraction(float(region.scale[column]))
            assert (
                Fraction(float(box.lower[row, column])) <= centre - width <= Fraction(float(region.lower[row, column]))
            )
            assert (
                Fraction(float(region.upper[row, column])) <= centre + width <= Fraction(float(box.upper[row, column]))
            )


@pytest.mark.parametrize(("seed", "spread"), [(0, 0.5), (1, 8.0), (2, 60.0), (3, 150.0)])
def test_scaled_distances_are_rounded_up_and_decide_with_the_box(seed, spread):
    region = scaled_region(seed, spread)
    generator = torch.Generator().manual_seed(seed + 10)
    share = torch.rand(60, 4, generator=generator, dtype=torch.float64)
    for points in (
        region.lower,
        region.upper,
        region.lower + share * (region.upper - region.lower),
        region.centre * 1.5,
    ):
        distance, inside = region.distance(points).tolist(), region.contains(points).tolist()
        for row in range(60):
            exact = max(
                abs(Fraction(float(points[row, k])) - Fraction(float(region.centre[row, k])))
                / Fraction(float(region.scale[k]))
                for k in range(4)
            )
            assert exact <= distance[row] <= exact * (1 + Fraction(1, 2**49)) + Fraction(5, 2**1074)
            assert not inside[row] or exact <= Fraction(float(region.radius[row]))
    # What the shorter box holds is not measured to lie beyond: else attacks would find nothing on its border.
    assert bool(region.contains(region.lower).all()) and bool(region.contains(region.upper).all())


def test_scaled_balls_without_their_scale_are_the_boxes_around_and_inside():
    region = scaled_region(4, 2.0)
    for plain, box in ((region.unscaled, region.enclosure()), (region.inside, Box(region.lower, region.upper))):
        assert plain.scale is None
        assert torch.equal(plain.lower, box.lower) and torch.equal(plain.enclosure().upper, box.upper)
    plain = region_of([0.1, 0.9], 0.3)
    assert plain.unscaled is plain and plain.inside is plain
    assert region.with_radius(0.0).enclosure().lower.equal(region.centre)
    assert region[:3].scale is region.scale and region.on_processor().scale is not None


@pytest.mark.parametrize(
    ("scale", "norm", "message"),
    [
        ([1.0, 0.0], "inf", "above 0"),
        ([1.0, -1.0], "inf", "above 0"),
        ([1.0, math.nan], "inf", "above 0"),
        ([1.0, math.inf], "inf", "above 0"),
        ([1.0], "inf", "in the shape of an input"),
        ([1.0, 1e300], "inf", "beyond the largest float64"),
        ([1.0, 1.0], "2", "not in the 2-norm"),
    ],
)
def test_what_is_no_scale_is_refused(scale, norm, message):
    arguments = (torch.zeros(1, 2, dtype=torch.float64), torch.tensor([1e10], dtype=torch.float64), None, norm)
    with pytest.raises(ValueError, match=message):
        BallRegion(*arguments, torch.tensor(scale, dtype=torch.float64))
