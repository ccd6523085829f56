"""What a sliding window of a file may ask for: cells of one window, and places of the padded map it slides over.

Checked before anything looks at the op's shapes, as the kernel of a pool is a number in the file and no weight.
"""

import math

from encoders.box import Shape
from encoders.limits import Limits
from encoders.ops import AveragePool2d, Conv2d, MaxPool2d, Op

# Strides and dilations beyond this do not fit the index arithmetic of the frameworks.
LARGEST_STEP = 2**31 - 1


def check_windows(op: Op, shape: Shape, limits: Limits, where: str) -> None:
    """Raise LimitError if a window of `op`, or its padded input `(channels, height, width)`, is beyond the limits.

    Raises ValueError for a stride or dilation that no framework can count with. Other ops pass.
    """
    if isinstance(op, Conv2d):
        kernel = (int(op.weight.shape[2]), int(op.weight.shape[3]))
        dilation = op.dilation
    elif isinstance(op, AveragePool2d | MaxPool2d):
        kernel = op.kernel
        dilation = op.dilation if isinstance(op, MaxPool2d) else (1, 1)
    else:
        return
    limits.check("window_cells", math.prod(kernel), f"{where}: a window of {kernel}")
    steps = (*op.stride, *dilation)
    if max(steps) > LARGEST_STEP:
        raise ValueError(f"a stride or dilation of {max(steps)} is not supported; supported: up to {LARGEST_STEP}")
    if len(shape) == 3:
        top, left, bottom, right = op.padding
        padded = (shape[0], shape[1] + top + bottom, shape[2] + left + right)
        limits.check("node_values", math.prod(padded), f"{where}: its padded input of shape {padded}")
