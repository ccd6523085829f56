"""A network of affine ops and hinges as dense matrices between its hinges: for searches, not for proofs.

The value that hinge k reads is z_k = b_k + sum over earlier stages j of W_kj a_j, where a_0 is the input and a_j what
hinge j gives; the output likewise. Any graph of affine ops has this form.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from encoders.network import INPUT, Network, Node
from encoders.scaling import exponents
from verifier.bounds.split.form import AffineStage, AtHinge, HingeNetwork

# Constants of ops count as nothing beside values times 2^FAR; float64 ends at 2^1024.
FAR = 512


@dataclass(frozen=True, eq=False)
class Stage:
    """An affine function of the input (stage 0) and of earlier hinges: weights `(values, n_j)` by stage, bias.

    source: the node whose value this is. left: the slope of the hinge that reads it, on the left of zero; else 1.
    """

    source: str
    weights: dict[int, Tensor]
    bias: Tensor
    left: float

    @property
    def size(self) -> int:
        """How many values it has."""
        return len(self.bias)

    def __call__(self, values: list[Tensor]) -> Tensor:
        """Return the stage's values `(batch, values)` from those of the stages before, `(batch, n_j)` each."""
        total = self.bias.expand(len(values[0]), -1)
        for j, weight in self.weights.items():
            total = torch.addmm(total, values[j], weight.T)
        return total

    def to(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> Stage:
        """Return the stage in another dtype or on another device."""
        weights = {j: weight.to(device, dtype) for j, weight in self.weights.items()}
        return replace(self, weights=weights, bias=self.bias.to(device, dtype))


@dataclass(frozen=True, eq=False)
class StagedNetwork:
    """The stages of all hinges in order, and the output's; inputs: how many there are."""

    inputs: int
    hinges: tuple[Stage, ...]
    output: Stage

    # Matrices are best multiplied with as many subproblems as there are.
    piece: ClassVar[int | None] = None

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of all values."""
        return self.output.bias.dtype

    @property
    def device(self) -> torch.device:
        """Where all values are."""
        return self.output.bias.device

    def to(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> StagedNetwork:
        """Return the stages in another dtype or on another device."""
        hinges = tuple(stage.to(dtype, device) for stage in self.hinges)
        return StagedNetwork(self.inputs, hinges, self.output.to(dtype, device))

    def forward(self, stage: Stage, points: Tensor, at_hinge: AtHinge) -> None:
        """Carry flat points through the hinges before a stage, as of `HingeNetwork`."""
        values = [points]
        for k, hinge in enumerate(self.hinges[: self._before(stage)]):
            values.append(at_hinge(k, hinge(values)))

    def back(self, stage: Stage, rows: Tensor, at_hinge: AtHinge) -> tuple[Tensor, Tensor]:
        """Return the constants and the costs of the inputs of rows of a stage, as of `HingeNetwork`."""
        pending = {j: rows @ weight for j, weight in stage.weights.items()}
        total = rows @ stage.bias
        for k in range(self._before(stage) - 1, -1, -1):
            cost = pending.pop(k + 1, None)
            if cost is None:
                continue
            hinge, passed = self.hinges[k], at_hinge(k, cost)
            total = total + passed @ hinge.bias
            for j, weight in hinge.weights.items():
                pending[j] = torch.addmm(pending[j], passed, weight) if j in pending else passed @ weight
        return total, pending[0] if 0 in pending else rows.new_zeros(len(rows), self.inputs)

    def _before(self, stage: Stage) -> int:
        """Return how many hinges come before a stage."""
        return next((k for k, hinge in enumerate(self.hinges) if hinge is stage), len(self.hinges))

    def in_units(self, units: StageUnits, output: int) -> StagedNetwork:
        """Return the network in units, its output in units of 2^output."""
        own = (*units.stages[1:], output)
        stages = [
            replace(
                stage,
                weights={j: torch.ldexp(w, torch.tensor(units.stages[j] - k)) for j, w in stage.weights.items()},
                bias=torch.ldexp(stage.bias, torch.tensor(-k)),
            )
            for stage, k in zip((*self.hinges, self.output), own, strict=True)
        ]
        return StagedNetwork(self.inputs, tuple(stages[:-1]), stages[-1])

    def outputs(self, points: Tensor) -> Tensor:
        """Return the outputs `(batch, outputs)` at flat points `(batch, inputs)`."""
        values = [points]
        for stage in self.hinges:
            z = stage(values)
            values.append(torch.maximum(z, stage.left * z))
        return self.output(values)


@dataclass(frozen=True, eq=False)
class StageUnits:
    """Exponents of two, in whose units the values of a network are of size 1: powers of two round nothing.

    stages: of the input (first) and of each hinge. units: the same for each unit `(units,)` of all hinges side by side.
    """

    stages: tuple[int, ...]
    units: Tensor


def stage_units(network: HingeNetwork, lower: Tensor, upper: Tensor) -> StageUnits:
    """Return units by the values at both ends and the middle of an input box `(inputs,)`; 1 where these are 0."""
    points = torch.stack([lower, (lower + upper) / 2, upper])
    powers = [_exponent(points), *[0] * len(network.hinges)]

    def at_hinge(k: int, z: Tensor) -> Tensor:
        powers[k + 1] = _exponent(z)
        return torch.maximum(z, network.hinges[k].left * z)

    network.forward(network.output, points, at_hinge)
    counts = torch.tensor([stage.size for stage in network.hinges], dtype=torch.int64)
    return StageUnits(tuple(powers), torch.tensor(powers[1:], dtype=torch.int64).repeat_interleave(counts))


def _exponent(values: Tensor) -> int:
    sizes = values.abs().flatten().numpy()
    greatest = sizes.max(initial=0.0, keepdims=True)
    return int(exponents(greatest)[0]) if math.isfinite(greatest[0]) else 0


def with_known_signs(network: HingeNetwork, is_open: Tensor, slopes: Tensor) -> StagedNetwork:
    """Return the matrices between the open units of each hinge alone; the others are affine, with the given slopes.

    is_open, slopes: `(units,)` over all hinges side by side.
    """
    sizes = [stage.size for stage in network.hinges]
    places = [torch.nonzero(part).squeeze(1) for part in is_open.split(sizes)]
    known = torch.where(is_open, 0.0, slopes).to(network.dtype).split(sizes)
    hinges = [
        Stage(stage.source, *_matrices(network, stage, own, places, known), stage.left)
        for stage, own in zip(network.hinges, places, strict=True)
    ]
    every = torch.arange(network.output.size)
    output = Stage(network.output.source, *_matrices(network, network.output, every, places, known), 1.0)
    return StagedNetwork(network.inputs, tuple(hinges), output)


def _matrices(
    network: HingeNetwork, stage: AffineStage, own: Tensor, places: list[Tensor], known: Sequence[Tensor]
) -> tuple[dict[int, Tensor], Tensor]:
    """Return (weights by stage, bias) of some values of a stage: a way back that ends at open units.

    places: of the open units of each hinge; known: `(units,)` of each, the slopes of the others.
    """
    parts: list[tuple[dict[int, Tensor], Tensor]] = []
    for some in own.split(network.piece or max(1, len(own))):
        weights: dict[int, Tensor] = {}

        def at_hinge(k: int, cost: Tensor, weights: dict[int, Tensor] = weights) -> Tensor:
            weights[k + 1] = cost[:, places[k]]
            return cost * known[k]

        rows = torch.zeros(len(some), stage.size, dtype=network.dtype)
        rows[torch.arange(len(some)), some] = 1.0
        bias, weights[0] = network.back(stage, rows, at_hinge)
        parts.append((weights, bias))
    stages = sorted({j for weights, _ in parts for j in weights})
    return {j: torch.cat([weights[j] for weights, _ in parts]) for j in stages}, torch.cat([bias for _, bias in parts])


def up_to_hinge(network: HingeNetwork, k: int, is_open: Tensor, slopes: Tensor) -> StagedNetwork:
    """Return what hinge k reads as the output of a network of the open units before it, as of `with_known_signs`.

    Of what hinge k reads all units count for which `is_open` holds.
    """
    made = with_known_signs(network, is_open, slopes)
    return StagedNetwork(network.inputs, made.hinges[:k], made.hinges[k])


def staged(network: Network) -> StagedNetwork:
    """Return the stages of a network of affine ops and hinges, in float64, on the processor."""
    exact = network.cast(torch.float64, torch.device("cpu"))
    size = math.prod(exact.input_shape)
    # By node, its value as an affine function of the stages: (weights by stage, bias).
    affine: dict[str, tuple[dict[int, Tensor], Tensor]] = {INPUT: ({0: _identity(size)}, _zeros(size))}
    hinges: list[Stage] = []
    for node in exact.nodes:
        left = node.op.hinge_slope
        if left is None:
            affine[node.name] = _image(exact, node, affine)
            continue
        weights, bias = affine[node.inputs[0]]
        hinges.append(_stage(node.inputs[0], weights, bias, left))
        affine[node.name] = ({len(hinges): _identity(len(bias))}, _zeros(len(bias)))
    weights, bias = affine[exact.output.name]
    return StagedNetwork(size, tuple(hinges), _stage(exact.output.name, weights, bias, 1.0))


def _stage(source: str, weights: dict[int, Tensor], bias: Tensor, left: float) -> Stage:
    return Stage(source, {j: weight.contiguous() for j, weight in weights.items()}, bias, left)


def _image(
    network: Network, node: Node, affine: dict[str, tuple[dict[int, Tensor], Tensor]]
) -> tuple[dict[int, Tensor], Tensor]:
    """Return the value of an affine node: the op at multiples of its inputs' columns, less its value at zero.

    The multiple is a power of two so large that rounding takes the op's constants off, and not its weights.
    """
    shapes = [network.shapes[name] for name in node.inputs]
    inputs = [affine[name] for name in node.inputs]
    bias = node.op.evaluate(*(function[1].reshape(1, *shape) for function, shape in zip(inputs, shapes, strict=True)))
    zero = node.op.evaluate(*(_zeros(1, *shape) for shape in shapes))
    weights = {}
    for j in sorted({j for function in inputs for j in function[0]}):
        count = next(function[0][j].shape[1] for function in inputs if j in function[0])
        columns = [
            function[0][j].T.reshape(count, *shape) if j in function[0] else _zeros(count, *shape)
            for function, shape in zip(inputs, shapes, strict=True)
        ]
        large = [torch.ldexp(column, torch.tensor(FAR)) for column in columns]
        image = torch.ldexp(node.op.evaluate(*large) - zero, torch.tensor(-FAR))
        # Beside weights that would overflow, smaller ones are not worth much.
        image = image if bool(image.isfinite().all()) else node.op.evaluate(*columns) - zero
        weights[j] = image.flatten(1).T
    return weights, bias.flatten()


def _identity(size: int) -> Tensor:
    return torch.eye(size, dtype=torch.float64)


def _zeros(*shape: int) -> Tensor:
    return torch.zeros(*shape, dtype=torch.float64)
