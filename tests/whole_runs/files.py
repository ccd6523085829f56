"""A drawn network as what users have: a native file, an ONNX file, a torch module. None where a form has no such op."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn import functional

from encoders import Network, write_network
from encoders.network import INPUT
from encoders.ops import (
    Abs,
    Add,
    AddConstant,
    Affine,
    ArgMax,
    AveragePool2d,
    AxisSum,
    BatchNorm,
    Concat,
    Conv2d,
    Curve,
    DivideConstant,
    Gather,
    GlobalAveragePool,
    LeakyRelu,
    LogSoftmax,
    MatrixProduct,
    MaxPool2d,
    MultiplyConstant,
    Op,
    Product,
    Relu,
    Reshape,
    Sigmoid,
    Slice,
    Softmax,
    Sub,
    Tanh,
    Transpose,
)

FORMS = ("native", "onnx", "module")
# Of opset 13.
CURVES = {"elu": "Elu", "erf": "Erf", "softplus": "Softplus", "softsign": "Softsign", "sin": "Sin"}
PLAIN = {
    Add: "Add", Sub: "Sub", Product: "Mul", MatrixProduct: "MatMul",
    Relu: "Relu", Abs: "Abs", Sigmoid: "Sigmoid", Tanh: "Tanh",
}  # fmt: skip
CONSTANTS = {AddConstant: "Add", MultiplyConstant: "Mul", DivideConstant: "Div"}


def model_of(network: Network, form: str, folder: Path) -> Path | nn.Module | None:
    """Return the model in a form, written to the folder if it is a file; None where the form cannot say it."""
    if form == "native":
        write_network(network, folder / "model.safetensors")
        return folder / "model.safetensors"
    if form == "module":
        return Drawn(network) if all(isinstance(node.op, _SAID) for node in network.nodes) else None
    # onnxruntime has no kernels in double for some ops.
    if network.dtype != torch.float32:
        return None
    nodes, weights = [], []
    for number, node in enumerate(network.nodes):
        steps, inputs = _onnx(node.op), list(node.inputs)
        if steps is None:
            return None
        for step, (operator, tensors, attributes) in enumerate(steps):
            names = [f"{number}.{step}.{i}" for i in range(len(tensors))]
            weights += [numpy_helper.from_array(array, name) for array, name in zip(tensors, names, strict=True)]
            done = step == len(steps) - 1
            output = f"{number}.{step}" if not done else "y" if number == len(network.nodes) - 1 else node.name
            nodes.append(helper.make_node(operator, [*inputs, *names], [output], **attributes))
            inputs = [output]
    ends = [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["n", *network.input_shape]),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]  # fmt: skip
    graph = helper.make_graph(nodes, "drawn", ends[:1], ends[1:], weights)
    opset = helper.make_opsetid("", 13)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), folder / "model.onnx")
    return folder / "model.onnx"


# An operator, its constant inputs, its attributes.
Step = tuple[str, list[np.ndarray], dict[str, object]]


def _onnx(op: Op) -> list[Step] | None:
    """Return the operators that compute an op one after the other."""
    if isinstance(op, ArgMax):
        places = ("ArgMax", [], {"axis": op.axis + 1, "keepdims": int(op.keep_axis)})
        return [places, ("Cast", [], {"to": TensorProto.FLOAT})]
    if isinstance(op, Gather):
        taken = [("Flatten", [], {"axis": 1}), ("Gather", [op.index.clamp(min=0).numpy()], {"axis": 1})]
        if op.constant is None:
            return taken
        mask, constant = (tensor.numpy()[None] for tensor in mask_and_constant(op.index, op.constant))
        return [*taken, ("Mul", [mask], {}), ("Add", [constant], {})]
    step = _one_operator(op)
    return step and [step]


def mask_and_constant(index: torch.Tensor, constant: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what is multiplied by and what is added so that only values at an index of -1 become the constant."""
    present = index >= 0
    return present.to(constant.dtype), constant.expand(index.shape).where(~present, 0.0)


def _one_operator(op: Op) -> Step | None:

    def whole(*numbers: int) -> np.ndarray:
        return np.array(numbers, dtype=np.int64)

    if type(op) in PLAIN:
        return PLAIN[type(op)], [], {}
    if type(op) in CONSTANTS:
        return CONSTANTS[type(op)], [op.constant.numpy()[None]], {}
    match op:
        case Affine():
            bias = torch.zeros(len(op.weight)) if op.bias is None else op.bias
            return "Gemm", [op.weight.numpy(), bias.numpy()], {"transB": 1}
        case Conv2d():
            tensors = [op.weight.numpy(), *([] if op.bias is None else [op.bias.numpy()])]
            settings = {"strides": op.stride, "pads": op.padding, "dilations": op.dilation, "group": op.groups}
            return "Conv", tensors, settings
        case LeakyRelu():
            return "LeakyRelu", [], {"alpha": op.slope}
        case Curve() if op.function in CURVES:
            return CURVES[op.function], [], {}
        case BatchNorm() if float(np.float32(op.epsilon)) == op.epsilon:
            tensors = [t.numpy() for t in (op.scale, op.shift, op.mean, op.variance)]
            return "BatchNormalization", tensors, {"epsilon": op.epsilon}
        case MaxPool2d():
            settings = {"strides": op.stride, "pads": op.padding, "dilations": op.dilation}
            return "MaxPool", [], {"kernel_shape": op.kernel, **settings}
        case AveragePool2d():
            settings = {"strides": op.stride, "pads": op.padding, "count_include_pad": int(op.count_padding)}
            return "AveragePool", [], {"kernel_shape": op.kernel, **settings}
        case GlobalAveragePool() if op.keep_axes:
            return "GlobalAveragePool", [], {}
        case AxisSum():
            return "ReduceSum", [whole(*(axis + 1 for axis in op.axes))], {"keepdims": int(op.keep_axes)}
        case Softmax() | LogSoftmax():
            return type(op).__name__, [], {"axis": op.axis + 1}
        case Reshape():
            return "Reshape", [whole(-1, *op.shape)], {}
        case Transpose():
            return "Transpose", [], {"perm": [0, *(axis + 1 for axis in op.permutation)]}
        case Concat():
            return "Concat", [], {"axis": op.axis + 1}
        case Slice():
            return "Slice", [whole(op.start), whole(op.stop), whole(op.axis + 1), whole(op.step)], {}
    return None


_SAID = (
    Affine | Conv2d | Relu | LeakyRelu | Abs | Sigmoid | Tanh | Curve | Add | Sub | Concat | Reshape | Transpose
    | BatchNorm | AddConstant | MultiplyConstant | DivideConstant | Gather | AxisSum | Softmax | LogSoftmax | ArgMax
    | Product | MatrixProduct
)  # fmt: skip


class Drawn(nn.Module):
    """The network in torch's own words."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.steps = []
        for number, node in enumerate(network.nodes):
            tensors = _tensors(node.op)
            self.steps.append((node, {name: f"{name}{number}" for name in tensors}))
            for name, tensor in tensors.items():
                self.register_buffer(f"{name}{number}", tensor)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values = {INPUT: x}
        for node, places in self.steps:
            tensors = {name: getattr(self, place) for name, place in places.items()}
            values[node.name] = _torch(node.op, [values[name] for name in node.inputs], tensors)
        return values[self.steps[-1][0].name]


def _tensors(op: Op) -> dict[str, torch.Tensor]:
    if not isinstance(op, Gather):
        return op.parameters()
    places = {"places": op.index.clamp(min=0).flatten()}
    if op.constant is None:
        return places
    return {**places, **dict(zip(("mask", "constant"), mask_and_constant(op.index, op.constant), strict=True))}


def _torch(op: Op, x: list[torch.Tensor], tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    match op:
        case Affine():
            return functional.linear(x[0], tensors["weight"], tensors.get("bias"))
        case Conv2d():
            top, left, bottom, right = op.padding
            padded = functional.pad(x[0], (left, right, top, bottom)) if any(op.padding) else x[0]
            return functional.conv2d(
                padded, tensors["weight"], tensors.get("bias"), op.stride, 0, op.dilation, op.groups
            )
        case LeakyRelu():
            return functional.leaky_relu(x[0], op.slope)
        case Curve():
            others = {"erf": torch.erf, "sin": torch.sin}
            return (others.get(op.function) or getattr(functional, op.function))(x[0])
        case Concat():
            return torch.cat(x, dim=op.axis + 1)
        case Reshape():
            return x[0].reshape(-1, *op.shape)
        case Transpose():
            return x[0].permute(0, *(axis + 1 for axis in op.permutation))
        case BatchNorm():
            return functional.batch_norm(
                x[0], tensors["mean"], tensors["variance"], tensors["scale"], tensors["shift"], eps=op.epsilon
            )
        case AddConstant():
            return x[0] + tensors["constant"]
        case MultiplyConstant():
            return x[0] * tensors["constant"]
        case DivideConstant():
            return x[0] / tensors["constant"]
        case Gather():
            taken = x[0].flatten(1).index_select(1, tensors["places"]).reshape(-1, *op.index.shape)
            return taken if op.constant is None else taken * tensors["mask"] + tensors["constant"]
        case AxisSum():
            return x[0].sum(dim=[axis + 1 for axis in op.axes], keepdim=op.keep_axes)
        case Softmax():
            return torch.softmax(x[0], dim=op.axis + 1)
        case LogSoftmax():
            return torch.log_softmax(x[0], dim=op.axis + 1)
        case ArgMax():
            return x[0].argmax(dim=op.axis + 1, keepdim=op.keep_axis).to(x[0].dtype)
        case Product():
            return x[0] * x[1]
        case MatrixProduct():
            return x[0] @ x[1]
        case Sub():
            return x[0] - x[1]
        case Add():
            return x[0] + x[1]
    return {Relu: torch.relu, Abs: torch.abs, Sigmoid: torch.sigmoid, Tanh: torch.tanh}[type(op)](x[0])
