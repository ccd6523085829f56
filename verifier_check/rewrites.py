"""Networks rewritten as docs/certificate-format.md says: the scores of a classifier, and max pools as relus."""

from __future__ import annotations

import itertools
import math
import struct

from verifier_check.network import INPUT, Network, Node, Tensor, output_shape
from verifier_check.refusals import Refused


def scores(network: Network) -> Network:
    """Return the network of one score for each class: without last ops that keep the order; two for one output."""
    nodes, name, level, single = {n.name: n for n in network.nodes}, network.nodes[-1].name, None, False
    if math.prod(network.shapes[name]) == 1:
        single = True
        while name in nodes and (kind := nodes[name].kind) in ("reshape", "sigmoid", "tanh"):
            own = {"reshape": None, "sigmoid": 0.5, "tanh": 0.0}[kind]
            if own is not None and own != (own if level is None else 0.0):
                break
            level, name = own if level is None else level, nodes[name].inputs[0]
    else:
        while name in nodes and nodes[name].kind in ("reshape", "sigmoid", "tanh", "softmax", "log-softmax"):
            shape = network.shapes[nodes[name].inputs[0]]
            if nodes[name].kind.endswith("softmax") and shape[nodes[name].settings["axis"]] != math.prod(shape):
                break
            name = nodes[name].inputs[0]
    shape = network.shapes[name]
    extra = (
        []
        if len(shape) == 1 and (single or name != INPUT)
        else [Node("", "reshape", [], {"shape": [math.prod(shape)]}, {})]
    )
    if single:
        code = {"float32": "f", "float64": "d"}[network.dtype]
        weight = Tensor({"f": "F32", "d": "F64"}[code], [2, 1], struct.pack(f"<2{code}", 0.0, 1.0))
        extra.append(Node("", "affine", [], {}, {"weight": weight}))
    made, needed = [], {name}
    for node in reversed(network.nodes):
        if node.name in needed:
            needed.update(node.inputs)
            made.append(node)
    made.reverse()
    for number, node in enumerate(extra):
        made.append(Node(f"scores {number}", node.kind, [name], node.settings, node.tensors))
        name = made[-1].name
    return Network(made, network.input_shape, network.dtype)


def without_max_pools(network: Network) -> Network:
    """Return the network with each max pool as a tree of relus, max(a, b) = b + relu(a - b), rows before columns."""
    made = {node.name: node for node in network.nodes}
    if all(node.kind != "max-pool2d" for node in network.nodes):
        return network
    taken, nodes = set(made), list[Node]()
    rising = {name for name, node in made.items() if node.kind in ("relu", "leaky-relu")}
    fresh = (f"pool-{i}" for i in itertools.count())
    for node in network.nodes:
        before = made.get(node.inputs[0])
        if node.kind == "max-pool2d" and before is not None and before.name in rising:
            # The pool of a rising hinge is the hinge of the pool.
            name = next(each for each in fresh if each not in taken)
            taken.add(name)
            nodes.append(Node(name, node.kind, before.inputs, node.settings, {}))
            nodes.append(Node(node.name, before.kind, [name], before.settings, {}))
        else:
            nodes.append(node)
    read = {name for node in nodes for name in node.inputs} | {network.nodes[-1].name}
    pooled = {node.inputs[0] for node in network.nodes if node.kind == "max-pool2d"} & rising
    nodes = [node for node in nodes if node.name in read or node.name not in pooled]
    found = list[Node]()
    for node in nodes:
        is_pool = node.kind == "max-pool2d"
        found += _pool(node, network.shapes[node.inputs[0]], taken) if is_pool else [node]
    return Network(found, network.input_shape, network.dtype)


def _pool(node: Node, shape: tuple[int, ...], taken: set[str]) -> list[Node]:
    nodes, value = list[Node](), node.inputs[0]
    names = (f"{node.name}-{i}" for i in itertools.count())

    def push(kind: str, inputs: list[str], **settings: int) -> str:
        nodes.append(Node(next(name for name in names if name not in taken), kind, inputs, settings, {}))
        return nodes[-1].name

    def gathered(axis: int, places: tuple[int, ...]) -> str:
        if places == tuple(range(shape[axis])):
            return value
        runs = list[list[int]]()
        for place in places:
            run = runs[-1] if runs else []
            step = run[1] - run[0] if len(run) > 1 else place - run[0] if run else 0
            if step >= 1 and place - run[-1] == step:
                run.append(place)
            else:
                runs.append([place])
        joined = ""
        for run in runs:
            step = run[1] - run[0] if len(run) > 1 else 1
            part = push("slice", [value], axis=axis, start=run[0], stop=run[-1] + 1, step=step)
            joined = push("concat", [joined, part], axis=axis) if joined else part
        return joined

    s, outputs = node.settings, output_shape(node, [shape])
    for axis in (1, 2):
        kernel, stride, pad, dilation = (s[name][axis - 1] for name in ("kernel", "stride", "padding", "dilation"))
        columns = []
        for output in range(outputs[axis]):
            # In place of a cell in the padding stands the nearest one of the window.
            inside = [k for k in range(kernel) if 0 <= output * stride - pad + k * dilation < shape[axis]]
            if not inside:
                raise Refused(f"node {node.name!r}: a window lies in the padding alone")
            cells = [min(max(k, inside[0]), inside[-1]) for k in range(kernel)]
            columns.append([output * stride - pad + k * dilation for k in cells])
        rows = sorted(set(zip(*columns, strict=True)))
        values = [gathered(axis, row) for row in rows]
        while len(values) > 1:
            pairs = [
                push("add", [b, push("relu", [push("sub", [a, b])])])
                for a, b in zip(values[::2], values[1::2], strict=False)
            ]
            values = pairs + values[len(values) // 2 * 2 :]
        value = values[0]
    if not nodes:
        value = push("slice", [value], axis=1, start=0, stop=shape[1], step=1)
    nodes[-1].name = node.name
    return nodes
