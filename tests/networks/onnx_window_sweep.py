"""Random ONNX operators that slide windows over one to three axes, or resize, for the sweep of the reader."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.networks.onnx_drawing import Drawing, Shape


def window(d: Drawing, axes: int) -> dict[str, Any]:
    """Return pads or auto_pad, strides and dilations."""
    mode = d.choice([None, None, "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"])
    pads = [d.integer(0, 2) for _ in range(2 * axes)] if d.chance() else None
    if pads and d.chance():
        pads[axes:] = pads[:axes]
    return {
        "auto_pad": mode,
        "pads": pads if mode in (None, "NOTSET") or d.chance(0.1) else None,
        "strides": [d.integer(1, 3) for _ in range(axes)] if d.chance(0.7) else None,
        "dilations": d.choice([None, [1] * axes, [d.integer(1, 3) for _ in range(axes)]]),
    }


def window_sizes(d: Drawing, shape: Shape) -> list[int]:
    return [d.integer(1, 4 if size > 4 else 2) for size in shape[2:]]


def conv(d: Drawing, x: str, shape: Shape) -> str:
    kernel = window_sizes(d, shape)
    group = d.choice([group for group in range(1, shape[1] + 1) if shape[1] % group == 0])
    outputs = group * d.integer(1, 2)
    inputs = [x, d.weight(outputs, shape[1] // group, *kernel)]
    if d.chance():
        inputs.append(d.weight(outputs))
    attributes = window(d, len(kernel))
    return d.add("Conv", *inputs, group=group, kernel_shape=kernel if d.chance() else None, **attributes)


def conv_transpose(d: Drawing, x: str, shape: Shape) -> str:
    kernel = window_sizes(d, shape)
    group = d.choice([group for group in range(1, shape[1] + 1) if shape[1] % group == 0])
    outputs = d.integer(1, 2)
    inputs = [x, d.weight(shape[1], outputs, *kernel)]
    if d.chance():
        inputs.append(d.weight(group * outputs))
    attributes = window(d, len(kernel))
    strides = attributes["strides"] or [1] * len(kernel)
    asked = [size * step + d.integer(-1, 1) for size, step in zip(shape[2:], strides, strict=True)]
    return d.add(
        "ConvTranspose",
        *inputs,
        group=group,
        kernel_shape=kernel if d.chance() else None,
        output_padding=[d.integer(0, 2) for _ in kernel] if d.chance(0.4) else None,
        output_shape=asked if d.chance(0.3) else None,
        **attributes,
    )


def pool(d: Drawing, x: str, shape: Shape) -> str:
    kernel = window_sizes(d, shape)
    if d.chance(0.15):
        return d.add("GlobalMaxPool", x)
    return d.add(
        d.choice(["MaxPool", "AveragePool"]),
        x,
        kernel_shape=kernel,
        ceil_mode=d.choice([None, None, 0, 1, 1]),
        count_include_pad=d.choice([None, 0, 1]),
        storage_order=d.choice([None, None, 0, 1]),
        **window(d, len(kernel)),
    )


def resize(d: Drawing, x: str, shape: Shape) -> str:
    scales = [1.0, 1.0, *(d.choice([1.0, 2.0, 3.0, 0.5, 1.5, d.random.uniform(0.3, 3)]) for _ in shape[2:])]
    if d.opset < 10:
        scales = [max(scale, 1.0) for scale in scales]
    factors = np.array(scales, np.float32)
    mode = d.choice(["nearest", "linear"])
    if d.opset < 9:
        return d.add("Upsample", x, mode=mode, scales=scales)
    if d.opset < 11:
        return d.add("Upsample" if d.opset == 9 else "Resize", x, d.stored(factors), mode=mode)
    mode = d.choice(["nearest", "linear", "cubic"])
    axes = list(range(2, len(shape))) if d.opset >= 18 and d.chance() else None
    if d.chance():
        ends = [d.stored(factors if axes is None else factors[2:])]
    else:
        sizes = np.array([max(1, int(size * scale)) for size, scale in zip(shape, scales, strict=True)])
        ends = ["" if d.opset >= 13 else d.stored(np.zeros(0, np.float32))]
        ends.append(d.stored(sizes if axes is None else sizes[2:]))
    return d.add(
        "Resize",
        x,
        d.stored(np.zeros(0, np.float32)),
        *ends,
        mode=mode,
        axes=axes,
        coordinate_transformation_mode=d.choice(
            [
                None, "half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_half_pixel_for_nn",
                "tf_crop_and_resize", *(["half_pixel_symmetric"] if d.opset >= 19 else []),
            ]
        ),
        nearest_mode=d.choice([None, "floor", "ceil", "round_prefer_floor", "round_prefer_ceil"]),
        cubic_coeff_a=d.choice([None, -0.5]),
        exclude_outside=d.choice([None, 0, 1]),
        antialias=d.choice([None, None, 0, 1]),
    )  # fmt: skip


WINDOWS: tuple[Callable[[Drawing, str, Shape], str], ...] = (
    conv, conv, conv, pool, pool, pool, conv_transpose, resize, resize,
)  # fmt: skip
# What they slide over: one axis, two and three.
WINDOW_SHAPES: tuple[Shape, ...] = ((1, 4, 7, 6), (1, 4, 7), (1, 2, 5, 4, 3))
