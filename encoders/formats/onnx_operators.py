"""The operators of ONNX files that are understood: one table of handlers, and the attributes that each knows."""

from collections.abc import Callable

from encoders.formats import onnx_cell_ops as cells
from encoders.formats import onnx_class_ops as classes
from encoders.formats import onnx_curve_ops as curves
from encoders.formats import onnx_index_ops as indices
from encoders.formats import onnx_ops as ops
from encoders.formats import onnx_product_ops as factors
from encoders.formats import onnx_reductions as sums
from encoders.formats import onnx_resize_ops as resizing
from encoders.formats import onnx_shape_ops as moves
from encoders.formats import onnx_window_ops as windows
from encoders.formats.graph import Value
from encoders.formats.onnx_cells import moved
from encoders.formats.onnx_node import OnnxNode
from encoders.formats.reductions import greatest_over, least_over, mean_over, sum_over

_REDUCTION = ("axes", "keepdims", "noop_with_empty_axes")
_AUTO = ("auto_pad", "pads", "strides", "kernel_shape")

# Operator: (handler, the attributes that it understands).
HANDLERS: dict[str, tuple[Callable[[OnnxNode], Value | tuple[Value, ...]], tuple[str, ...]]] = {
    "Abs": (ops.absolute, ()),
    "Add": (ops.add, ()),
    "ArgMax": (classes.arg_max, ("axis", "keepdims", "select_last_index")),
    "AveragePool": (windows.means, (*_AUTO, "ceil_mode", "count_include_pad", "dilations")),
    # momentum only matters in training.
    "BatchNormalization": (ops.batch_normalization, ("epsilon", "momentum", "spatial", "training_mode")),
    # saturate only matters for casts to 8-bit floats, which are refused.
    "Cast": (moves.cast, ("to", "saturate")),
    "Concat": (cells.concat_values, ("axis",)),
    "Conv": (windows.conv, (*_AUTO, "dilations", "group")),
    "ConvTranspose": (windows.conv_transpose, (*_AUTO, "dilations", "group", "output_padding", "output_shape")),
    "DepthToSpace": (moved(cells.depth_to_space, 0), ("blocksize", "mode")),
    "Div": (factors.divide, ()),
    # ratio and seed only matter in training.
    "Dropout": (moves.dropout, ("ratio", "seed")),
    "Einsum": (sums.einstein_sum, ("equation",)),
    "Expand": (moved(cells.expand, 0), ()),
    "Flatten": (moves.flatten, ("axis",)),
    "Gather": (moved(indices.gather, 0), ("axis",)),
    "GatherElements": (moved(indices.gather_elements, 0), ("axis",)),
    "GatherND": (moved(indices.gather_nd, 0), ("batch_dims",)),
    "Gemm": (ops.gemm, ("alpha", "beta", "transA", "transB")),
    "GlobalAveragePool": (sums.global_average_pool, ()),
    "GlobalMaxPool": (windows.global_max_pool, ()),
    "Identity": (moves.identity, ()),
    "LayerNormalization": (factors.layer_normalization, ("axis", "epsilon", "stash_type")),
    "LogSoftmax": (classes.log_softmax, ("axis",)),
    "MatMul": (factors.matmul, ()),
    "MaxPool": (windows.maxima, (*_AUTO, "ceil_mode", "dilations", "storage_order")),
    "Mean": (sums.average, ()),
    "Mul": (factors.multiply, ()),
    "Neg": (ops.negate, ()),
    "Pad": (moved(cells.pad, 0, fill=cells.padding_value), ("mode", "pads", "value")),
    "ReduceMax": (sums.reduced(greatest_over), _REDUCTION),
    "ReduceMean": (sums.reduced(mean_over), _REDUCTION),
    "ReduceMin": (sums.reduced(least_over), _REDUCTION),
    "ReduceSum": (sums.reduced(sum_over, 13), _REDUCTION),
    "Relu": (ops.relu, ()),
    "Reshape": (moves.reshape, ("allowzero",)),
    "Resize": (resizing.resize, resizing.ATTRIBUTES),
    "Scaler": (ops.scaler, ("offset", "scale")),
    "ScatterElements": (moved(indices.scatter_elements, 0, 2), ("axis", "reduction")),
    "ScatterND": (moved(indices.scatter_nd, 0, 2), ("reduction",)),
    "Sigmoid": (ops.sigmoid, ()),
    "Slice": (cells.slice_values, ("starts", "ends", "axes")),
    "Softmax": (classes.softmax, ("axis",)),
    "SpaceToDepth": (moved(cells.space_to_depth, 0), ("blocksize",)),
    "Split": (moves.split, ("axis", "num_outputs", "split")),
    "Squeeze": (moves.squeeze, ("axes",)),
    "Sub": (ops.subtract, ()),
    "Sum": (sums.add_all, ()),
    "Tanh": (ops.tanh, ()),
    "Tile": (moved(cells.tile, 0), ()),
    "Transpose": (moves.transpose, ("perm",)),
    "Trilu": (moved(cells.trilu, 0, fill=cells.zero), ("upper",)),
    "Unsqueeze": (moves.unsqueeze, ("axes",)),
    "Upsample": (resizing.upsample, ("mode", "scales")),
    "Where": (moved(cells.where, 1, 2), ()),
    **curves.HANDLERS,
}

# Operators that stand in another domain than the default one.
OTHER_DOMAINS = {"Scaler": "ai.onnx.ml"}
