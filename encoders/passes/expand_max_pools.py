"""Write every max pool as relus: max(a, b) = b + relu(a - b), a tree of them over the cells of a window.

Equal in real arithmetic (float evaluation rounds the differences), so that methods over the signs of hinges decide
networks with max pools. A pool of a rising hinge is the hinge of the pool: it is read so, for then the differences are
affine in what comes before, and there is one hinge a window in place of one a cell. The maximum over a window is that
over its rows, then over its columns: overlapping windows share the first part. In place of a padded cell another one of
the window is read, as no maximum minds a repetition.
"""

from __future__ import annotations

from itertools import count

import numpy as np

from encoders.network import Network, Node
from encoders.ops import Add, Concat, MaxPool2d, Op, Relu, Slice, Sub


def expand_max_pools(network: Network) -> Network:
    """Return the network without max pools; the last node that stands for one has its name."""
    if not any(isinstance(node.op, MaxPool2d) for node in network.nodes):
        return network
    nodes: list[Node] = []
    taken = {node.name for node in network.nodes}
    for node in _pools_before_hinges(network, taken):
        if isinstance(node.op, MaxPool2d):
            nodes += _Expansion(node, node.op, network.shapes[node.inputs[0]], taken).nodes
        else:
            nodes.append(node)
    return Network(tuple(nodes), network.input_shape, network.dtype, network.source)


def _pools_before_hinges(network: Network, taken: set[str]) -> list[Node]:
    """Return the nodes, pools of rising hinges written as hinges of pools; hinges that only these read are left out.

    taken: names that are in use, to which those of the new nodes are added.
    """
    made = {node.name: node for node in network.nodes}
    rising = {name for name, node in made.items() if node.op.hinge_slope is not None and node.op.hinge_slope >= 0}
    names = (name for i in count() if (name := f"pool-{i}") not in taken)
    nodes: list[Node] = []
    for node in network.nodes:
        before = made.get(node.inputs[0])
        if isinstance(node.op, MaxPool2d) and before is not None and before.name in rising:
            nodes.append(Node(next(names), node.op, before.inputs))
            taken.add(nodes[-1].name)
            nodes.append(Node(node.name, before.op, (nodes[-1].name,)))
        else:
            nodes.append(node)
    read = {name for node in nodes for name in node.inputs} | {network.output.name}
    before_pools = {node.inputs[0] for node in network.nodes if isinstance(node.op, MaxPool2d)} & rising
    return [node for node in nodes if node.name in read or node.name not in before_pools]


class _Expansion:
    """The nodes that stand for one max pool; taken: names that are in use."""

    def __init__(self, node: Node, op: MaxPool2d, shape: tuple[int, ...], taken: set[str]) -> None:
        self.nodes: list[Node] = []
        self._names = (name for i in count() if (name := f"{node.name}-{i}") not in taken)
        value = node.inputs[0]
        outputs = op.output_shape(shape)
        for axis in (0, 1):
            places = _places(op, axis, shape[axis + 1], outputs[axis + 1])
            value = self._greatest([self._gathered(value, axis + 1, shape[axis + 1], row) for row in places])
        if not self.nodes:
            # A window of one cell without a stride: the op keeps its input.
            value = self._push(Slice(1, 0, shape[1]), value)
        last = self.nodes[-1]
        assert last.name == value
        self.nodes[-1] = Node(node.name, last.op, last.inputs)

    def _push(self, op: Op, *inputs: str) -> str:
        name = next(self._names)
        self.nodes.append(Node(name, op, inputs))
        return name

    def _gathered(self, value: str, axis: int, size: int, places: np.ndarray) -> str:
        """Return the node that reads the places `(outputs,)` along an axis: slices of even steps, joined."""
        if np.array_equal(places, np.arange(size)):
            return value
        found: str | None = None
        for start, stop, step in _runs(places.tolist()):
            part = self._push(Slice(axis, start, stop, step), value)
            found = part if found is None else self._push(Concat(axis), found, part)
        assert found is not None
        return found

    def _greatest(self, values: list[str]) -> str:
        """Return the node of the maximum of values of one shape, by a balanced tree."""
        while len(values) > 1:
            pairs = zip(values[::2], values[1::2], strict=False)
            values = [self._greater(*pair) for pair in pairs] + values[len(values) // 2 * 2 :]
        return values[0]

    def _greater(self, a: str, b: str) -> str:
        return self._push(Add(), b, self._push(Relu(), self._push(Sub(), a, b)))


def _places(op: MaxPool2d, axis: int, size: int, outputs: int) -> np.ndarray:
    """Return the places `(cells, outputs)` along an axis; for one in the padding that of the window's next cell."""
    starts = np.arange(outputs) * op.stride[axis] - op.padding[axis]
    places = starts + (np.arange(op.kernel[axis]) * op.dilation[axis])[:, None]
    inside = (places >= 0) & (places < size)
    first, last = inside.argmax(axis=0), op.kernel[axis] - 1 - inside[::-1].argmax(axis=0)
    cell = np.clip(np.arange(op.kernel[axis])[:, None], first, last)
    result: np.ndarray = np.take_along_axis(places, cell, axis=0)
    # A kernel that repeats rows (all of it in the padding but one) compares a value with itself: each once.
    return np.unique(result, axis=0)


def _runs(places: list[int]) -> list[tuple[int, int, int]]:
    """Return (start, stop, step) of slices which, joined, are the places; steps are 1 or more."""
    runs: list[list[int]] = []
    for place in places:
        run = runs[-1] if runs else []
        step = run[1] - run[0] if len(run) > 1 else place - run[0] if run else 0
        if step >= 1 and place - run[-1] == step:
            run.append(place)
        else:
            runs.append([place])
    return [(run[0], run[-1] + 1, run[1] - run[0] if len(run) > 1 else 1) for run in runs]
