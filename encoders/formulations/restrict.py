"""INNER: a network frozen to the linear pieces that are active at a point (Bastani et al. 2016, section 4).

Where all conditions of the frozen network are >= 0 it equals the network, so whatever its affine map reaches there is
really reached. It keeps the wiring, hence one forward pass evaluates every condition at once and autograd gives the
rows of any of them. A relu and a maximum pool that follow each other are frozen as one op (`window_restriction`),
which keeps a larger region. Ties at the point go with a direction, if one is given.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from encoders.network import INPUT, Network, Node
from encoders.views.restriction import LinearMap, Restriction, Selection, window_restriction

# Rounding makes equal cells of a constant background differ by a few units in the last place: such are ties. A share of
# the largest value that the node reads.
TIE_TOLERANCE = 1e-12


@dataclass(frozen=True, eq=False)
class FrozenNetwork:
    """A network in float64 with one restriction for each node that is not linear.

    Its values are affine in x; conditions are >= 0 where it equals the network. Made by `freeze`, for one point or for
    a batch of them (then x has the same batch).
    """

    network: Network
    restrictions: Mapping[str, Restriction]

    def evaluate(self, x: Tensor) -> Tensor:
        """Return the affine map's output at x `(batch, *input_shape)`; differentiable."""
        return self.values(x)[self.network.output.name]

    def values(self, x: Tensor) -> dict[str, Tensor]:
        """Return the affine value of every node at x, and INPUT itself."""
        values = {INPUT: x}
        for node in self.network.nodes:
            values[node.name] = self.piece(node).evaluate(*(values[name] for name in node.inputs))
        return values

    def piece(self, node: Node) -> LinearMap:
        """Return the linear map that stands for a node."""
        found = self.restrictions.get(node.name)
        return node.op if found is None else found.piece

    def conditions(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the conditions `(batch, count)` of each node that has any, from the values of the nodes."""
        inputs = {node.name: node.inputs for node in self.network.nodes}
        return {
            name: restriction.conditions.evaluate(*(values[i] for i in inputs[name])).flatten(1)
            for name, restriction in self.restrictions.items()
            if restriction.conditions is not None
        }

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return (outputs, all conditions side by side `(batch, count)`) of one forward pass."""
        values = self.values(x)
        parts = list(self.conditions(values).values())
        conditions = torch.cat(parts, dim=1) if parts else x.new_zeros(len(x), 0)
        return values[self.network.output.name], conditions

    def holds(self, x: Tensor, tolerance: float = 0.0) -> Tensor:
        """Return a mask `(batch,)`: whether every condition is >= -tolerance at x, so that the values are true."""
        return (self.forward(x)[1] >= -tolerance).all(dim=1)


def freeze(
    network: Network, x: Tensor, direction: Tensor | None = None, tolerance: float = TIE_TOLERANCE, fuse: bool = True
) -> FrozenNetwork:
    """Return the network frozen at points x `(batch, *input_shape)`, on the device of x.

    direction: where x moves, of its shape; pieces whose border x lies on, up to `tolerance` of the largest value there,
    are chosen for a small step along it. fuse: treat relu and pool together. Raises ValueError naming all nodes without
    linear pieces.
    """
    refused = [node for node in network.nodes if "restrict" not in node.op.views()]
    if refused:
        names = ", ".join(f"{node.name!r} ({node.op.kind})" for node in refused)
        raise ValueError(f"{network.source}: no linear pieces (view 'restrict') in nodes {names}")
    x = x.detach().to(torch.float64)
    slope = torch.zeros_like(x) if direction is None else direction.detach().to(x)
    cast = network.cast(torch.float64, x.device)
    pairs = _pool_pairs(cast) if fuse else set[str]()
    values, slopes, restrictions = {INPUT: x}, {INPUT: slope}, dict[str, Restriction]()
    with torch.no_grad():
        for node in cast.nodes:
            at = [values[name] for name in node.inputs]
            along = [slopes[name] for name in node.inputs]
            found = _restriction(node, pairs, at, along, tolerance)
            if found.piece is not node.op:
                restrictions[node.name] = found
            values[node.name] = found.piece.evaluate(*at)
            slopes[node.name] = _linear_part(found.piece, along)
    return FrozenNetwork(cast, restrictions)


def _restriction(
    node: Node, pairs: Collection[str], at: list[Tensor], along: list[Tensor], tolerance: float
) -> Restriction:
    # Of the points together: no more than a choice between pieces that are both true here depends on it.
    tolerance *= max((float(value.abs().max()) for value in at if value.numel()), default=0.0)
    if node.name not in pairs:
        return node.op.restrict(*at, direction=along[0], tolerance=tolerance)
    shape = tuple(at[0].shape[1:])
    if node.op.maximum:
        windows, outputs = node.op.windows(shape), node.op.output_shape(shape)
        return window_restriction(at[0], windows, outputs, along[0], tolerance, with_relu=True)
    identity = Selection(shape, torch.ones_like(at[0][:1]).flatten(1))
    return Restriction(identity)


def _linear_part(piece: LinearMap, along: list[Tensor]) -> Tensor:
    """Return the piece's map of a direction: without the constant."""
    return piece.evaluate(*along) - piece.evaluate(*(torch.zeros_like(value) for value in along))


def _pool_pairs(network: Network) -> set[str]:
    """Return the relus and pools that follow each other with no other reader between.

    max(0, max x) = max over the window of max(0, x): the pool takes both parts, the relu becomes the identity.
    """
    readers: dict[str, list[Node]] = {}
    for node in network.nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    pairs: set[str] = set()
    for node in network.nodes:
        after = readers.get(node.name, [])
        if len(after) != 1 or node.name in pairs or after[0].name in pairs:
            continue
        ops = (node.op, after[0].op)
        if any(op.maximum for op in ops) and any(op.hinge_slope == 0.0 for op in ops):
            pairs |= {node.name, after[0].name}
    return pairs
