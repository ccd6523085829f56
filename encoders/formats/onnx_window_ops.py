"""ONNX operators that slide a window over an image: convolution and pools. Padding as the specification says."""

from encoders.formats.graph import Value
from encoders.formats.onnx_node import OnnxNode
from encoders.ops import AveragePool2d, Conv2d, MaxPool2d


def conv(node: OnnxNode) -> Value:
    """Return the two-dimensional cross-correlation with a constant kernel."""
    x, weight = node.value(0), node.weight(1)
    if weight.dim() != 4:
        raise ValueError(f"kernels of shape {tuple(weight.shape)} are not supported; supported: two-dimensional")
    node.graph.require_batch(x, 4)
    kernel = (int(weight.shape[2]), int(weight.shape[3]))
    node.expect("kernel_shape", list(kernel))
    dilation = _pair(node, "dilations")
    stride = _pair(node, "strides")
    padding = _padding(node, x, kernel, stride, dilation)
    bias = node.weight(2) if node.has(2) else None
    return node.emit(Conv2d(weight, bias, stride, padding, dilation, node.attributes.get("group", 1)), x)


def max_pool(node: OnnxNode) -> Value:
    """Return maxima over windows."""
    x, kernel, stride = _pooling(node)
    node.expect("storage_order", 0)
    dilation = _pair(node, "dilations")
    return node.emit(MaxPool2d(kernel, stride, _padding(node, x, kernel, stride, dilation), dilation), x)


def average_pool(node: OnnxNode) -> Value:
    """Return means over windows."""
    x, kernel, stride = _pooling(node)
    node.expect("dilations", [1, 1])
    padding = _padding(node, x, kernel, stride, (1, 1))
    return node.emit(AveragePool2d(kernel, stride, padding, bool(node.attributes.get("count_include_pad", 0))), x)


def _pooling(node: OnnxNode) -> tuple[Value, tuple[int, int], tuple[int, int]]:
    """Return input, kernel and stride of a pooling node."""
    x = node.value(0)
    node.graph.require_batch(x, 4)
    node.expect("ceil_mode", 0)
    if "kernel_shape" not in node.attributes:
        raise ValueError("kernel_shape is missing")
    return x, _pair(node, "kernel_shape"), _pair(node, "strides")


def _pair(node: OnnxNode, attribute: str) -> tuple[int, int]:
    values = node.attributes.get(attribute, [1, 1])
    if len(values) != 2:
        raise ValueError(f"{attribute} = {values} is not supported; supported: two dimensions")
    return values[0], values[1]


def _padding(
    node: OnnxNode, x: Value, kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Return (top, left, bottom, right) from pads or auto_pad."""
    mode = node.attributes.get("auto_pad", "NOTSET")
    pads = node.attributes.get("pads", [0, 0, 0, 0])
    if len(pads) != 4:
        raise ValueError(f"pads = {pads} is not supported; supported: two dimensions")
    if mode == "NOTSET":
        return pads[0], pads[1], pads[2], pads[3]
    if any(pads):
        raise ValueError(f"auto_pad = {mode!r} together with pads = {pads} is ambiguous")
    if mode == "VALID":
        return 0, 0, 0, 0
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        raise ValueError(f"auto_pad = {mode!r} is unknown")
    if dilation != (1, 1):
        # onnxruntime 1.32 pads a pool as if there were no dilation, and a convolution not at all: it stops.
        raise ValueError(
            f"auto_pad = {mode!r} with dilations = {list(dilation)} is padded differently by different runtimes; write "
            "the pads out"
        )
    before, after = [], []
    for size, width, step in zip(x.shape[2:], kernel, stride, strict=True):
        total = (-(-size // step) - 1) * step + width - size
        if total < 0 and node.kind != "Conv":
            # onnxruntime 1.32 stops: "padding values must be non-negative". For a convolution it takes 0.
            raise ValueError(f"auto_pad = {mode!r} would leave values out, as the strides {list(stride)} are larger")
        total = max(total, 0)
        less, more = total // 2, total - total // 2
        before.append(less if mode == "SAME_UPPER" else more)
        after.append(more if mode == "SAME_UPPER" else less)
    return before[0], before[1], after[0], after[1]
