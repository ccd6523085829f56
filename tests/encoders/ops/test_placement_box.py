"""Every draw of resize-and-pad lies in the box of them all, and each end is one of theirs."""

import itertools

import torch

from encoders.box import Box
from encoders.ops import ResizeAndPad
from encoders.ops.placement_box import PlacementBox, placed, width_of


def test_the_box_is_the_hull_of_all_draws() -> None:
    shape = (2, 5, 4)
    op = ResizeAndPad(shape, smallest=3)
    over = op.over_draws(0.0)
    assert isinstance(over, PlacementBox) and over.views() == ("evaluate", "interval", "envelope")
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, *shape, generator=generator, dtype=torch.float64)
    found = over.interval(Box(x - 0.1, x + 0.2))
    values = [
        placed(shape, height, top, left).evaluate(x)
        for height in (3, 4, 5)
        for top, left in itertools.product(range(6 - height), range(5 - width_of(shape, height)))
    ]
    least, greatest = torch.stack(values).amin(dim=0), torch.stack(values).amax(dim=0)
    # A padded pixel is 0 exactly, the others move with the input.
    assert bool((found.lower <= torch.minimum(least, greatest)).all())
    assert bool((found.lower >= torch.minimum(least - 0.1, torch.zeros(()))).all())
    assert bool((found.upper <= torch.maximum(greatest + 0.2, torch.zeros(()))).all())
    for _ in range(200):
        drawn = op.draw(generator).evaluate(x + 0.3 * torch.rand(x.shape, generator=generator).double() - 0.1)
        assert bool(found.contains(drawn).all())
    assert torch.equal(over.evaluate(x), x)
