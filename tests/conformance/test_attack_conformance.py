"""What no attack stumbles over: inputs unsafe from the start, one or no input, flat and constant networks, overflow."""

import dataclasses

import pytest
import torch

from encoders.ops import Affine, Conv2d, GlobalAveragePool, MultiplyConstant, Relu, Reshape
from tests.networks.chains import chain
from tests.networks.searches import search_of
from verifier.attacks import ATTACKS
from verifier.attacks.criteria import shortfalls


def rows_of(*weights: float) -> Affine:
    """Return an affine layer of one pixel's weights, the same for all four pixels."""
    return Affine(torch.tensor([[w] * 4 for w in weights]))


def dead() -> list:
    """Return ops whose outputs, and gradients, are 0 on [0, 1]^4, and far beyond."""
    return [Conv2d(-torch.ones(3, 1, 2, 2), -torch.arange(1.0, 4.0)), Relu(), GlobalAveragePool(1, keep_axes=False)]


NETWORKS = {
    "tied": chain((4,), rows_of(1.0, 1.0, 0.0)),
    "dead": chain((1, 2, 2), *dead()),
    "constant": chain((4,), rows_of(0.0, 0.0, 0.0), Relu()),
    "safe constant": chain((4,), Affine(torch.zeros(3, 4), torch.tensor([1.0, 0.0, 0.5]))),
    "two classes": chain((4,), rows_of(1.0, -1.0), Affine(torch.eye(2), torch.tensor([-1.0, 1.0]))),
    "overflow": chain((4,), rows_of(1e30, 1e30, 0.0), MultiplyConstant(torch.tensor([1e30, 1.0, 1.0]))),
    "one pixel": chain((1,), Affine(torch.tensor([[1.0], [-1.0]]))),
    "scalars": chain((2, 2), Reshape((4,)), rows_of(1.0, 0.0, 0.5)),
}
# How many inputs, at which radius; classes that all are unsafe from the start, all safe, or some of both.
SCENES = {
    "none": (0, 0.1, "own"),
    "one": (1, 0.1, "own"),
    "radius zero": (2, 0.0, "own"),
    "all unsafe": (3, 0.1, "other"),
    "one unsafe": (1, 0.1, "other"),
    "unsafe at zero": (2, 0.0, "other"),
    "some unsafe": (4, 0.1, "some"),
}


# The same code with less of everything: what a setting of an attack is cut down to.
SHORT = {
    "steps": 3, "restarts": 2, "grid": 3, "count": 3, "pixels": 4, "rounds": 3, "queries": 6, "blind_queries": 6,
    "corners": 3, "starts": 1, "searches": 2, "projections": 1, "segment_steps": 2, "sweep": 1,
}  # fmt: skip


def short(attack):
    """Return the attack with its settings cut down."""
    names = {field.name for field in dataclasses.fields(attack)}
    cut = {name: min(getattr(attack, name), value) for name, value in SHORT.items() if name in names}
    return dataclasses.replace(attack, **cut)


def scene(name: str, kind: str, norm: str):
    """Return the search of a scene on a network."""
    network = NETWORKS[kind]
    count, epsilon, which = SCENES[name]
    centres = torch.rand(count, *network.input_shape, generator=torch.Generator().manual_seed(7))
    scores = network.scores(centres).nan_to_num(0.0)
    own, other = scores.argmax(dim=1), scores.argmin(dim=1)
    alternate = torch.arange(count) % 2 == 0
    classes = {"own": own, "other": other, "some": torch.where(alternate, own, other)}[which]
    return search_of(network, centres, epsilon, classes, norm=norm)


# The others are of no other kind, and run with the slow tests.
QUICK = ("tied", "dead", "overflow")


SEARCHES = [
    (name, norm) if norm == "inf" else pytest.param(name, norm, marks=pytest.mark.slow)
    for name, attack in ATTACKS.items()
    for norm in attack.norms
]


@pytest.mark.parametrize("kind", [k if k in QUICK else pytest.param(k, marks=pytest.mark.slow) for k in NETWORKS])
@pytest.mark.parametrize(("name", "norm"), SEARCHES)
def test_no_attack_fails_and_none_loses_an_input_that_is_unsafe_from_the_start(name, norm, kind):
    attack = short(ATTACKS[name])
    for title in SCENES:
        search = scene(title, kind, norm)
        network = search.network
        unsafe = shortfalls(network.scores(search.region.centre.float()), search.classes) <= 0
        found = attack.run(search)
        assert found.points.shape == search.region.centre.shape, title
        assert bool(found.points.isfinite().all()), title
        assert bool(search.region.contains(found.points)[found.unsafe].all()), title
        if search.region.radius.sum() == 0:
            assert bool((found.unsafe == unsafe).all()), title
