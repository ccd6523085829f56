"""Units bounded by windows have the bounds that the whole program gives, and hold the exact values."""

import numpy as np
import pytest
import torch

from encoders.box import Box
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


def test_a_map_is_cut_by_positions():
    places = np.array([0, 1, 5, 12, 13, 16])
    groups = windows((2, 3, 4), places)
    assert [places[group].tolist() for group in groups] == [[0, 12], [1, 13], [16], [5]]
    assert [group.tolist() for group in windows((24,), places)] == [list(range(6))]
