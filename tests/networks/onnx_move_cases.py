"""One small file of each ONNX operator that picks, repeats, pads, masks or sums."""

from collections.abc import Callable

import numpy as np
import onnx
from onnx import helper

from tests.networks.onnx_models import model

make = helper.make_node
IMAGE = ["N", 4, 3, 2]


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape) + 7).normal(size=shape)


def one(op: str, shape: list, *constants: np.ndarray, opset: int = 13, **attributes: object) -> onnx.ModelProto:
    """Return a model of one node whose further inputs are constants."""
    names = [f"w{i}" for i in range(len(constants))]
    return model([make(op, ["x", *names], ["y"], **attributes)], shape, dict(zip(names, constants, strict=True)), opset)


def whole(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


MOVE_CASES: dict[str, Callable[[], onnx.ModelProto]] = {
    "depth to space": lambda: one("DepthToSpace", IMAGE, blocksize=2, mode="CRD"),
    "einsum": lambda: one("Einsum", IMAGE, normal(3, 5, 4), equation="bchw,hkc->bkw"),
    "expand": lambda: one("Expand", ["N", 1, 3], whole(2, 1)),
    "gather": lambda: one("Gather", IMAGE, np.array([[1, -1], [0, 0]]), axis=2),
    "gather one": lambda: one("Gather", IMAGE, np.array(-1), axis=1),
    "gather elements": lambda: one("GatherElements", [1, 3, 2], np.array([[[0, 1], [2, -1]]]), axis=1),
    "gather by places": lambda: one("GatherND", [1, 3, 2], np.array([[[2, 1], [0, 0]]]), batch_dims=1),
    "mean of two": lambda: model([make("Neg", ["x"], ["a"]), make("Mean", ["x", "a", "x"], ["y"])], IMAGE),
    "pad": lambda: one("Pad", IMAGE, whole(0, 1, 0, -1, 0, 0, 2, 1), np.float32(0.5)),
    "pad by attribute": lambda: one("Pad", IMAGE, opset=10, pads=[0, 0, 1, 1, 0, 0, 0, 1], mode="reflect"),
    "reduce max": lambda: one("ReduceMax", IMAGE, axes=[1, -1], keepdims=0),
    "reduce min": lambda: one("ReduceMin", IMAGE, whole(2), opset=18),
    "reduce sum": lambda: one("ReduceSum", IMAGE, whole(1, 3)),
    "reduce mean of the channels": lambda: one("ReduceMean", IMAGE, axes=[1]),
    "scatter elements": lambda: one("ScatterElements", [1, 3], np.array([[2, 0]]), normal(1, 2), axis=1),
    "scatter into a constant": lambda: model(
        [make("ScatterND", ["w", "i", "x"], ["y"])], [1, 2], {"w": normal(1, 5), "i": np.array([[[0, 4], [0, 1]]])}
    ),
    "split": lambda: model([make("Split", ["x"], ["a", "b"], axis=1), make("Sub", ["b", "a"], ["y"])], IMAGE, opset=12),
    "split into parts": lambda: model(
        [make("Split", ["x", "s"], ["a", "b", "c"], axis=-2), make("Concat", ["c", "a"], ["y"], axis=2)],
        IMAGE,
        {"s": whole(1, 1, 1)},
    ),
    "split with a rest": lambda: model(
        [make("Split", ["x"], ["a", "b"], axis=2, num_outputs=2), make("Add", ["b", "a"], ["y"])], IMAGE, opset=18
    ),
    "sum": lambda: model([make("Neg", ["x"], ["a"]), make("Sum", ["x", "a", "w"], ["y"])], IMAGE, {"w": normal(2)}),
    "space to depth": lambda: one("SpaceToDepth", ["N", 2, 4, 6], blocksize=2),
    "tile": lambda: one("Tile", IMAGE, whole(1, 2, 1, 3)),
    "triangle": lambda: one("Trilu", ["N", 3, 4], np.array(-1), opset=14, upper=0),
    "where": lambda: one_masked(),
    "slice backwards": lambda: one("Slice", IMAGE, whole(-1), whole(-9), whole(2), whole(-2)),
    "concat with a constant": lambda: model([make("Concat", ["w", "x"], ["y"], axis=1)], [1, 3], {"w": normal(1, 2)}),
    "add broadcast": lambda: model(
        [make("ReduceMax", ["x"], ["a"], axes=[2, 3]), make("Add", ["a", "x"], ["y"])], IMAGE
    ),
}


def one_masked() -> onnx.ModelProto:
    mask = np.array([[True], [False], [True]])
    return model([make("Where", ["m", "x", "w"], ["y"])], IMAGE, {"m": mask, "w": normal(4, 1, 1)})
