"""Products of a value and a function of the same value: functions of one number, which exporters write out.

Of z = k x, by a constant k or its inverse, or none,

    (m x) sigmoid(z) = m/k silu(z),   (m x) (1 + erf(z)) = m/k erf_gate(z),   (m x) tanh(softplus(z)) = m/k mish(z)

in real arithmetic, and so for tanh's form of the gelu and for powers. As two factors with bounds of their own they
would be far looser.
"""

from encoders.formats.bends import Emitter
from encoders.formats.graph import GraphBuilder, Value
from encoders.network import Node
from encoders.ops import Add, AddConstant, Curve, DivideConstant, MultiplyConstant, Op, Sigmoid, Tanh
from encoders.ops.curve_activations import is_near_gelu

Scale = MultiplyConstant | DivideConstant


def gated(node: Emitter, a: Value, b: Value) -> Value | None:
    """Return the product of two values as a function of one number; None if it is none that is known."""
    if a.shape != b.shape:
        return None
    for factor, gate in ((a, b), (b, a)):
        found, outer = _power(node.graph, factor, gate), None
        if found is None:
            # torch's newer exporter writes x (0.5 (1 + erf(z))).
            root, outer = _root(node.graph, gate.name)
            found = _gate(node.graph, Value(root, gate.shape))
        if found is None:
            continue
        op, inner = found
        steps = _steps(node.graph, factor.name, inner)
        if steps is None:
            continue
        steps = steps if outer is None else [*steps, outer]
        result = Value(inner, factor.shape)
        for number, step in enumerate((op, *steps)):
            result = node.emit(step, result, part="" if number == len(steps) else "gated")
        return result
    return None


def _steps(graph: GraphBuilder, factor: str, inner: str) -> list[Op] | None:
    """Return the ops that take a function of `inner`, times `inner`, to it times `factor`; None: there are none."""
    if factor == inner:
        return []
    (root, scale), (other, inner_scale) = _root(graph, factor), _root(graph, inner)
    if root != other:
        return None
    return [*([] if inner_scale is None else [_inverse(inner_scale)]), *([] if scale is None else [scale])]


def _power(graph: GraphBuilder, factor: Value, gate: Value) -> tuple[Op, str] | None:
    """Return a power of the factor, if the other is one or the factor itself."""
    if factor.name == gate.name:
        return Curve("power", (2.0,)), factor.name
    made = graph.maker(gate.name)
    if made is None or made.inputs[0] != factor.name or not isinstance(made.op, Curve) or made.op.function != "power":
        return None
    exponent = made.op.arguments[0] + 1.0
    return (Curve("power", (exponent,)), factor.name) if exponent in (3.0, 4.0, 5.0) else None


def _gate(graph: GraphBuilder, value: Value) -> tuple[Op, str] | None:
    """Return the function that a product with a value makes, and the name of what the value is a function of."""
    made = graph.maker(value.name)
    if made is None:
        return None
    before = graph.maker(made.inputs[0])
    if isinstance(made.op, Sigmoid):
        return Curve("silu"), made.inputs[0]
    if before is None:
        return None
    if isinstance(made.op, Tanh) and _is_curve(before, "softplus", (1.0,)):
        return Curve("mish"), before.inputs[0]
    if not isinstance(made.op, AddConstant) or not bool((made.op.constant == 1).all()):
        return None
    if _is_curve(before, "erf"):
        return Curve("erf-gate"), before.inputs[0]
    return _tanh_gate(graph, before.inputs[0]) if isinstance(before.op, Tanh) else None


def _tanh_gate(graph: GraphBuilder, name: str) -> tuple[Op, str] | None:
    """Return the gate of 1 + tanh of a value scale (x + cubic x^3)."""
    total, scale = _root(graph, name)
    made = graph.maker(total)
    if made is None or not isinstance(made.op, Add) or not isinstance(scale, MultiplyConstant):
        return None
    for x, other in (made.inputs, made.inputs[::-1]):
        cube, cubic = _root(graph, other)
        last = graph.maker(cube)
        is_cube = last is not None and last.inputs[0] == x and _is_curve(last, "power", (3.0,))
        if is_cube and isinstance(cubic, MultiplyConstant):
            numbers = (float(scale.constant), float(cubic.constant))
            return (Curve("tanh-gate", numbers), x) if is_near_gelu(*numbers) else None
    return None


def _is_curve(node: Node, function: str, arguments: tuple[float, ...] = ()) -> bool:
    found = node.op
    return isinstance(found, Curve) and (found.function, found.arguments) == (function, arguments)


def _root(graph: GraphBuilder, name: str) -> tuple[str, Scale | None]:
    """Return the value that a value is a multiple of by one number, and the op that multiplies; or itself."""
    made = graph.maker(name)
    if made is None or not isinstance(made.op, MultiplyConstant | DivideConstant):
        return name, None
    constant = made.op.constant
    if constant.numel() != 1 or not bool((constant.isfinite() & (constant != 0)).all()):
        return name, None
    return made.inputs[0], made.op


def _inverse(op: Scale) -> Op:
    return DivideConstant(op.constant) if isinstance(op, MultiplyConstant) else MultiplyConstant(op.constant)
