"""A network as a chain of dense layers and relus, with the rows of a question as the last layer: for compiled loops.

A layer holds the values of one depth, each a relu or linear, and copies of earlier values that later layers read, as
linear units of their own. Matrices are the stored weights: nothing is multiplied out. What the pull of a row with
coefficient v at a unit loses, in any order of summation, is at most |v| e (Higham 2002, Lemma 3.1):

    e = gamma (|W| r + |b| + s),    r: the greatest |values| before it,  s: the greatest |value| of the unit,

on the whole box, gamma being that of four times as many roundings as a pull has. Other ops, and layers too large to be
copied for every box, have no chain.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from encoders.box import Box
from encoders.network import INPUT, Network
from encoders.region import BallRegion
from encoders.rounding import gamma
from verifier.bounds.inputs.compiled_layers import UNDERFLOW, Layers
from verifier.bounds.linear.bounds import linear_bounds
from verifier.certificates.conjunctions import Conjunctions

# Entries of all matrices; the greatest value that a coefficient times an input may take, so that nothing overflows and
# what underflows is below UNDERFLOW.
MOST_WEIGHTS, MOST_SIZE = 2_000_000, 1e60

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Chain:
    """layers; least, greatest: of the units before their relus, on the whole box."""

    layers: Layers
    least: Floats
    greatest: Floats


@dataclass(frozen=True)
class _Value:
    """A value of a layer: the name by which it is read, the node before its relu, and whether it has one."""

    name: str
    node: str
    relu: bool


def chain_of(asked: Conjunctions, box: Box) -> Chain | None:
    """Return the chain of a network in float64 on a box (batch 1, finite); None where there is none."""
    network = asked.network
    depths = _depths(network)
    if depths is None:
        return None
    members = _members(network, depths)
    sizes = [sum(math.prod(network.shapes[value.name]) for value in layer) for layer in members]
    sizes.append(len(asked.offsets))
    if sum(n * m for n, m in itertools.pairwise(sizes)) > MOST_WEIGHTS:
        return None
    matrices = [_layer(network, *pair) for pair in itertools.pairwise(members)]
    rows = _columns(network, members[-1], asked.coefficients.flatten(1).numpy(), (network.output.name,))
    matrices.append((rows, -asked.offsets.numpy()))
    bounds = linear_bounds(network, BallRegion.of_box(box)).boxes
    values = [value for layer in members for value in layer]
    least, greatest = (
        np.concatenate([getattr(bounds[value.node], end).flatten().numpy() for value in values])
        for end in ("lower", "upper")
    )
    linear = np.concatenate([np.full(math.prod(network.shapes[value.name]), not value.relu) for value in values])
    groups = np.array([*(group.start for group in asked.groups), len(asked.offsets)])
    layers = _with_errors(matrices, least, greatest, linear, groups)
    return None if layers is None else Chain(layers, least[sizes[0] :], greatest[sizes[0] :])


def _depths(network: Network) -> dict[str, int] | None:
    """Return the depth of each value, that of a relu being its node's; None where an op has no place in a chain."""
    depths, stored = {INPUT: 0}, {node.name for node in network.nodes if node.op.stores_matrix}
    for node in network.nodes:
        if node.op.hinge_slope == 0.0:
            (before,) = node.inputs
            readers = sum(other.inputs.count(before) for other in network.nodes)
            if before not in stored or readers > 1:
                return None
            depths[node.name] = depths[before]
        elif node.name in stored:
            depths[node.name] = 1 + max(depths[name] for name in node.inputs)
        else:
            return None
    return depths


def _members(network: Network, depths: dict[str, int]) -> list[list[_Value]]:
    """Return the values of each layer up to that of the output: its own, and copies of those that later ones read."""
    relus = {node.inputs[0]: node.name for node in network.nodes if not node.op.stores_matrix}
    last = depths[network.output.name]
    until = dict.fromkeys(depths, 0)
    for node in network.nodes:
        for name in node.inputs:
            until[name] = max(until[name], depths[node.name])
    members = [[_Value(INPUT, INPUT, False)]]
    for depth in range(1, last + 1):
        nodes = [node.name for node in network.nodes if depths[node.name] == depth and node.op.stores_matrix]
        own = [_Value(relus.get(name, name), name, name in relus) for name in nodes]
        kept = [name for name in depths if name not in relus and depths[name] < depth < until[name]]
        members.append(own + [_Value(name, name, False) for name in kept])
    return members


def _layer(network: Network, before: list[_Value], after: list[_Value]) -> tuple[Floats, Floats]:
    """Return (matrix, bias) from the values of one layer to those of the next."""
    nodes = {node.name: node for node in network.nodes}
    known, parts, biases = {value.name for value in before}, [], []
    for value in after:
        shape = network.shapes[value.name]
        if value.name in known:
            parts.append(_columns(network, before, np.eye(math.prod(shape)), (value.name,)))
            biases.append(np.zeros(math.prod(shape)))
            continue
        node = nodes[value.node]
        shapes = [network.shapes[name] for name in node.inputs]
        parts.append(_columns(network, before, node.op.matrix(*shapes).toarray(), node.inputs))
        at_zero = node.op.evaluate(*(torch.zeros(1, *each, dtype=torch.float64) for each in shapes))
        biases.append(at_zero.flatten().numpy())
    return np.concatenate(parts), np.concatenate(biases)


def _columns(network: Network, before: list[_Value], matrix: Floats, names: tuple[str, ...]) -> Floats:
    """Return a matrix of the values named, side by side, as one of all values of a layer."""
    ends = np.cumsum([0, *(math.prod(network.shapes[value.name]) for value in before)])
    places = {value.name: slice(int(a), int(b)) for value, a, b in zip(before, ends, ends[1:], strict=False)}
    wide, start = np.zeros((len(matrix), int(ends[-1]))), 0
    for name in names:
        count = math.prod(network.shapes[name])
        # A node that reads a value twice has entries of at most one of the two in a row: nothing is rounded.
        wide[:, places[name]] += matrix[:, start : start + count]
        start += count
    return wide


def _with_errors(
    matrices: list[tuple[Floats, Floats]], least: Floats, greatest: Floats, linear: NDArray[np.bool_], groups: Any
) -> Layers | None:
    """Return the layers with the errors of their units; None where a number may overflow or underflow."""
    sizes = np.array([matrices[0][0].shape[1], *(len(matrix) for matrix, _ in matrices)])
    share = gamma(4 * (2 * int(sizes.sum()) + 64), torch.float64)
    size = np.maximum(abs(least), abs(greatest))
    reach = np.where(linear, size, np.maximum(greatest, 0.0))
    starts = np.cumsum([0, *sizes])
    errors, growth = [], 1.0
    for k, (matrix, bias) in enumerate(matrices):
        before, own = slice(starts[k], starts[k + 1]), slice(starts[k + 1], starts[k + 2])
        last = k + 1 == len(matrices)
        weights = abs(matrix)
        error = share * (weights @ reach[before] + abs(bias) + (0.0 if last else size[own]))
        errors.append(error * (1.0 + share) + UNDERFLOW)
        growth *= max(1.0, float(weights.sum(axis=1).max(initial=0.0)), float(abs(bias).max(initial=0.0)))
    if not growth * max(1.0, float(size.max(initial=0.0))) < MOST_SIZE:
        return None
    return Layers(
        sizes=sizes,
        weights=np.cumsum([0, 0, *(matrix.size for matrix, _ in matrices[:-1])]),
        units=np.array([0, *(starts[1:-1] - sizes[0])]),
        matrix=np.concatenate([np.ascontiguousarray(matrix).ravel() for matrix, _ in matrices]),
        bias=np.concatenate([bias for _, bias in matrices]),
        error=np.concatenate(errors),
        linear=np.concatenate([linear[sizes[0] :], np.ones(sizes[-1], dtype=bool)]).astype(np.int64),
        groups=groups,
    )
