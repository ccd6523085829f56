"""What a VNN-LIB file declares: inputs and outputs of one network, each alone (1.0), or tensors of several (2.x)."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import NamedTuple

from encoders.box import Shape
from encoders.formats.errors import PropertyFileError
from encoders.formats.vnnlib_linear import Variable
from encoders.formats.vnnlib_tokens import Source, Token

# Canonical, so that no coordinate has two names.
_NUMBERED = re.compile(r"([XY])_(0|[1-9][0-9]{0,17})")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")

MOST_DIMENSIONS = 16
# How the network of VNN-LIB 1.0 is called, which has no name in the file.
FIRST = "f"

# Element types of ONNX whose values are real numbers, as files write them in lower case.
FLOATS = ("float16", "bfloat16", "float32", "float64")


class Index(NamedTuple):
    """The numbers in one pair of square brackets: a shape, or the place of an element. at: the bracket."""

    numbers: tuple[int, ...]
    at: Token


@dataclass(frozen=True)
class Tensor:
    """A declared input or output of VNN-LIB 2.x. at: its name."""

    is_input: bool
    shape: Shape
    element_type: str
    at: Token


class Congruence(NamedTuple):
    """What a network is to one declared before it: equal, or of the same structure. at: the name of the other."""

    equal: bool
    at: Token


class Declared(NamedTuple):
    """A declared network. model: the name of the network whose model it is: its own, unless it is equal to another."""

    model: str
    shape: Shape
    outputs: int


@dataclass
class Variables:
    """The variables declared so far.

    numbered: X_i and Y_j of VNN-LIB 1.0 by name.
    declared: the networks of VNN-LIB 2.x by name, in the order of their declarations.
    tensors: their inputs and outputs by name, with the number of inputs or outputs that were declared before.
    """

    source: Source
    numbered: dict[str, Variable] = field(default_factory=dict)
    declared: dict[str, Declared] = field(default_factory=dict)
    tensors: dict[str, tuple[Tensor, int]] = field(default_factory=dict)

    def declare_number(self, name: Token, sort: Token) -> None:
        """Declare a variable of VNN-LIB 1.0: `(declare-const X_0 Real)`."""
        if self.declared:
            raise self.source.refusal(name, "declare-const in a file with declare-network; supported: one of the two")
        match = _NUMBERED.fullmatch(name.text)
        if match is None:
            raise self.source.refusal(
                name, "not a variable of VNN-LIB; supported: inputs X_0, X_1, ..., outputs Y_0, ..."
            )
        if name.text in self.numbered:
            raise self.source.refusal(name, "declared twice; remove one of the declarations")
        if sort.text != "Real":
            raise self.source.refusal(sort, f"{name.text} has a sort that is not supported; supported: Real")
        self.numbered[name.text] = Variable(match[1] == "X", int(match[2]))
        self.source.limits.check("input_values", len(self.numbered), "the list of declarations")

    def declare_network(self, name: Token, tensors: list[Tensor], congruences: list[Congruence]) -> None:
        """Declare a network of VNN-LIB 2.x with its tensors."""
        if self.numbered:
            raise self.source.refusal(name, "declare-network in a file with declare-const; supported: one of the two")
        if name.text in self.declared:
            raise self.source.refusal(name, "declared twice; every network needs a name of its own")
        own: dict[bool, Tensor] = {}
        for tensor in tensors:
            if tensor.at.text in self.tensors:
                raise self.source.refusal(tensor.at, "declared twice; every variable needs a name of its own")
            kind = "input" if tensor.is_input else "output"
            if tensor.is_input in own:
                raise self.source.refusal(tensor.at, f"a second {kind} of {name.text}; supported: one {kind}")
            own[tensor.is_input] = tensor
            before = [other for other, _ in self.tensors.values() if other.is_input == tensor.is_input]
            start = sum(math.prod(other.shape) for other in before)
            self.source.limits.check("input_values", start + math.prod(tensor.shape), "the list of declarations")
            self.tensors[tensor.at.text] = tensor, start
        if len(own) != 2:
            missing = "input" if True not in own else "output"
            raise self.source.refusal(name, f"the network declares no {missing}; supported: one input and one output")
        made = Declared(name.text, own[True].shape, math.prod(own[False].shape))
        self.declared[name.text] = self._congruent(name, made, congruences)

    def _congruent(self, name: Token, made: Declared, congruences: list[Congruence]) -> Declared:
        """Return a network as what it is said to be to another, whose shapes it must have."""
        if len(congruences) > 1:
            raise self.source.refusal(congruences[1].at, f"a second statement of what {name.text} is like; remove one")
        if not congruences:
            return made
        equal, at = congruences[0]
        other = self.declared.get(at.text)
        if other is None:
            raise self.source.refusal(at, "not a network that is declared before here")
        if other[1:] != made[1:]:
            raise self.source.refusal(at, f"{name.text} has an input of shape {list(made.shape)} and {made.outputs} "
                                      f"outputs, {at.text} {list(other.shape)} and {other.outputs}")  # fmt: skip
        return made._replace(model=other.model) if equal else made

    def tensor(self, is_input: bool, name: Token, element_type: Token, shape: Index) -> Tensor:
        """Return the declaration of an input or output tensor, checked by itself."""
        if not _NAME.fullmatch(name.text):
            raise self.source.refusal(name, "not a name; supported: a letter, then letters, digits and underscores")
        if element_type.text.lower() not in ("real", *FLOATS):
            supported = ", ".join(("Real", *FLOATS))
            raise self.source.refusal(
                element_type, f"{name.text} has an element type that is not supported; {supported} are"
            )
        if len(shape.numbers) > MOST_DIMENSIONS:
            raise self.source.refusal(shape.at, f"{name.text} has more than {MOST_DIMENSIONS} dimensions")
        if 0 in shape.numbers:
            raise self.source.refusal(shape.at, f"{name.text} has no elements: a dimension is 0")
        self.source.limits.check("input_values", math.prod(shape.numbers), f"{name.text}, as declared,")
        return Tensor(is_input, shape.numbers, element_type.text.lower(), name)

    def resolve(self, name: Token, index: Index | None) -> Variable:
        """Return the coordinate that a name, with an index in VNN-LIB 2.x, stands for."""
        if index is None and name.text in self.numbered:
            return self.numbered[name.text]
        if name.text not in self.tensors:
            raise self.source.refusal(name, "not a number, and not declared before here as a variable")
        tensor, place = self.tensors[name.text]
        numbers = () if index is None else index.numbers
        if len(numbers) != len(tensor.shape):
            raise self.source.refusal(name, f"{len(numbers)} indices for a tensor of shape {list(tensor.shape)}")
        element = 0
        for number, size in zip(numbers, tensor.shape, strict=True):
            if number >= size:
                raise self.source.refusal(name, f"index {number} in a dimension of {size}; indices start at 0")
            element = element * size + number
        return Variable(tensor.is_input, place + element)

    def networks(self) -> list[Declared]:
        """Return the networks in order, at least one; refuse variables of 1.0 that are not declared without gaps."""
        if self.declared:
            return list(self.declared.values())
        return [Declared(FIRST, (self._count(True),), self._count(False))]

    def _count(self, is_input: bool) -> int:
        letter, kind = ("X", "input") if is_input else ("Y", "output")
        indices = {variable.place for variable in self.numbered.values() if variable.is_input == is_input}
        if not indices:
            raise PropertyFileError(
                f"{self.source.path}: no {kind} is declared; supported: (declare-const {letter}_0 Real) and so on, or "
                "declare-network of VNN-LIB 2.x"
            )
        missing = next((index for index in range(len(indices)) if index not in indices), None)
        if missing is not None:
            raise PropertyFileError(
                f"{self.source.path}: {letter}_{max(indices)} is declared and {letter}_{missing} is not; declare every "
                f"{kind} from {letter}_0 on"
            )
        return len(indices)

    def name(self, variable: Variable) -> str:
        """Return how the file calls a coordinate."""
        for name, (tensor, start) in self.tensors.items():
            if tensor.is_input == variable.is_input and 0 <= variable.place - start < math.prod(tensor.shape):
                numbers, rest = [], variable.place - start
                for size in reversed(tensor.shape):
                    rest, number = divmod(rest, size)
                    numbers.append(number)
                return f"{name}{list(reversed(numbers))}" if numbers else name
        return f"{'X' if variable.is_input else 'Y'}_{variable.place}"

    @property
    def note(self) -> str:
        """What a reader should know of declared element types."""
        types = sorted({tensor.element_type for tensor, _ in self.tensors.values()} - {"real"})
        return f"declared {' and '.join(types)}, decided for real numbers" if types else ""
