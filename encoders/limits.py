"""What one file may ask for before it is refused: one table, checked before anything is allocated.

A few hundred bytes can declare an input of a terabyte, a pool of a billion cells or a tower of concatenations that
doubles with each node. Each number below is far above what networks that can be verified need, so that whoever meets
one of them has a damaged or hostile file, or knows better and says so: `--allow NAME=N` on the command line,
`limits=Limits(NAME=N)` in Python.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence


class LimitError(ValueError):
    """A file asks for more than a limit allows; the message names the option that allows it."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """The table of limits, all whole numbers and at least 1; ValueError otherwise.

    nodes: nodes of a graph.
    program_nodes: nodes of a .pt2 program, of which torch itself loads 150 a second.
    input_values: numbers in one input.
    node_values: numbers that any one node computes for one input.
    operations: products, sums and comparisons of all nodes together, for one input.
    window_cells: cells of a pooling or convolution window.
    weight_bytes: all weights together.
    constant_bytes: the results of all folded constants together.
    member_bytes: one decompressed file or archive member.
    text_bytes: one JSON text or file of properties.
    data_bytes: the inputs and labels of a data set together.
    expanded_bytes: packed content that unpacks to more than some hundred times the size of its file.
    tokens: words and brackets of a file of properties, comments counted too.
    nesting: brackets within brackets of a file of properties.
    disjuncts: alternatives that a formula of and/or expands to.
    formula_rows: comparisons in all alternatives together, those they share counted for each.
    coefficients: numbers of all unsafe polyhedra of a file of properties together.
    """

    nodes: int = 20_000
    program_nodes: int = 5_000
    input_values: int = 2**24
    node_values: int = 2**26
    operations: int = 2**36
    window_cells: int = 2**20
    weight_bytes: int = 4 * 2**30
    constant_bytes: int = 2**26
    member_bytes: int = 4 * 2**30
    text_bytes: int = 2**28
    data_bytes: int = 4 * 2**30
    expanded_bytes: int = 2**26
    tokens: int = 2**23
    nesting: int = 100
    disjuncts: int = 2**16
    formula_rows: int = 2**21
    coefficients: int = 2**26

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if type(value) is not int or value < 1:
                raise ValueError(f"the limit {field.name} must be a whole number of at least 1, got {value!r}")

    def check(self, name: str, asked: int, what: str) -> None:
        """Raise LimitError if `what` asks for more than the limit of this name allows."""
        allowed = getattr(self, name)
        if asked > allowed:
            raise LimitError(
                f"{what} asks for {asked:,} {name.replace('_', ' ')}, the limit is {allowed:,}; if the file is meant "
                f"to, allow it: --allow {name}={asked} (in Python limits=Limits({name}={asked}))"
            )


def read_limits(settings: Sequence[str]) -> Limits:
    """Return the limits with the given ones changed, each written NAME=N; ValueError names what is not understood."""
    names = [field.name for field in dataclasses.fields(Limits)]
    changed: dict[str, int] = {}
    for setting in settings:
        name, _, number = setting.partition("=")
        if name not in names or not (number.isascii() and number.isdecimal()):
            raise ValueError(f"cannot read the limit {setting!r}; write NAME=N with NAME one of {', '.join(names)}")
        changed[name] = int(number)
    return Limits(**changed)
