"""A network of affine ops and hinges as dense matrices between its hinges: for searches, not for proofs.

The value that hinge k reads is z_k = b_k + sum over earlier stages j of W_kj a_j, where a_0 is the input and a_j what
hinge j gives; the output likewise. Any graph of affine ops has this form.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from encoders.network import INPUT, Network, Node
from encoders.scaling import exponents

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

    def __call__(self, values: list[Tensor]) -> Tensor:
        """Return the stage's values `(batch, values)` from those of the stages before, `(batch, n_j)` each."""
        total = self.bias.expand(len(values[0]), -1)
        for j, weight in self.weights.items():
            total = torch.addmm(total, values[j], weight.T)
        return total

    def to(self, dtype: torch.dtype) -> Stage:
        """Return the stage in another dtype."""
        return replace(self, weights={j: w.to(dtype) for j, w in self.weights.items()}, bias=self.bias.to(dtype))


@dataclass(frozen=True, eq=False)
class StagedNetwork:
    """The stages of all hinges in order, and the output's; inputs: how many there are."""

    inputs: int
    hinges: tuple[Stage, ...]
    output: Stage

    def to(self, dtype: torch.dtype) -> StagedNetwork:
        """Return the stages in another dtype."""
        hinges = tuple(stage.to(dtype) for stage in self.hinges)
        return StagedNetwork(self.inputs, hinges, self.output.to(dtype))

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

    def applied(self, network: StagedNetwork, output: int) -> StagedNetwork:
        """Return the network in these units, its output in units of 2^output."""
        own = (*self.stages[1:], output)
        stages = [
            replace(
                stage,
                weights={j: torch.ldexp(w, torch.tensor(self.stages[j] - k)) for j, w in stage.weights.items()},
                bias=torch.ldexp(stage.bias, torch.tensor(-k)),
            )
            for stage, k in zip((*network.hinges, network.output), own, strict=True)
        ]
        return StagedNetwork(network.inputs, tuple(stages[:-1]), stages[-1])


def stage_units(network: StagedNetwork, lower: Tensor, upper: Tensor) -> StageUnits:
    """Return units by the values at both ends and the middle of an input box `(inputs,)`; 1 where these are 0."""
    points = torch.stack([lower, (lower + upper) / 2, upper])
    values, powers = [points], [_exponent(points)]
    for stage in network.hinges:
        z = stage(values)
        values.append(torch.maximum(z, stage.left * z))
        powers.append(_exponent(z))
    counts = torch.tensor([len(stage.bias) for stage in network.hinges], dtype=torch.int64)
    return StageUnits(tuple(powers), torch.tensor(powers[1:], dtype=torch.int64).repeat_interleave(counts))


def _exponent(values: Tensor) -> int:
    sizes = values.abs().flatten().numpy()
    greatest = sizes.max(initial=0.0, keepdims=True)
    return int(exponents(greatest)[0]) if math.isfinite(greatest[0]) else 0


def with_known_signs(network: StagedNetwork, is_open: Tensor, slopes: Tensor) -> StagedNetwork:
    """Return the stages with only the open units of each hinge; the others are affine, with the given slopes.

    is_open, slopes: `(units,)` over all hinges side by side.
    """
    # By stage, its values as an affine function of the open units of all stages: (weights by stage, bias).
    functions: list[tuple[dict[int, Tensor], Tensor]] = [({0: _identity(network.inputs)}, _zeros(network.inputs))]
    hinges: list[Stage] = []
    start = 0
    for k, stage in enumerate(network.hinges):
        own = slice(start, start + len(stage.bias))
        start = own.stop
        weights, bias = substituted(stage, functions)
        places = torch.nonzero(is_open[own]).squeeze(1)
        open_weights = {j: weight[places].contiguous() for j, weight in weights.items()}
        hinges.append(replace(stage, weights=open_weights, bias=bias[places]))
        known = torch.where(is_open[own], 0.0, slopes[own]).to(bias.dtype)
        after = {j: known[:, None] * weight for j, weight in weights.items()}
        after[k + 1] = _identity(len(bias))[:, places]
        functions.append((after, known * bias))
    weights, bias = substituted(network.output, functions)
    return StagedNetwork(network.inputs, tuple(hinges), replace(network.output, weights=weights, bias=bias))


def substituted(stage: Stage, functions: list[tuple[dict[int, Tensor], Tensor]]) -> tuple[dict[int, Tensor], Tensor]:
    """Return (weights, bias) of a stage as a function of what the values that it reads are functions of.

    given: by stage, (weights, bias) of its values.
    """
    total: dict[int, Tensor] = {}
    bias = stage.bias
    for j, weight in stage.weights.items():
        inner, offset = functions[j]
        bias = bias + weight @ offset
        for i, matrix in inner.items():
            total[i] = total[i] + weight @ matrix if i in total else weight @ matrix
    return total, bias


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
