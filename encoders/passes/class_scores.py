"""A classifier as a network of one score for each class, in the order of the classes: what methods are asked about.

Last ops that keep the order of all outputs in real arithmetic (softmax, sigmoid) are left out in front of a
comparison: floats saturate in them, and bounds through them are loose. A last argmax is left out too; its inputs are
the scores. One output z, or sigmoid(z), is a classifier of two classes with the scores (0, z): class 1 where the
output is above 0, or above 0.5. Nothing is rounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

import numpy as np
import torch

from encoders.box import Box
from encoders.network import INPUT, Network, Node
from encoders.ops import Affine, Op, Reshape

# Inputs up to here are asked whether one output is a share of 1, up to what its range is rounded by.
FAR, ROUNDING = 1e6, 1e-6


@dataclass(frozen=True, eq=False)
class ClassScores:
    """A classifier: network gives `(classes,)` scores, model gives what the file does.

    threshold: above which the one output of the model means class 1; None: there are more. chosen: whether the model
    returns the class itself. note: how the outputs are read, in a sentence; empty if they are the scores.
    """

    network: Network
    model: Network
    threshold: float | None = None
    chosen: bool = False
    note: str = ""

    def read(self, outputs: np.ndarray) -> np.ndarray:
        """Return scores `(batch, classes)` in the order of the model's outputs `(batch, *output_shape)`.

        The class that the model returns has score 1 and the others 0; NaN where it returns none that exists.
        """
        flat = outputs.reshape(len(outputs), -1)
        if self.threshold is not None:
            # Of a probability the other one: 1 - p is above, at or below p where 1/2 is, however it is rounded.
            other = 1.0 - flat if self.threshold == 0.5 else np.full_like(flat, self.threshold)
            return np.concatenate([other, flat], axis=1)
        if not self.chosen:
            return flat
        scores = (flat == np.arange(self.network.output_shape[0])).astype(np.float64)
        return np.where(scores.sum(axis=1, keepdims=True) == 1.0, scores, np.nan)


def class_scores(network: Network) -> ClassScores:
    """Return the classifier that a network is. Raises ValueError with what is supported where it is none."""
    nodes = {node.name: node for node in network.nodes}
    last, outputs = network.output, _number(network.output_shape)
    while last.op.keeps_values and last.inputs[0] in nodes:
        last = nodes[last.inputs[0]]
    if last.op.chooses:
        if outputs == 1 and _number(network.shapes[last.inputs[0]]) > 1:
            scores, dropped = before_order(network, last.inputs[0])
            note = (
                f"the class is the place of the greatest score, which the last {_named(last)} returns{_also(dropped)}"
            )
            return ClassScores(scores, network, None, True, note)
    elif outputs == 1:
        return _of_one(network)
    elif max(network.output_shape) == outputs:
        scores, dropped = before_order(network)
        notes = [f"outputs of shape {network.output_shape} are one vector"] if len(network.output_shape) > 1 else []
        notes += [f"classes are compared before{_list(dropped)}"] if dropped else []
        return ClassScores(scores, network, None, False, "; ".join(notes))
    raise ValueError(
        f"{network.source}: a classifier's output is one vector of at least 2 classes, one value (class 1 above a "
        f"threshold), or one class, got shape {network.output_shape}"
    )


def before_order(network: Network, end: str | None = None) -> tuple[Network, tuple[Node, ...]]:
    """Return (the network of values in the order of a node's, flat as they are; the nodes that were left out).

    end: the node, None for the last one. The new network ends in a vector.
    """
    nodes = {node.name: node for node in network.nodes}
    name, dropped = end or network.output.name, []
    while (node := nodes.get(name)) is not None and len(node.inputs) == 1:
        if not node.op.keeps_order_of(network.shapes[node.inputs[0]]):
            break
        dropped.append(node)
        name = node.inputs[0]
    kept = tuple(node for node in dropped if not node.op.keeps_values)
    if not kept and end is None and len(network.output_shape) == 1:
        return network, ()
    return _ending_at(network, name), kept


def _of_one(network: Network) -> ClassScores:
    """Return the classifier of two classes that a network of one output is."""
    nodes = {node.name: node for node in network.nodes}
    name, level, dropped = network.output.name, None, []
    while (node := nodes.get(name)) is not None and len(node.inputs) == 1:
        own = node.op.value_at_zero
        if not node.op.keeps_values and (own is None or own != (own if level is None else 0.0)):
            break
        if not node.op.keeps_values:
            # Above f(0) exactly where the input is above zero.
            level = own if level is None else level
            dropped.append(node)
        name = node.inputs[0]
    if level is None and _is_share(network):
        raise ValueError(
            f"{network.source}: its one output always lies between 0 and 1, and no last sigmoid says above which value "
            "it means class 1; let the model end in that sigmoid, or in the value that it is taken of"
        )
    threshold = level or 0.0
    signed = Affine(torch.tensor([[0.0], [1.0]], dtype=network.dtype))
    scores = _ending_at(network, name, signed)
    note = f"one output is two classes: class 1 where it is above {threshold:g}, else class 0{_also(dropped)}"
    return ClassScores(scores, network, threshold, False, note)


def _is_share(network: Network) -> bool:
    """Return whether intervals show that all outputs lie between 0 and 1, but for rounding."""
    reach = torch.full((1, *network.input_shape), FAR, dtype=torch.float64)
    (outputs,) = network.interval(Box(-reach, reach))
    return bool((outputs.lower >= -ROUNDING).all()) and bool((outputs.upper <= 1.0 + ROUNDING).all())


def _ending_at(network: Network, name: str, *ops: Op) -> Network:
    """Return the network up to a node, as a vector, and ops behind it."""
    shape = network.shapes[name]
    flat = [] if len(shape) == 1 and (ops or name != INPUT) else [Reshape((_number(shape),))]
    needed, nodes = {name}, []
    for node in reversed(network.nodes):
        if node.name in needed:
            needed.update(node.inputs)
            nodes.append(node)
    nodes.reverse()
    free = (fresh for i in count() if (fresh := f"scores-{i}") not in network.shapes)
    for op in (*flat, *ops):
        nodes.append(Node(next(free), op, (name,)))
        name = nodes[-1].name
    return Network(tuple(nodes), network.input_shape, network.dtype, network.source)


def _number(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=int))


def _named(node: Node) -> str:
    return f"{node.op.kind} ({node.name!r})"


def _list(dropped: tuple[Node, ...] | list[Node]) -> str:
    names = ", ".join(_named(node) for node in dropped)
    return f" the last {names}, which {'keeps' if len(dropped) == 1 else 'keep'} their order"


def _also(dropped: tuple[Node, ...] | list[Node]) -> str:
    return f"; compared before{_list(dropped)}" if dropped else ""
