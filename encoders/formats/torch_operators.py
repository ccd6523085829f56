"""The operators of exported torch programs that are understood: one table, and what is known of their memory."""

from collections.abc import Callable

from torch import Tensor

from encoders.formats import torch_class_ops as classes
from encoders.formats import torch_curve_ops as curves
from encoders.formats import torch_ops as ops
from encoders.formats import torch_product_ops as factors
from encoders.formats import torch_reductions as sums
from encoders.formats import torch_resize_ops as resizing
from encoders.formats import torch_shape_ops as moves
from encoders.formats import torch_window_ops as windows
from encoders.formats.graph import Value
from encoders.formats.reductions import greatest_over, least_over, mean_over, sum_over
from encoders.formats.torch_cells import MOVES, moved
from encoders.formats.torch_node import TorchNode
from encoders.ops import LogSoftmax, Relu, Sigmoid, Softmax, Tanh

HANDLERS: dict[str, Callable[[TorchNode], Value | list[Value] | Tensor]] = {
    "aten._native_batch_norm_legit_no_training.default": ops.batch_norm,
    "aten._log_softmax.default": classes.along_axis(LogSoftmax),
    "aten._softmax.default": classes.along_axis(Softmax),
    "aten._to_copy.default": moves.to_dtype,
    "aten._unsafe_view.default": moves.view,
    "aten.abs.default": ops.absolute,
    "aten.add.Scalar": ops.add,
    "aten.add.Tensor": ops.add,
    "aten.addmm.default": ops.addmm,
    "aten.alias.default": moves.identity,
    "aten.argmax.default": classes.arg_max,
    "aten.amax.default": sums.reduced(greatest_over),
    "aten.amin.default": sums.reduced(least_over),
    "aten.bmm.default": factors.matmul,
    "aten.batch_norm.default": ops.batch_norm,
    "aten.cat.default": moves.concat,
    "aten.clone.default": moves.identity,
    "aten.contiguous.default": moves.identity,
    "aten.cumsum.default": sums.running_sum,
    "aten.detach.default": moves.identity,
    "aten.div.Scalar": ops.divide,
    "aten.div.Tensor": factors.divide,
    "aten.dropout.default": moves.dropout,
    "aten.einsum.default": sums.einstein_sum,
    "aten.feature_dropout.default": moves.dropout,
    "aten.flatten.using_ints": moves.flatten,
    "aten.full_like.default": moves.filled(None),
    "aten.linear.default": ops.linear,
    "aten.log_softmax.int": classes.along_axis(LogSoftmax),
    "aten.layer_norm.default": factors.layer_norm,
    "aten.matmul.default": factors.matmul,
    "aten.max.dim": sums.reduced(greatest_over),
    "aten.mean.dim": sums.reduced(mean_over),
    "aten.min.dim": sums.reduced(least_over),
    "aten.mm.default": ops.matmul,
    "aten.mul.Scalar": ops.multiply,
    "aten.mul.Tensor": factors.multiply,
    "aten.native_layer_norm.default": factors.layer_norm,
    "aten.neg.default": ops.negate,
    "aten.new_ones.default": moves.filled(1.0),
    "aten.new_zeros.default": moves.filled(0.0),
    "aten.ones_like.default": moves.filled(1.0),
    "aten.permute.default": moves.permute,
    "aten.relu.default": ops.activation(Relu),
    "aten.reshape.default": moves.view,
    "aten.rsub.Scalar": ops.reversed_subtract,
    "aten.rsub.Tensor": ops.reversed_subtract,
    "aten.scaled_dot_product_attention.default": factors.attention,
    "aten.sigmoid.default": ops.activation(Sigmoid),
    "aten.slice.Tensor": moves.slice_,
    "aten.softmax.int": classes.along_axis(Softmax),
    "aten.squeeze.dim": moves.squeeze,
    "aten.squeeze.dims": moves.squeeze,
    "aten.sub.Scalar": ops.subtract,
    "aten.sub.Tensor": ops.subtract,
    "aten.sum.dim_IntList": sums.reduced(sum_over),
    "aten.tanh.default": ops.activation(Tanh),
    "aten.to.dtype": moves.to_dtype,
    "aten.transpose.int": moves.transpose,
    "aten.unflatten.int": moves.unflatten,
    "aten.unsqueeze.default": moves.unsqueeze,
    "aten.view.default": moves.view,
    "aten.zeros_like.default": moves.filled(0.0),
    **{name: moved(name, data) for name, data in MOVES.items()},
    "encoders.k_winners.default": classes.k_winners,
    "encoders.mwd.default": ops.max_weighted_distance,
    "encoders.mwd_conv2d.default": ops.convolutional_max_weighted_distance,
    **curves.HANDLERS,
    **resizing.HANDLERS,
    **windows.HANDLERS,
}

# Calls that return several tensors, of which only the first is supported.
TUPLES = (
    "aten._native_batch_norm_legit_no_training.default",
    "aten.max.dim",
    "aten.min.dim",
    *(f"aten.adaptive_max_pool{axes}d.default" for axes in (1, 2, 3)),
    *(f"aten.max_pool{axes}d_with_indices.default" for axes in (1, 2, 3)),
    "aten.native_layer_norm.default",
)

# What calls handled here return has memory of its own.
_COMPUTING = tuple(module.__name__ for module in (ops, classes, curves, factors, sums, windows, resizing))

# Calls whose result shares no memory with anything that exists before them. What only moves values may return a view.
FRESH = frozenset(name for name, handler in HANDLERS.items() if handler.__module__ in _COMPUTING) | {
    "aten._to_copy.default",
    "aten.cat.default",
    "aten.clone.default",
    "aten.full.default",
    "aten.lift_fresh_copy.default",
    "aten.ones.default",
    "aten.sym_size.int",
    "aten.zeros.default",
}
