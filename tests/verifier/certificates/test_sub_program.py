"""Units bounded by windows have the bounds that the whole program gives, and hold the exact values."""

import numpy as np
import pytest
import torch

from encoders.box import Box
from encoders.network import INPUT, Network, Node
from encoders.ops import Add, Affine, Relu
from tests.networks.hinge_graphs import hinge_networks, odd_network
from tests.networks.random_boxes import box_of, points_of
from tests.oracles.node_values import exact_values
from tests.seeds import seeds
from verifier.certificates import split_program
from verifier.certificates.split_program import SplitProgram
from verifier.certificates.sub_program import windows

# The same sums in another order, and fewer roundings counted.
ROUNDING = 1e-11


def tight_boxes(network, box: Box) -> dict[str, Box]:
    program = SplitProgram(network, box)
    while (name := program.advance()) is not None:
        program.tighten_open_units(name)
    return program.boxes


@pytest.mark.parametrize("seed", seeds(10, 60))
def test_windows_give_the_boxes_of_the_whole(seed, monkeypatch):
    for network in (hinge_networks(60)[seed], odd_network(seed)):
        box = box_of(network, np.random.default_rng(seed))
        whole = tight_boxes(network, box)
        monkeypatch.setattr(split_program, "PART_ENTRIES", 1)
        parts = tight_boxes(network, box)
        monkeypatch.undo()
        for name, found in parts.items():
            size = 1.0 + float(torch.stack([whole[name].lower, whole[name].upper]).abs().max())
            assert (found.lower - whole[name].lower).abs().max() <= ROUNDING * size
            assert (found.upper - whole[name].upper).abs().max() <= ROUNDING * size
        for point in points_of(box, np.random.default_rng(seed), 2):
            for name, values in exact_values(SplitProgram(network, box).network, point).items():
                ends = (end.flatten().tolist() for end in (parts[name].lower, parts[name].upper))
                assert all(
                    low <= value <= high for low, value, high in zip(next(ends), values, next(ends), strict=True)
                )


@pytest.mark.parametrize("seed", seeds(20, 120))
def test_a_unit_may_need_more_of_what_a_hinge_reads_than_of_the_hinge(seed, monkeypatch):
    generator = np.random.default_rng(seed)
    for network in (hinge_networks(120)[seed], odd_network(seed), skipping_network(seed)):
        box = box_of(network, generator)
        whole, parts = SplitProgram(network, box), SplitProgram(network, box)
        while (name := whole.advance()) is not None:
            assert parts.advance() == name
            places = whole.open_units(name)
            # Of some units at a time, as windows bound them.
            for place in generator.permutation(places):
                parts.tighten(name, np.array([place]), np.full((2, parts.units), 0.5))
            if len(places):
                bound_by_whole_rows(whole, name, places)
            size = 1.0 + float(np.abs(whole.reach(name)).max())
            for end in ("lower", "upper"):
                found, right = getattr(parts.boxes[name], end), getattr(whole.boxes[name], end)
                assert (found - right).abs().max() <= ROUNDING * size


def bound_by_whole_rows(program: SplitProgram, name: str, places: np.ndarray) -> None:
    """Meet the box with bounds of units by the rows of all of the program, all slopes a half."""
    box, count = program.boxes[name], len(places)
    lower, upper = (end.flatten(1).clone() for end in (box.lower.unsqueeze(-1), box.upper.unsqueeze(-1)))
    rows = np.zeros((2 * count, lower.shape[1]))
    rows[np.arange(count), places], rows[np.arange(count) + count, places] = 1.0, -1.0
    bounds = torch.from_numpy(program.bounds(name, rows, None, np.full((2 * count, program.units), 0.5), None))
    lower[0, places] = torch.maximum(lower[0, places], bounds[:count])
    upper[0, places] = torch.minimum(upper[0, places], -bounds[count:])
    program.boxes[name] = Box(lower.reshape(box.lower.shape), upper.reshape(box.upper.shape))


def skipping_network(seed: int) -> Network:
    """Return a network whose second hinge reads one unit of the first, and all that this reads."""
    generator = torch.Generator().manual_seed(seed)
    n = 2 + seed % 3
    weight, skip = (torch.randn(k, n, generator=generator, dtype=torch.float64) for k in (n, 1))
    one = torch.zeros(1, n, dtype=torch.float64)
    one[0, seed % n] = 3.0
    zero = torch.zeros(1, dtype=torch.float64)
    nodes = (
        Node("z", Affine(weight, torch.zeros(n, dtype=torch.float64)), (INPUT,)), Node("y", Relu(), ("z",)),
        Node("u", Affine(one, zero), ("y",)), Node("v", Affine(skip, zero), ("z",)),
        Node("s", Add(), ("u", "v")), Node("t", Relu(), ("s",)),
    )  # fmt: skip
    return Network(nodes, (n,), torch.float64)


def test_a_map_is_cut_by_positions():
    places = np.array([0, 1, 5, 12, 13, 16])
    groups = windows((2, 3, 4), places)
    assert [places[group].tolist() for group in groups] == [[0, 12], [1, 13], [16], [5]]
    assert [group.tolist() for group in windows((24,), places)] == [list(range(6))]
