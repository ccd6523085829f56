"""ONNX operators that slide windows over one to three axes: convolutions and pools."""

from collections.abc import Sequence

from encoders.formats.graph import Value
from encoders.formats.onnx_node import OnnxNode
from encoders.formats.reductions import greatest_over
from encoders.formats.transposed_windows import transposed_convolution
from encoders.formats.windows import Sizes, Windows, average_pool, convolution, max_pool


def conv(node: OnnxNode) -> Value:
    """Return the cross-correlation with a constant kernel."""
    x, weight = node.value(0), node.weight(1)
    kernel = tuple(int(size) for size in weight.shape[2:])
    _check_axes(node, x, len(kernel), f"kernels of shape {tuple(weight.shape)}")
    node.expect("kernel_shape", list(kernel))
    windows = _windows(node, x, kernel)
    bias = node.weight(2) if node.has(2) else None
    return convolution(node, x, weight, bias, windows, node.attributes.get("group", 1))


def conv_transpose(node: OnnxNode) -> Value:
    """Return the transposed convolution with a constant kernel."""
    x, weight = node.value(0), node.weight(1)
    kernel = tuple(int(size) for size in weight.shape[2:])
    axes = len(kernel)
    _check_axes(node, x, axes, f"kernels of shape {tuple(weight.shape)}")
    node.expect("kernel_shape", list(kernel))
    stride, dilation = _numbers(node, "strides", axes), _numbers(node, "dilations", axes)
    extra = _numbers(node, "output_padding", axes, 0)
    if any(more >= step for more, step in zip(extra, stride, strict=True)):
        # onnxruntime 1.32 stops.
        raise ValueError(f"output_padding = {list(extra)} must be less than strides = {list(stride)}")
    reach = Windows(kernel, stride, (0,) * axes, (0,) * axes, dilation).reach
    asked = node.attributes.get("output_shape")
    mode, pads = node.attributes.get("auto_pad", "NOTSET"), _numbers(node, "pads", 2 * axes, 0)
    if mode not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise ValueError(f"auto_pad = {mode!r} is unknown")
    if mode != "NOTSET" and any(pads):
        raise ValueError(f"auto_pad = {mode!r} together with pads = {list(pads)} is ambiguous")
    if asked is not None and len(asked) not in (axes, axes + 2):
        raise ValueError(f"output_shape = {asked} is not supported; supported: {axes} sizes")
    before, after = pads[:axes], pads[axes:]
    if asked is not None or mode.startswith("SAME"):
        steps = [size * step for size, step in zip(x.shape[2:], stride, strict=True)]
        wanted = steps if asked is None else asked[-axes:]
        total = [
            (size - 1) * step + more + span - target
            for size, step, more, span, target in zip(x.shape[2:], stride, extra, reach, wanted, strict=True)
        ]
        if min(total) < 0:
            raise ValueError(f"an output of {list(wanted)} would need negative padding; ask for it by output_padding")
        less, more_ = tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
        before, after = (less, more_) if mode == "SAME_UPPER" else (more_, less)
    bias = node.weight(2) if node.has(2) else None
    windows = Windows(kernel, stride, before, after, dilation)
    return transposed_convolution(node, x, weight, bias, windows, extra, node.attributes.get("group", 1))


def maxima(node: OnnxNode) -> Value:
    """Return maxima over windows."""
    x, windows, ceil = _pooling(node)
    node.expect("storage_order", 0)
    return max_pool(node, x, windows, ceil)


def means(node: OnnxNode) -> Value:
    """Return means over windows."""
    x, windows, ceil = _pooling(node)
    return average_pool(node, x, windows, bool(node.attributes.get("count_include_pad", 0)), ceil)


def global_max_pool(node: OnnxNode) -> Value:
    """Return the maximum over all axes after the channels, kept with size 1."""
    x = node.value(0)
    node.graph.require_batch(x, max(len(x.shape), 3))
    return greatest_over(node.graph, node.name, x, range(2, len(x.shape)), True)


def _pooling(node: OnnxNode) -> tuple[Value, Windows, bool]:
    """Return input, windows and whether the last window may hang over."""
    x = node.value(0)
    if "kernel_shape" not in node.attributes:
        raise ValueError("kernel_shape is missing")
    kernel = tuple(node.attributes["kernel_shape"])
    _check_axes(node, x, len(kernel), f"kernel_shape = {list(kernel)}")
    return x, _windows(node, x, kernel), bool(node.attributes.get("ceil_mode", 0))


def _check_axes(node: OnnxNode, x: Value, axes: int, what: str) -> None:
    if not 1 <= axes <= 3:
        raise ValueError(f"{what} is not supported; supported: windows over one to three axes")
    node.graph.require_batch(x, axes + 2)


def _numbers(node: OnnxNode, attribute: str, count: int, default: int = 1) -> Sizes:
    values = node.attributes.get(attribute, [default] * count)
    if len(values) != count:
        raise ValueError(f"{attribute} = {values} is not supported; supported: {count} numbers for {node.kind} here")
    return tuple(values)


def _windows(node: OnnxNode, x: Value, kernel: Sizes) -> Windows:
    stride, dilation = _numbers(node, "strides", len(kernel)), _numbers(node, "dilations", len(kernel))
    if min(*kernel, *stride, *dilation) < 1:
        raise ValueError("needs kernel >= 1, stride >= 1 and dilation >= 1")
    before, after = _padding(node, x.shape[2:], kernel, stride, dilation)
    if min(*before, *after) < 0:
        raise ValueError(f"pads = {[*before, *after]} is not supported; supported: 0 and more")
    return Windows(kernel, stride, before, after, dilation)


def _padding(
    node: OnnxNode, sizes: Sequence[int], kernel: Sizes, stride: Sizes, dilation: Sizes
) -> tuple[Sizes, Sizes]:
    """Return the padding before and after each axis, from pads or auto_pad."""
    mode, axes = node.attributes.get("auto_pad", "NOTSET"), len(kernel)
    pads = _numbers(node, "pads", 2 * axes, 0)
    if mode == "NOTSET":
        return pads[:axes], pads[axes:]
    if any(pads):
        raise ValueError(f"auto_pad = {mode!r} together with pads = {list(pads)} is ambiguous")
    if mode == "VALID":
        return (0,) * axes, (0,) * axes
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        raise ValueError(f"auto_pad = {mode!r} is unknown")
    if max(dilation) > 1:
        # onnxruntime 1.32 pads a pool as if there were no dilation, and a convolution not at all: it stops.
        raise ValueError(
            f"auto_pad = {mode!r} with dilations = {list(dilation)} is padded differently by different runtimes; write "
            "the pads out"
        )
    before, after = [], []
    for size, width, step in zip(sizes, kernel, stride, strict=True):
        total = (-(-size // step) - 1) * step + width - size
        if total < 0 and node.kind != "Conv":
            # onnxruntime 1.32 stops: "padding values must be non-negative". For a convolution it takes 0.
            raise ValueError(f"auto_pad = {mode!r} would leave values out, as the strides {list(stride)} are larger")
        total = max(total, 0)
        less, more = total // 2, total - total // 2
        before.append(less if mode == "SAME_UPPER" else more)
        after.append(more if mode == "SAME_UPPER" else less)
    return tuple(before), tuple(after)
