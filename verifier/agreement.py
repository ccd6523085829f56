"""Whether the graph that was read computes what the user's model computes: the reader is part of every proof.

Graph and runtime are evaluated side by side. The graph is taken in float64; the runtime may differ from it by the
rounding of its own arithmetic, whose size is estimated from the magnitudes of the network at the very point: every
node errs by the radius of its float interval around the value (`Op.interval`, any order of summation) or the share of
it that many roundings reach together, and these errors are sent through the network with random signs. The worst case
over all signs would grow exponentially with the depth and excuse any difference.

A difference that this does not explain is a refusal, never a warning: a verdict would be about another network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from encoders.box import Box
from encoders.formats.runtime import Runtime
from encoders.network import INPUT, Network
from encoders.ops import Op
from encoders.region import Domain, domain_ends
from encoders.rounding import unit_roundoff

# Draws of random signs, and how many of their standard deviations rounding explains. Over the standard benchmark
# networks the largest difference was a fifth of this (benchmarks/agreement.py).
DRAWS = 4
DEVIATIONS = 2.0
# Units in the last place of a value (`Op.trusted_error`), and of the node's value at zero, by which runtimes that
# approximate curves or merge nodes may err beyond the op's own rounding.
MERGED_ULPS = 4.0
# Points that are looked at when a model is loaded: inputs of the data; corners and random points of the domain.
INPUTS, CORNERS, INSIDE = 8, 6, 4
# Sizes of the batches in which they are run, besides one by one: a model may branch on the size.
BATCHES = (2, 3, 64)


REMEDY = (
    "Nothing is proved about such a model: export it in evaluation mode, without randomness, state, or branches on "
    "batch size, gradients or tracing; if it has none of these, the reader is at fault: please report"
)


class DisagreementError(ValueError):
    """The model as it runs is not the network that was read; the message shows a point, both outputs and the node."""


@dataclass(frozen=True, eq=False)
class Expected:
    """Outputs of the graph in float64 `(batch, *output_shape)`, and how far rounding may move those of the runtime."""

    values: np.ndarray
    tolerance: np.ndarray

    def at(self, rows: Sequence[int]) -> Expected:
        """Return what is expected of the given rows."""
        return Expected(self.values[rows], self.tolerance[rows])


@dataclass(frozen=True, eq=False)
class Agreement:
    """Graph and runtime of one model, to be compared.

    name: of the model, for messages. runtime: from `(batch, *input_shape)` in the network's dtype to outputs; a
    `Runtime` also tells its framework, other ways in which the model is run, and values of inner nodes. plain: a
    difference, relative to the largest output, that was seen to be well within rounding.
    """

    name: str
    network: Network
    runtime: Callable[[np.ndarray], np.ndarray]
    plain: float = 0.0

    @property
    def framework(self) -> str:
        """What runs the model, for messages."""
        return self.runtime.framework if isinstance(self.runtime, Runtime) else "its runtime"

    def check(self, points: np.ndarray, outputs: np.ndarray, where: Sequence[str]) -> None:
        """Return if outputs that the runtime gave at points `(batch, *input_shape)` are those of the graph.

        where: what each point is, for the message. Raises DisagreementError otherwise. Points where both overflow
        are not compared.
        """
        exact = torch.from_numpy(np.ascontiguousarray(points)).to(torch.float64)
        with torch.no_grad():
            values = self.network.cast(torch.float64).evaluate(exact).numpy()
        # The tolerance takes a dozen evaluations: where outputs are near without it, it is not worked out.
        rows = _rows_beyond(outputs, values, _relative(values, self.plain))
        if not rows:
            return
        expected = Expected(values[rows], rounding_tolerance(self.network, exact[rows]).numpy())
        self._compare(points[rows], outputs[rows], expected, [where[row] for row in rows])

    def probed(self, inputs: np.ndarray, domain: Domain) -> Agreement:
        """Return this, sharpened by what was seen, if graph and runtime agree in the domain.

        They are run at inputs, beside them, at corners and random points; in batches, alone, and again. inputs:
        `(n, *input_shape)`, of which the first are taken; domain: of every coordinate, None for the range of the
        inputs. Raises DisagreementError, also where the runtime contradicts itself.
        """
        points, where = probes(inputs, domain)
        exact = torch.from_numpy(points).to(torch.float64)
        *_, (_, values, tolerance) = node_tolerances(self.network, exact)
        expected = Expected(values.numpy(), tolerance.numpy())
        ways: dict[str, Callable[[np.ndarray], np.ndarray]] = {"": self.runtime}
        if isinstance(self.runtime, Runtime):
            ways |= {name: self.runtime.variant(name) for name in self.runtime.variants}
        before = self._state()
        for way, run in ways.items():
            seen = self._run(run, points, expected, [f"{name}, {way}" if way else name for name in where])
            for rows, how in _groupings(len(points)):
                told = [f"{where[row]}, {how}{', ' if way else ''}{way}" for row in rows]
                again = self._run(run, points[rows], expected.at(rows), told)
                self._compare_runs(again, seen[rows], expected.at(rows), told)
        if self._state() != before:
            raise DisagreementError(
                f"{self.name}: it keeps a state: its numbers or buffers changed while it was run; {REMEDY}"
            )
        size = np.abs(expected.values).reshape(len(points), -1).max(axis=1)
        least = expected.tolerance.reshape(len(points), -1).min(axis=1)
        # Well below what rounding explained anywhere: other points may be better conditioned than all of these.
        plain = (least[size > 0] / size[size > 0]).min(initial=np.inf) / 8.0
        return replace(self, plain=float(plain) if np.isfinite(plain) else 0.0)

    def _state(self) -> str:
        """Return what the model keeps from run to run, as far as its framework tells."""
        known = self.runtime.state if isinstance(self.runtime, Runtime) else None
        return known() if known is not None else ""

    def _run(
        self, run: Callable[[np.ndarray], np.ndarray], points: np.ndarray, expected: Expected, where: Sequence[str]
    ) -> np.ndarray:
        """Return the outputs at points, which are those of the graph."""
        try:
            outputs = np.asarray(run(points))
        except Exception as error:
            # A framework raises classes of its own.
            raise DisagreementError(
                f"{self.name}: {self.framework} fails where the graph has a value, at {where[0]}: "
                f"{type(error).__name__}: {error}"
            ) from None
        if outputs.shape != expected.values.shape:
            raise DisagreementError(
                f"{self.name}: {self.framework} returns outputs of shape {outputs.shape}, the graph of "
                f"{expected.values.shape}, at {where[0]}"
            )
        self._compare(points, outputs, expected, where)
        return outputs

    def _compare(self, points: np.ndarray, outputs: np.ndarray, expected: Expected, where: Sequence[str]) -> None:
        for row in _rows_beyond(outputs, expected.values, expected.tolerance):
            if not self._both_overflow(points[row : row + 1], outputs[row]):
                raise DisagreementError(self._message(points[row], outputs[row], expected, row, where[row]))

    def _compare_runs(self, again: np.ndarray, before: np.ndarray, expected: Expected, where: Sequence[str]) -> None:
        """Raise DisagreementError where the runtime gave another answer before, beyond rounding."""
        for row in _rows_beyond(again, before.astype(np.float64), 2.0 * expected.tolerance):
            if np.isfinite(again[row]).all() and np.isfinite(before[row]).all():
                raise DisagreementError(
                    f"{self.name}: {self.framework} gives other outputs for one input from run to run "
                    f"({where[row]}): {_shown(before[row])} and {_shown(again[row])}; {REMEDY}"
                )

    def _both_overflow(self, point: np.ndarray, outputs: np.ndarray) -> bool:
        """Return whether the graph in the model's own dtype leaves the finite numbers at a point, as the model does."""
        with torch.no_grad():
            own = self.network.evaluate(torch.from_numpy(np.ascontiguousarray(point)))
        return not bool(own.isfinite().all()) and not bool(np.isfinite(outputs).all())

    def _message(self, point: np.ndarray, outputs: np.ndarray, expected: Expected, row: int, where: str) -> str:
        return (
            f"{self.name}: the network that was read is not the model that {self.framework} runs. At {where}, "
            f"x = {_shown(point)}, the model gives {_shown(outputs)} and the graph {_shown(expected.values[row])}; "
            f"rounding explains {_shown(expected.tolerance[row])}. {self._first_node(point)} {REMEDY}"
        )

    def _first_node(self, point: np.ndarray) -> str:
        """Return a sentence on the first node whose value differs, as far as the framework tells them."""
        if not isinstance(self.runtime, Runtime) or self.runtime.values is None:
            return "Which node differs is not known."
        try:
            seen = self.runtime.values(point[None])
        except Exception as error:
            # Whatever the framework raises, the refusal stands.
            return f"Which node differs is not known ({type(error).__name__}: {error})."
        exact = torch.from_numpy(np.ascontiguousarray(point[None])).to(torch.float64)
        for name, value, tolerance in node_tolerances(self.network, exact):
            node_value = seen.get(name)
            if node_value is None or node_value.size != value.numel():
                continue
            if len(_rows_beyond(node_value.reshape(1, -1), *(t.reshape(1, -1).numpy() for t in (value, tolerance)))):
                return f"The first node that differs is {name!r}."
        return "No inner node that both know differs."


def rounding_tolerance(network: Network, x: Tensor) -> Tensor:
    """Return how far rounding in the network's dtype may move its outputs at x `(batch, *input_shape)`, elementwise.

    An estimate (see the module docstring), not a bound: some standard deviations of random signs.
    """
    *_, (_, _, tolerance) = node_tolerances(network, x)
    return tolerance


def node_tolerances(network: Network, x: Tensor) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield (name, value in float64, tolerance) of each node in turn, at x `(batch, *input_shape)` float64."""
    generator = torch.Generator().manual_seed(0)
    exact, own = network.cast(torch.float64), network.cast(network.dtype)
    batch, unit = len(x), unit_roundoff(network.dtype)
    last_use = {name: number for number, node in enumerate(network.nodes) for name in node.inputs}
    # Row blocks: the value itself, then the draws.
    values, tolerances = {INPUT: x.repeat(1 + DRAWS, *[1] * (x.dim() - 1))}, {INPUT: torch.zeros_like(x)}
    for number, (node, rounded) in enumerate(zip(exact.nodes, own.nodes, strict=True)):
        inputs = [values[name] for name in node.inputs]
        with torch.no_grad():
            output = node.op.evaluate(*inputs)
            # Values may be NaN, where a function of the graph has none. Few draws would find the other side of a jump.
            points = [(values[i][:batch].to(network.dtype), tolerances[i].to(network.dtype)) for i in node.inputs]
            ends = [(point - error, point + error) if node.op.jumps else (point, point) for point, error in points]
            box = rounded.op.interval(*(Box.unchecked(*pair) for pair in ends))
            zero = node.op.evaluate(*(torch.zeros_like(value[:1]) for value in inputs)).abs()
        radius = _typical(node.op) * (box.upper.to(torch.float64) - box.lower.to(torch.float64)) / 2.0
        size = node.op.trusted_error(output[:batch].abs(), *(value[:batch] for value in inputs))
        # A box that overflows says nothing: the runtime overflows there too, or has the value in other order.
        # Nor does a value at zero that does not exist.
        zero = zero.nan_to_num(nan=0.0, posinf=0.0)
        radius = radius.nan_to_num(nan=0.0, posinf=0.0) + MERGED_ULPS * unit * (size + zero)
        signs = 2.0 * torch.rand((DRAWS, *output[:batch].shape), generator=generator, dtype=torch.float64) - 1.0
        output = torch.cat([output[:batch], output[batch:] + (signs * radius).flatten(0, 1)])
        values[node.name] = output
        spread = output[batch:].unflatten(0, (DRAWS, batch)) - output[:batch]
        tolerance = DEVIATIONS * spread.square().mean(dim=0).sqrt() + radius
        tolerances[node.name] = tolerance.nan_to_num(nan=torch.inf, posinf=torch.inf)
        yield node.name, output[:batch], tolerances[node.name]
        for name in {*node.inputs, node.name}:
            if last_use.get(name, -1) <= number and name != network.output.name:
                del values[name], tolerances[name]


def _typical(op: Op) -> float:
    """Return the share of an op's worst rounding error that its roundings reach together.

    n of them reach some sqrt(n) u instead of n u (Higham and Mary 2019), here doubled; jumps, which all go one
    way, are taken four times.
    """
    return min(1.0, 2.0 / math.sqrt(op.fan_in())) if op.linear else 8.0 if op.jumps else 1.0


def probes(inputs: np.ndarray, domain: Domain) -> tuple[np.ndarray, list[str]]:
    """Return points in the dtype of the inputs, and what each is; the same ones for the same inputs."""
    random = np.random.default_rng(0)
    first = inputs[:INPUTS]
    shape = inputs.shape[1:]
    bounds = domain_ends(domain or (float(inputs.min()), float(inputs.max())), torch.zeros(1, dtype=torch.float64))
    least, greatest = (np.broadcast_to(end.numpy(), (1, *shape))[0] for end in bounds)
    width = greatest - least
    corners = [least, greatest]
    corners += [np.where(random.random(shape) < 0.5, least, greatest) for _ in range(CORNERS - 2)]
    inside = [least + width * random.random(shape) for _ in range(INSIDE)]
    beside = [x + width * share * random.uniform(-1.0, 1.0, shape) for x in first for share in (1e-6, 0.1)]
    points = np.concatenate([first, np.clip(np.stack([*corners, *inside, *beside]), least, greatest)])
    where = [f"input {i} of the data" for i in range(len(first))]
    where += ["a corner of the domain"] * len(corners) + ["a random point of the domain"] * len(inside)
    where += [f"a point beside input {i // 2} of the data" for i in range(len(beside))]
    return points.astype(inputs.dtype), where


def _groupings(count: int) -> Iterator[tuple[list[int], str]]:
    """Yield (rows, how they are run): all together once more, in batches of some sizes, and one by one."""
    yield list(range(count)), "run again"
    for size in BATCHES:
        yield [row % count for row in range(size)], f"in a batch of {size}"
    for row in range(count):
        yield [row], "run alone"


def _rows_beyond(outputs: np.ndarray, expected: np.ndarray, tolerance: np.ndarray) -> list[int]:
    """Return the rows in which a value differs by more than the tolerance or is not finite."""
    with np.errstate(invalid="ignore", over="ignore"):
        near = (np.abs(outputs.astype(np.float64) - expected) <= tolerance) & np.isfinite(outputs)
    rows: list[int] = np.flatnonzero(~near.reshape(len(near), -1).all(axis=1)).tolist()
    return rows


def _relative(values: np.ndarray, share: float) -> np.ndarray:
    """Return a share of each row's largest value, in the shape of the values."""
    size = np.abs(values).reshape(len(values), -1).max(axis=1)
    return np.broadcast_to(share * size.reshape(-1, *[1] * (values.ndim - 1)), values.shape)


def _shown(values: np.ndarray) -> str:
    """Return the first numbers of an array as text."""
    flat = np.asarray(values, dtype=np.float64).reshape(-1)
    text = ", ".join(f"{value:.7g}" for value in flat[:10])
    return f"({text}{f', ... {flat.size} in all' if flat.size > 10 else ''})"
