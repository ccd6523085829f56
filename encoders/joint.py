"""Several uses of networks on one input: what a property of two networks, or of a network at two inputs, is about.

Each copy of a network reads some coordinates of the joint input. The joint outputs are those of the copies one after
the other, flattened in C order, and behind them the inputs that are shown: so a constraint between inputs, or between
inputs and outputs, is a row over outputs like all others, and exact, because nothing is computed with an input.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from encoders.box import Shape


@dataclass(frozen=True)
class Copy:
    """One use of a network.

    network: its name. shape: of its input. places: the joint coordinate of each of its inputs, in C order; -1 for a
    constant. outputs: how many it has. constants: one for each input where any is constant, else empty.
    """

    network: str
    shape: Shape
    places: tuple[int, ...]
    outputs: int
    constants: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.places or len(self.places) != math.prod(self.shape) or self.outputs < 1:
            raise ValueError(f"{len(self.places)} inputs of shape {self.shape} and {self.outputs} outputs")
        if len(self.constants) != (len(self.places) if -1 in self.places else 0):
            raise ValueError("a copy has a constant for each of its inputs exactly if one of them is constant")
        if not all(map(math.isfinite, self.constants)):
            raise ValueError("the constants of a copy must be finite")


@dataclass(frozen=True)
class Joint:
    """What the inputs and outputs of a property belong to.

    inputs: the number of joint coordinates. copies: at least one. shown: the coordinates behind the outputs.
    Raises ValueError where a copy reads none of the coordinates that there are.
    """

    inputs: int
    copies: tuple[Copy, ...]
    shown: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        read = {place for copy in self.copies for place in copy.places if place != -1}
        if not self.copies or not {*read, *self.shown} <= set(range(self.inputs)):
            raise ValueError(f"copies of networks that read other coordinates than 0 to {self.inputs - 1}")

    @property
    def networks(self) -> tuple[str, ...]:
        """The names of the networks, in the order of their first use."""
        return tuple(dict.fromkeys(copy.network for copy in self.copies))

    @property
    def outputs(self) -> int:
        """The number of joint outputs."""
        return sum(copy.outputs for copy in self.copies) + len(self.shown)

    def to_json(self) -> dict[str, Any]:
        """Return plain values, from which `from_json` makes it again."""
        return {
            "inputs": self.inputs, "shown": list(self.shown),
            "copies": [
                [copy.network, list(copy.shape), list(copy.places), copy.outputs, list(copy.constants)]
                for copy in self.copies
            ],
        }  # fmt: skip

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return what `to_json` wrote. Raises ValueError, TypeError or KeyError for anything else."""
        copies = tuple(
            Copy(str(network), _whole(shape), _whole(places), int(outputs), tuple(map(float, constants)))
            for network, shape, places, outputs, constants in values["copies"]
        )
        return cls(int(values["inputs"]), copies, _whole(values["shown"]))


def _whole(values: Any) -> tuple[int, ...]:
    return tuple(map(int, values))
