"""What an execution in floating point may take from the margins of a network, as a network of its own.

Every execution in an arithmetic gives class k the value y_k + d_k, |d_k| <= E_k (`execution_errors`). So class c wins
in each of them wherever, in real arithmetic, y_c - E_c > y_k + E_k: wherever c wins the network with these numbers
added to its outputs (`handicapped`), which every method takes as it takes any network.

Of runtimes is assumed that they execute the nodes of the graph, each as a sum of its own products, in any order, and
what is done unit by unit after a sum possibly as part of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from encoders.arithmetic import Arithmetic
from encoders.box import Box
from encoders.network import Network, Node
from encoders.ops import AddConstant, Op
from encoders.passes.class_scores import ClassScores

# A number above all margins of values that an arithmetic holds: where an execution may overflow, nothing is proved.
HOPELESS = 1e300
# A bound computed by another machine may differ by the rounding of its sums.
ANOTHER_ORDER = 1.0 + 2.0**-30


def execution_refusal(network: Network, arithmetic: Arithmetic) -> str | None:
    """Return why nothing is known of executions of a network in an arithmetic, or None."""
    if network.dtype != arithmetic.dtype:
        held = str(network.dtype).removeprefix("torch.")
        return f"{network.source} is executed in {held}, not in {arithmetic.name}; ask with --arithmetic {held}"
    for node in network.nodes:
        where = f"{network.source}: node {node.name!r} ({node.op.kind})"
        if node.op.randomised or not node.op.bounds_execution:
            return f"{where}: how far its execution may err is not known; --arithmetic real asks about real numbers"
        for name, value in node.op.parameters().items():
            if value.is_floating_point() and not torch.equal(value.to(arithmetic.dtype).to(value.dtype), value):
                return f"{where}: {name} holds numbers that are no {arithmetic.name}"
    return None


def execution_errors(network: Network, box: Box, arithmetic: Arithmetic) -> tuple[Box, Tensor]:
    """Return (box of the real outputs, how far an execution lies from them at most `(batch, *output_shape)`).

    box: float64, of the inputs, `(batch, *input_shape)`. Inputs are executed as they are. Errors are infinite where
    something may overflow.
    """

    def step(op: Op, values: Sequence[tuple[Box, Tensor, int]]) -> tuple[Box, Tensor, int]:
        boxes, errors = [value[0] for value in values], [value[1] for value in values]
        # What is done unit by unit may be merged into the sums before it.
        before, own = max(value[2] for value in values), op.fan_in()
        allowed = arithmetic.after(before) if own == 1 else arithmetic
        error = op.execution_error(boxes, errors, allowed).nan_to_num(nan=torch.inf)
        return op.interval(*boxes), error, before if own == 1 else own

    exact = network.cast(torch.float64, box.lower.device)
    ((outputs, error, _),) = exact.fold((box, torch.zeros_like(box.lower), 0), step)
    return outputs, error.expand_as(outputs.lower)


def class_errors(network: Network, classifier: ClassScores | None, box: Box, arithmetic: Arithmetic) -> Tensor:
    """Return by how much scores `(batch, classes)` may be moved before the class that a model returns changes.

    network: of the scores. classifier: how the outputs of the model are read as scores, with what the last ops that
    were left out in front of them round; None: they are the outputs. ValueError names an op that is not known so.
    """
    outputs, error = execution_errors(network, box, arithmetic)
    if classifier is not None:
        left = [node for node in classifier.model.nodes if node.name not in network.shapes]
        left = [node for node in left if not (node.op.keeps_values or node.op.chooses)]
        one = classifier.threshold is not None
        for node in left:
            # Shares of many classes differ by far less than what they are taken of: a second op ties them sooner than
            # its roundings in the units of the scores say.
            alone = one or len(left) == 1
            own = node.op.order_error(outputs, error, arithmetic, one) if alone else None
            if own is None:
                raise ValueError(
                    f"{network.source}: last node {node.name!r} ({node.op.kind}): which of its inputs its execution "
                    "still tells apart is not known; let the model end before it, or ask with --arithmetic real"
                )
            error = error + own
    return (error * ANOTHER_ORDER).nan_to_num(nan=HOPELESS, posinf=HOPELESS).clamp(max=HOPELESS)


def handicapped(network: Network, winner: int, errors: Tensor) -> Network:
    """Return the network whose class `winner` is lowered by its error, and whose others are raised by theirs.

    errors: `(classes,)`, float64. The numbers that are added are stored in float64, rounded against the winner.
    """
    signs = torch.ones_like(errors)
    signs[winner] = -1.0
    last = network.output
    op = last.op.raised(errors * signs) if len(network.shapes[last.inputs[0]]) == 1 else None
    if op is not None:
        nodes = (*network.nodes[:-1], dataclasses.replace(last, op=op))
    else:
        name = next(fresh for i in range(len(network.shapes) + 1) if (fresh := f"rounding-{i}") not in network.shapes)
        nodes = (*network.nodes, Node(name, AddConstant(errors * signs), (last.name,)))
    return Network(nodes, network.input_shape, network.dtype, network.source)
