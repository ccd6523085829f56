"""Windows over one to three axes in exact arithmetic: their definition, on networks written with two-axis ops."""

import itertools
from fractions import Fraction

import numpy as np
import onnx
import pytest
import torch

from encoders.box import Box
from encoders.formats import ModelFileError
from encoders.formats.onnx_reader import convert
from encoders.formats.windows import Windows
from encoders.network import Network
from encoders.rationals import Rationals
from tests.networks.onnx_models import model

Shape = tuple[int, ...]


def network_of(operator: str, shape: Shape, weights: dict[str, np.ndarray] | None = None, **attributes) -> Network:
    node = onnx.helper.make_node(operator, ["x", *(weights or {})], ["y"], **attributes)
    return convert(model([node], ["N", *shape], weights, opset=19), "windows.onnx")


def exact(network: Network, x: np.ndarray) -> np.ndarray:
    """Return the value at whole numbers, as fractions."""
    given = Rationals.of(torch.tensor(x, dtype=torch.float64))
    (result,) = network.fold(given, lambda op, values: op.rational(*values, afford=lambda count: None))
    return np.vectorize(lambda n: Fraction(int(n), int(result.denominator)), otypes=[object])(result.numerators)


def whole(shape: Shape, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-9, 10, size=(1, *shape))


# Sizes, kernel, strides, pads, dilations, ceil, count_include_pad.
POOLS = [
    ((5,), [3], [2], [1, 0], [1], 1, 0),
    ((6,), [2], [3], [0, 1], [2], 1, 1),
    ((4, 5), [2, 3], [3, 2], [1, 1, 0, 1], [1, 1], 1, 1),
    ((5, 4), [3, 2], [2, 2], [1, 0, 1, 0], [1, 1], 0, 1),
    ((5, 6), [2, 3], [2, 3], [0, 0, 1, 2], [2, 1], 1, 0),
    ((3, 4, 5), [2, 2, 3], [2, 1, 2], [0, 1, 1, 1, 0, 1], [1, 1, 1], 1, 0),
    ((3, 4, 4), [2, 2, 3], [1, 2, 1], [1, 1, 1, 1, 1, 1], [1, 1, 1], 0, 1),
]


def pooled(x: np.ndarray, case, greatest: bool) -> np.ndarray:
    """Return means or maxima of the windows by their definition, place by place."""
    sizes, kernel, strides, pads, dilations, ceil, counted = case
    axes = len(sizes)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    counts = []
    for i in range(axes):
        room = sizes[i] + pads[i] + pads[axes + i] - spans[i]
        count = (-(-room // strides[i]) if ceil else room // strides[i]) + 1
        counts.append(count - 1 if ceil and (count - 1) * strides[i] >= sizes[i] + pads[i] else count)
    result = np.empty((x.shape[0], x.shape[1], *counts), dtype=object)
    for place in itertools.product(*(range(n) for n in result.shape)):
        cells, total = [], 0
        for offset in itertools.product(*(range(k) for k in kernel)):
            at = [place[2 + i] * strides[i] - pads[i] + offset[i] * dilations[i] for i in range(axes)]
            if all(0 <= a < size for a, size in zip(at, sizes, strict=True)):
                cells.append(int(x[place[0], place[1], *at]))
            total += all(a < size + pads[axes + i] for i, (a, size) in enumerate(zip(at, sizes, strict=True)))
        result[place] = max(cells) if greatest else Fraction(sum(cells), total if counted else len(cells))
    return result


@pytest.mark.parametrize("case", POOLS, ids=str)
@pytest.mark.parametrize("operator", ["MaxPool", "AveragePool"])
def test_pools_are_their_definition_in_exact_arithmetic(operator: str, case) -> None:
    sizes, kernel, strides, pads, dilations, ceil, counted = case
    attributes = {"kernel_shape": kernel, "strides": strides, "pads": pads, "dilations": dilations, "ceil_mode": ceil}
    if operator == "AveragePool":
        attributes["count_include_pad"] = counted
    try:
        network = network_of(operator, (2, *sizes), **attributes)
    except ModelFileError as error:
        # Dilated windows of which the last needs more padding than it has cells.
        assert operator == "MaxPool" and "leaves windows without any input" in str(error)
        return
    x = whole((2, *sizes), 1)
    assert (exact(network, x) == pooled(x, case, operator == "MaxPool")).all()
    contains_samples(network, x)


def contains_samples(network: Network, x: np.ndarray) -> None:
    """Check that the interval over a box around x holds the values at points of it."""
    centre = torch.tensor(x, dtype=torch.float64)
    (box,) = network.interval(Box(centre - 0.3, centre + 0.3))
    generator = torch.Generator().manual_seed(3)
    for _ in range(20):
        value = network.evaluate(centre + 0.3 * (2 * torch.rand(centre.shape, generator=generator) - 1))
        assert bool(((box.lower <= value) & (value <= box.upper)).all())


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("transposed", [False, True])
def test_convolutions_are_sums_over_taps_in_exact_arithmetic(axes: int, transposed: bool) -> None:
    """Each tap moves x by whole numbers: both directions are one sum over pairs of places."""
    sizes, kernel, stride, dilation = (4, 5, 5)[:axes], (2, 3, 2)[:axes], (2, 1, 3)[:axes], (1, 2, 1)[:axes]
    pads = (1, 0, 1)[:axes]
    weight = whole((4 if not transposed else 2, 2, *kernel), 5)[0].astype(float)
    shape = (4, *sizes) if not transposed else (2, *sizes)
    operator, group = ("ConvTranspose", 1) if transposed else ("Conv", 2)
    network = network_of(
        operator, shape, {"w": weight}, strides=stride, dilations=dilation, pads=[*pads, *pads], group=group
    )
    x = whole(shape, 6)
    value = exact(network, x)
    expected = np.zeros(value.shape, dtype=object)
    small, large = (x, expected) if transposed else (expected, x)
    for offset in itertools.product(*(range(k) for k in kernel)):
        for place in itertools.product(*(range(n) for n in small.shape[2:])):
            at = tuple(place[i] * stride[i] - pads[i] + offset[i] * dilation[i] for i in range(axes))
            if not all(0 <= a < n for a, n in zip(at, large.shape[2:], strict=True)):
                continue
            for first, second in itertools.product(range(weight.shape[0]), range(weight.shape[1])):
                tap = int(weight[(first, second, *offset)])
                if transposed:
                    expected[(0, second, *at)] += tap * int(x[(0, first, *place)])
                else:
                    source = 2 * (first // 2) + second
                    expected[(0, first, *place)] += tap * int(x[(0, source, *at)])
    assert (value == expected).all()
    contains_samples(network, x)


def test_a_last_window_hangs_over_only_if_it_starts_before_the_end() -> None:
    # Starts 0, 3: the second hangs over by one. With a stride of 4 the second would start in the padding, at 4.
    assert Windows((2,), (3,), (0,), (0,), (1,)).outputs((4,), ceil=True) == (2,)
    assert Windows((2,), (4,), (0,), (1,), (1,)).outputs((4,), ceil=True) == (1,)
    assert Windows((2,), (4,), (0,), (2,), (1,)).outputs((4,)) == (2,)


@pytest.mark.parametrize(
    ("operator", "shape", "attributes"),
    [
        ("AveragePool", (1, 4), {"kernel_shape": [2], "pads": [0, 2**40], "count_include_pad": 1}),
        ("AveragePool", (1, 4, 4), {"kernel_shape": [2**20, 2**20], "pads": [2**20] * 4, "dilations": [2, 2]}),
        ("MaxPool", (1, 2, 2, 2), {"kernel_shape": [2**30] * 3, "pads": [2**29] * 6}),
    ],
)
def test_windows_of_any_size_are_refused_at_once(operator: str, shape: Shape, attributes) -> None:
    with pytest.raises((ModelFileError, ValueError), match=r"--allow|does not fit"):
        network_of(operator, shape, **attributes)
