"""What the ONNX and the torch reader share: the batch axis, and building a network while shapes are followed.

A reader follows the shapes of the file with the batch counted as 1, and the builder keeps one rule: the batch axis
stays first and no op looks at it. Whatever breaks the rule is refused (ValueError, which the reader collects).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from encoders.box import Shape
from encoders.formats.errors import ModelFileError
from encoders.formats.runtime import Batch
from encoders.formats.window_limits import check_windows
from encoders.limits import Limits
from encoders.network import INPUT, Network, Node
from encoders.ops import Concat, Op, Reshape, Slice, Transpose
from encoders.passes.merge_bias import merge_bias

# Characters of a node's name that are kept: a file may repeat a name of megabytes in each of its nodes.
LONGEST_NAME = 200

# Axes of a value; numpy and torch end at 64.
MAXIMUM_RANK = 32


@dataclass(frozen=True)
class Value:
    """A tensor of the file that depends on the input: the node that computes it, and its shape in the file."""

    name: str
    shape: Shape


@dataclass(frozen=True)
class FileInput:
    """The input of a file: shape as in the file (batch counted as 1), kind of batch axis, dtype."""

    shape: Shape
    batch: Batch
    dtype: torch.dtype

    @property
    def sample_shape(self) -> Shape:
        """The shape of one input, without the batch."""
        return self.shape if self.batch == "none" else self.shape[1:]


def file_input(name: str, dimensions: Sequence[int | str], dtype: torch.dtype) -> FileInput:
    """Return the input whose dimensions are numbers, or text where they are dynamic.

    A leading dimension that is dynamic, or 1 with rank >= 2, is the batch. Raises ValueError for any other
    dynamic dimension, and for element types other than float32 and float64.
    """
    if len(dimensions) > MAXIMUM_RANK:
        raise ValueError(f"input {name!r} has {len(dimensions)} axes; supported: up to {MAXIMUM_RANK}")
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"input {name!r} has element type {dtype}; supported: float32 and float64")
    for axis, dimension in enumerate(dimensions):
        if isinstance(dimension, str) and axis > 0:
            raise ValueError(
                f"input {name!r}: dimension {axis} ({dimension!r}) is dynamic; only the leading one (the batch) may "
                "be: export with a fixed size"
            )
        if not isinstance(dimension, str) and dimension < 1:
            raise ValueError(f"input {name!r}: dimension {axis} is {dimension}; sizes must be positive")
    batch: Batch = "none"
    if dimensions and isinstance(dimensions[0], str):
        batch = "any"
    elif len(dimensions) >= 2 and dimensions[0] == 1:
        batch = "one"
    shape = tuple(1 if isinstance(dimension, str) else dimension for dimension in dimensions)
    if len(shape) == (0 if batch == "none" else 1):
        raise ValueError(f"input {name!r} has no dimension besides the batch; give it shape (batch, features)")
    return FileInput(shape, batch, dtype)


def operations(op: Op, output: Shape) -> int:
    """Return how many products, sums of two or comparisons the op takes for one input, to a factor of two."""
    return op.fan_in() * math.prod(output)


class GraphBuilder:
    """Collects nodes; every method returns the Value of what it added, or the same Value for an identity.

    Raises LimitError (which a reader lets through) for an input, a number of nodes or a node beyond the limits.
    """

    def __init__(self, source: str, given: FileInput, limits: Limits = Limits()) -> None:
        limits.check("input_values", math.prod(given.sample_shape), f"the input of shape {given.sample_shape}")
        self.source = source
        self.given = given
        self.limits = limits
        self.input = Value(INPUT, given.shape)
        self._nodes: list[Node] = []
        self._makers: dict[str, Node] = {}
        self._shapes: dict[str, Shape] = {INPUT: given.sample_shape}
        self._uses: dict[str, int] = {}
        self._operations = 0
        # Values that are places of maxima.
        self._places: set[str] = set()

    @property
    def has_batch(self) -> bool:
        """Whether the leading axis of every value is the batch."""
        return self.given.batch != "none"

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the input, and so of every value."""
        return self.given.dtype

    def sample_shape(self, value: Value) -> Shape:
        """Return the shape of a value without the batch."""
        return self._shapes[value.name]

    def emit(self, name: str, op: Op, *inputs: Value) -> Value:
        """Return the value of a new node; its name is cut to a readable length and made unique."""
        name = name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}..."
        self.limits.check("nodes", len(self._nodes) + 1, "the graph")
        if not op.moves and any(value.name in self._places for value in inputs):
            # Places are whole numbers, with whole arithmetic of their own.
            raise ValueError("computes with what an argmax returns; supported: an argmax as last operator")
        shapes = [self._shapes[value.name] for value in inputs]
        check_windows(op, shapes[0], self.limits, f"node {name!r} ({op.kind})")
        shape = op.output_shape(*shapes)
        self.limits.check("node_values", math.prod(shape), f"node {name!r} ({op.kind})")
        if min(shape, default=1) < 1:
            raise ValueError(f"its result of shape {shape} is empty")
        self._operations += operations(op, shape)
        self.limits.check("operations", self._operations, "the graph")
        unique, count = name, self._uses.get(name, 1)
        while unique in self._shapes:
            unique, count = f"{name}.{count}", count + 1
        # The next node of this name starts to count here: thousands of one name take linear time.
        self._uses[name] = count
        self._nodes.append(Node(unique, op, tuple(value.name for value in inputs)))
        if op.chooses or any(value.name in self._places for value in inputs):
            self._places.add(unique)
        self._makers[unique] = self._nodes[-1]
        self._shapes[unique] = shape
        return Value(unique, (1, *shape) if self.has_batch else shape)

    def maker(self, name: str) -> Node | None:
        """Return the node that computes a value of the network, None for the input."""
        return self._makers.get(name)

    def axis(self, x: Value, axis: int) -> int:
        """Return an axis of the file as an axis of the sample; negative ones count from the end."""
        if not -len(x.shape) <= axis < len(x.shape):
            raise ValueError(f"axis {axis} does not exist in shape {x.shape}")
        axis %= len(x.shape)
        if not self.has_batch:
            return axis
        if axis == 0:
            raise ValueError("acts on the batch axis")
        return axis - 1

    def require_batch(self, x: Value, rank: int) -> None:
        """Refuse values that are not a batch of `rank - 1` axes, for ops that tell channels by position."""
        if not self.has_batch:
            raise ValueError("needs an input with a batch axis; export the model with inputs (batch, ...)")
        if len(x.shape) != rank:
            raise ValueError(f"takes {rank} axes, got shape {x.shape}")

    def constant(self, x: Value, constant: Tensor) -> Tensor:
        """Return a constant that broadcasts to x, without its batch axis."""
        if self.has_batch and constant.dim() >= len(x.shape):
            if constant.dim() > len(x.shape) or constant.shape[0] != 1:
                raise ValueError(
                    f"a constant of shape {tuple(constant.shape)} does not fit {x.shape} without its batch"
                )
            constant = constant[0]
        return constant

    def reshape(self, name: str, x: Value, shape: Sequence[int]) -> Value:
        """Return x under another shape of the file, whose leading axis must still be the batch."""
        shape = tuple(int(size) for size in shape)
        if len(shape) > MAXIMUM_RANK:
            raise ValueError(f"a result of {len(shape)} axes is not supported; supported: up to {MAXIMUM_RANK}")
        if self.has_batch and (not shape or shape[0] != 1):
            raise ValueError(f"the result of shape {shape} does not keep the batch as leading axis")
        target = shape[1:] if self.has_batch else shape
        if target == self.sample_shape(x):
            return x
        return self.emit(name, Reshape(target), x)

    def transpose(self, name: str, x: Value, permutation: Sequence[int]) -> Value:
        """Return x with permuted axes of the file; the batch must stay first."""
        order = [axis % len(x.shape) for axis in permutation]
        if sorted(order) != list(range(len(x.shape))):
            raise ValueError(f"{tuple(permutation)} does not permute the axes of {x.shape}")
        if order == sorted(order):
            return x
        if self.has_batch and order[0] != 0:
            raise ValueError(f"permutation {tuple(permutation)} moves the batch axis")
        shift = 1 if self.has_batch else 0
        return self.emit(name, Transpose(tuple(axis - shift for axis in order[shift:])), x)

    def concat(self, name: str, values: Sequence[Value], axis: int) -> Value:
        """Return the values joined along an axis of the file."""
        result = values[0]
        op = Concat(self.axis(result, axis))
        for value in values[1:]:
            result = self.emit(name, op, result, value)
        return result

    def slice(self, name: str, x: Value, axis: int, start: int, stop: int, step: int) -> Value:
        """Return every `step`-th entry from start to before stop; ends are clipped and may count from the end."""
        if step < 1:
            raise ValueError(f"step {step} is not supported; supported: 1 and more")
        axis = axis % len(x.shape) if -len(x.shape) <= axis < len(x.shape) else axis
        whole = start == 0 and step == 1 and stop >= (1 if self.given.batch == "one" else 2**31 - 1)
        if whole and self.has_batch and axis == 0:
            return x
        sample_axis = self.axis(x, axis)
        size = x.shape[axis]
        first, last, step = slice(start, stop, step).indices(size)
        if (first, last, step) == (0, size, 1):
            return x
        return self.emit(name, Slice(sample_axis, first, last, step), x)

    def finish(self, output: Value) -> Network:
        """Return the network that ends in `output`, without nodes that it does not depend on."""
        if output.name == INPUT:
            raise ModelFileError(f"{self.source}: the output is the input itself; there is nothing to verify")
        needed = {output.name}
        for node in reversed(self._nodes):
            if node.name in needed:
                needed.update(node.inputs)
        nodes = tuple(node for node in self._nodes if node.name in needed)
        try:
            network = Network(nodes, self.given.sample_shape, self.dtype, self.source)
        except ValueError as error:
            raise ModelFileError(str(error)) from None
        return merge_bias(network)
