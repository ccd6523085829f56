"""A network of affine ops and hinges, applied op by op: convolutions stay convolutions, forward and adjoint.

It answers what `verifier.bounds.split.stages` answers with matrices, in the network's own units, in any dtype on any
device. For searches, not for proofs: products may be rounded in any way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from encoders.network import INPUT, Network, Node
from verifier.bounds.split.form import AtHinge, HingeNetwork
from verifier.bounds.split.stages import StageUnits, stage_units, staged, with_known_signs
from verifier.certificates.scope import multiplications, stage_sizes

# A multiplication of an op costs as much as so many of a matrix: measured on a processor, forward and back, on networks
# of 8 to 128 channels (3 to 12, the least on the widest).
COST = 8
# Subproblems that are worked on side by side on a processor: maps of more leave its cache (a quarter of the speed).
PIECE = 64
# Multiplications of matrices a second; the seconds that boxes of one node may take, of those that are left at most this
# share; and the bytes of the slopes that prove them.
BOX_WORK, MOST_SECONDS, BOX_SHARE, MOST_SLOPES = 2 * 10**10, 20.0, 0.1, 1 << 25
# Entries of matrices between all units beyond which none are made: they would take 400 MB.
MOST_ENTRIES = 50_000_000
# Values of ops may be of any size up to 2^MODERATE, and down to its inverse, before float32 might lose them.
MODERATE = 24


@dataclass(frozen=True, eq=False)
class OperatorStage:
    """What hinge `place` reads; or the output, whose place is the number of hinges.

    source: the node whose value this is; size: how many of its values count; left: of the hinge, else 1.
    """

    source: str
    place: int
    size: int
    left: float


@dataclass(frozen=True, eq=False)
class KnownSigns:
    """Of one hinge: the places `(open,)` of its open units, and the slopes `(units,)` of the others, else 0."""

    places: Tensor
    slopes: Tensor


@dataclass(frozen=True, eq=False)
class OperatorNetwork:
    """The ops of a network without max pools.

    known: of each hinge, then only its open units count; None: all units count. exponent: the output is in units of
    2^exponent.
    """

    network: Network
    dtype: torch.dtype = torch.float64
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    known: tuple[KnownSigns, ...] | None = None
    exponent: int = 0

    @property
    def inputs(self) -> int:
        """How many inputs there are."""
        return math.prod(self.network.input_shape)

    @property
    def piece(self) -> int | None:
        """How many subproblems are best worked on side by side; None: as many as there are."""
        return PIECE if self.device.type == "cpu" else None

    @cached_property
    def hinges(self) -> tuple[OperatorStage, ...]:
        """What each hinge reads, in the order of the nodes."""
        found = []
        for k, node in enumerate(self._hinge_nodes):
            size = math.prod(self.network.shapes[node.name]) if self.known is None else len(self.known[k].places)
            found.append(OperatorStage(node.inputs[0], k, size, float(node.op.hinge_slope or 0.0)))
        return tuple(found)

    @cached_property
    def output(self) -> OperatorStage:
        """The output."""
        size = math.prod(self.network.output_shape)
        return OperatorStage(self.network.output.name, len(self._hinge_nodes), size, 1.0)

    def to(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> OperatorNetwork:
        """Return the same in another dtype or on another device."""
        where = torch.device(device)
        known = self.known and tuple(KnownSigns(k.places.to(where), k.slopes.to(where, dtype)) for k in self.known)
        return replace(self, dtype=dtype, device=where, known=known)

    def with_known_signs(self, is_open: Tensor, slopes: Tensor) -> OperatorNetwork:
        """Return the same where only open units count; the others are affine, with the given slopes.

        is_open, slopes: `(units,)` over all hinges side by side.
        """
        sizes = [math.prod(self.network.shapes[node.name]) for node in self._hinge_nodes]
        parts = zip(is_open.split(sizes), slopes.split(sizes), strict=True)
        known = tuple(
            KnownSigns(torch.nonzero(part)[:, 0].to(self.device), torch.where(part, 0.0, s).to(self.device, self.dtype))
            for part, s in parts
        )  # fmt: skip
        return replace(self, known=known)

    def in_units(self, units: StageUnits, output: int) -> OperatorNetwork:
        """Return the same with the output in units of 2^output; all other units must be 1."""
        assert not any(units.stages)
        return replace(self, exponent=output)

    def outputs(self, points: Tensor) -> Tensor:
        """Return the outputs `(batch, outputs)` at flat points `(batch, inputs)`, differentiable."""
        values = self._cast.fold(self._shaped(INPUT, points), lambda op, x: op.evaluate(*x))[0]
        return torch.ldexp(_flat(values), torch.tensor(-self.exponent, device=self.device))

    def forward(self, stage: OperatorStage, points: Tensor, at_hinge: AtHinge) -> None:
        """Carry flat points through what comes before a stage, as of `HingeNetwork`."""
        values = {INPUT: self._shaped(INPUT, points)}
        for node in self._before(stage):
            read = [values[name] for name in node.inputs]
            place = self._hinge_places.get(node.name)
            if place is None:
                values[node.name] = node.op.evaluate(*read)
                continue
            z = _flat(read[0])
            if self.known is None:
                given = at_hinge(place, z)
            else:
                known = self.known[place]
                given = (z * known.slopes).index_copy(1, known.places, at_hinge(place, z[:, known.places]))
            values[node.name] = self._shaped(node.name, given)

    def back(self, stage: OperatorStage, rows: Tensor, at_hinge: AtHinge) -> tuple[Tensor, Tensor]:
        """Return the constants and the costs of the inputs of rows of a stage, as of `HingeNetwork`."""
        scale = -self.exponent if stage.place == len(self._hinge_nodes) else 0
        costs = {stage.source: torch.ldexp(rows, torch.tensor(scale, device=rows.device))}
        total = torch.zeros(len(rows), dtype=self.dtype, device=self.device)
        for node in reversed(self._before(stage)):
            cost = costs.pop(node.name, None)
            if cost is None:
                continue
            place = self._hinge_places.get(node.name)
            if place is None:
                total = total + self._constant_part(node, cost)
                shapes = (self.network.shapes[name] for name in node.inputs)
                shares = node.op.transposed(self._shaped(node.name, cost), *shapes)
            elif self.known is None:
                shares = (at_hinge(place, _flat(cost)),)
            else:
                known, flat = self.known[place], _flat(cost)
                shares = (
                    (flat * known.slopes).index_copy(1, known.places, at_hinge(place, flat[:, known.places])),
                )  # fmt: skip
            for name, share in zip(node.inputs, shares, strict=True):
                flat = _flat(share)
                costs[name] = costs[name] + flat if name in costs else flat
        return total, costs[INPUT] if INPUT in costs else total.new_zeros(len(rows), self.inputs)

    @cached_property
    def _cast(self) -> Network:
        return self.network.cast(self.dtype, self.device)

    @cached_property
    def _hinge_nodes(self) -> tuple[Node, ...]:
        return tuple(node for node in self.network.nodes if node.op.hinge_slope is not None)

    @cached_property
    def _hinge_places(self) -> dict[str, int]:
        return {node.name: k for k, node in enumerate(self._hinge_nodes)}

    @cached_property
    def _constants(self) -> dict[str, Tensor | None]:
        """Of each affine node its flat value at zero, or None where that is zero."""
        found: dict[str, Tensor | None] = {}
        for node in self._cast.nodes:
            if node.op.linear:
                shapes = (self.network.shapes[name] for name in node.inputs)
                value = node.op.evaluate(*(torch.zeros(1, *s, dtype=self.dtype, device=self.device) for s in shapes))
                found[node.name] = value.flatten() if bool(value.any()) else None
        return found

    def _constant_part(self, node: Node, cost: Tensor) -> Tensor | float:
        constant = self._constants[node.name]
        return 0.0 if constant is None else _flat(cost) @ constant

    def _before(self, stage: OperatorStage) -> list[Node]:
        """Return the nodes that a stage's value depends on, itself included, in order."""
        if stage.source not in self._needed:
            wanted, found = {stage.source}, []
            for node in reversed(self._cast.nodes):
                if node.name in wanted:
                    wanted.update(node.inputs)
                    found.append(node)
            self._needed[stage.source] = found[::-1]
        return self._needed[stage.source]

    @cached_property
    def _needed(self) -> dict[str, list[Node]]:
        return {}

    def _shaped(self, name: str, values: Tensor) -> Tensor:
        return values.reshape(len(values), *self.network.shapes[name])


def chosen_form(network: Network, lower: Tensor, upper: Tensor) -> tuple[HingeNetwork, StageUnits]:
    """Return a network without max pools in the form that takes less time, in float64, and units of its values.

    lower, upper: the box `(inputs,)` that it is about. Ops take values of moderate sizes only.
    """
    entries = stage_sizes(network)[1]
    if entries > min(COST * multiplications(network), MOST_ENTRIES):
        operators = OperatorNetwork(network)
        units = stage_units(operators, lower, upper)
        if entries > MOST_ENTRIES or max(map(abs, units.stages)) <= MODERATE:
            return operators, StageUnits((0,) * len(units.stages), torch.zeros_like(units.units))
    stages = staged(network)
    return stages, stage_units(stages, lower, upper)


def open_form(network: HingeNetwork, is_open: Tensor, slopes: Tensor) -> HingeNetwork:
    """Return a network where only open units count, as the matrices between them where these take less time.

    is_open, slopes: see `with_known_signs`.
    """
    if isinstance(network, OperatorNetwork):
        counts = [int(part.sum()) for part in is_open.split([stage.size for stage in network.hinges])]
        before, entries = network.inputs, 0
        for count in (*counts, network.output.size):
            entries += count * before
            before += count
        if entries > COST * multiplications(network.network):
            return network.with_known_signs(is_open, slopes)
    return with_known_signs(network, is_open, slopes)


def affordable(network: HingeNetwork, count: int, units: int, steps: int, seconds: float) -> bool:
    """Return whether so many steps of ascent for both ends of so many units behind so many hinge units are made.

    seconds: that are left for all.
    """
    if not isinstance(network, OperatorNetwork):
        return True
    work = 2 * count * COST * multiplications(network.network) * 2 * (steps + 1)
    return work <= BOX_WORK * min(MOST_SECONDS, BOX_SHARE * seconds) and 2 * count * units <= MOST_SLOPES


def _flat(values: Tensor) -> Tensor:
    """Return values `(batch, *shape)`, of any shape, as `(batch, values)`."""
    return values.unsqueeze(-1).flatten(1)
