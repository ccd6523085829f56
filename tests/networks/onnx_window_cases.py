"""One small file of each ONNX operator that slides windows over one to three axes, or resizes."""

from collections.abc import Callable

import numpy as np
import onnx

from tests.networks.onnx_move_cases import normal, one

ROW, IMAGE, BLOCK = ["N", 4, 7], ["N", 4, 5, 6], ["N", 2, 3, 4, 5]
NONE = np.zeros(0, np.float32)


def factors(*numbers: float) -> np.ndarray:
    return np.array([1, 1, *numbers], np.float32)


WINDOW_CASES: dict[str, Callable[[], onnx.ModelProto]] = {
    "average pool hanging over": lambda: one("AveragePool", IMAGE, kernel_shape=[2, 3], strides=[2, 2], ceil_mode=1),
    "average pool of a row": lambda: one("AveragePool", ROW, kernel_shape=[3], pads=[0, 2], count_include_pad=1),
    "average pool of a block": lambda: one("AveragePool", BLOCK, kernel_shape=[2, 2, 3], strides=[1, 2, 2]),
    "average pool dilated": lambda: one("AveragePool", IMAGE, kernel_shape=[2, 2], dilations=[2, 3], opset=19),
    "conv of a row": lambda: one("Conv", ROW, normal(6, 2, 3), normal(6), group=2, strides=[2], pads=[1, 0]),
    "conv of a block": lambda: one("Conv", BLOCK, normal(4, 1, 2, 2, 3), normal(4), group=2, pads=[1, 0, 0, 0, 1, 2]),
    "conv transpose": lambda: one(
        "ConvTranspose", IMAGE, normal(4, 3, 3, 2), normal(3), strides=[2, 3], pads=[1, 0, 0, 1], output_padding=[1, 0]
    ),
    "conv transpose dilated": lambda: one(
        "ConvTranspose", IMAGE, normal(4, 2, 2, 3), group=2, strides=[2, 3], dilations=[3, 2]
    ),
    "conv transpose of a row": lambda: one("ConvTranspose", ROW, normal(4, 2, 3), strides=[2], auto_pad="SAME_LOWER"),
    "conv transpose of a block": lambda: one(
        "ConvTranspose", BLOCK, normal(2, 2, 2, 3, 2), normal(2), strides=[2, 1, 2], output_shape=[5, 5, 10]
    ),
    "global max pool": lambda: one("GlobalMaxPool", BLOCK),
    "max pool hanging over": lambda: one("MaxPool", IMAGE, kernel_shape=[2, 3], strides=[2, 2], ceil_mode=1),
    "max pool of a row": lambda: one("MaxPool", ROW, kernel_shape=[3], strides=[2], dilations=[2]),
    "max pool of a block": lambda: one("MaxPool", BLOCK, kernel_shape=[2, 3, 2], pads=[1, 0, 0, 0, 1, 1]),
    "resize cubic": lambda: one("Resize", IMAGE, NONE, factors(1.5, 2.5), mode="cubic", cubic_coeff_a=-0.5),
    "resize linear": lambda: one("Resize", ROW, NONE, factors(1.3), mode="linear"),
    "resize nearest": lambda: one("Resize", BLOCK, NONE, factors(2, 1, 3), nearest_mode="floor"),
    "resize to sizes": lambda: one(
        "Resize", IMAGE, NONE, NONE, np.array([1, 4, 9, 4]), mode="linear",
        coordinate_transformation_mode="align_corners", opset=11,
    ),
    "resize of opset 10": lambda: one("Resize", IMAGE, factors(2, 3), opset=10),
    "upsample": lambda: one("Upsample", IMAGE, opset=8, scales=[1.0, 1.0, 2.0, 3.0]),
    "upsample linear": lambda: one("Upsample", IMAGE, factors(2, 1.5), opset=9, mode="linear"),
}  # fmt: skip
