"""Which max pools have a window without any input: told without a loop over windows, as their number is the file's."""

import itertools

import pytest

from encoders.ops import MaxPool2d
from encoders.ops.sliding import sliding_output


def sees_input(op: MaxPool2d, axis: int, size: int, outputs: int) -> bool:
    """Return the same by looking at every cell of every window."""
    starts = [i * op.stride[axis] - op.padding[axis] for i in range(outputs)]
    places = range(0, op.kernel[axis] * op.dilation[axis], op.dilation[axis])
    return all(any(0 <= start + place < size for place in places) for start in starts)


@pytest.mark.parametrize("axis", [0, 1])
def test_windows_without_input_are_found_as_by_looking_at_every_cell(axis: int) -> None:
    seen = []
    for size, k, s, d, before, after in itertools.product(*map(range, (3, 5, 3, 4, 4, 4))):
        kernel, stride, dilation, size = ([1, 1], [1, 1], [1, 1], size + 1)
        padding = [0, 0, 0, 0]
        kernel[axis], stride[axis], dilation[axis] = k + 1, s + 1, d + 1
        padding[axis], padding[axis + 2] = before, after
        shape = (1, size, 1) if axis == 0 else (1, 1, size)
        try:
            op = MaxPool2d(tuple(kernel), tuple(stride), tuple(padding), tuple(dilation))
            outputs = sliding_output(shape[1:], op.kernel, op.stride, op.padding, op.dilation)[axis]
        except ValueError:
            continue
        expected = sees_input(op, axis, size, outputs)
        seen.append(expected)
        if expected:
            assert op.output_shape(shape)[axis + 1] == outputs
        else:
            with pytest.raises(ValueError, match="without any input"):
                op.output_shape(shape)
    assert seen.count(False) > 10 and seen.count(True) > 300


def test_a_pool_of_a_billion_windows_is_shaped_at_once() -> None:
    # A loop over a billion windows would not come back.
    assert MaxPool2d((1, 1), (1, 1)).output_shape((2, 10**9, 1)) == (2, 10**9, 1)
    far = 2**62
    assert MaxPool2d((far, far), (1, 1), (far - 1,) * 4).output_shape((1, 1, 1)) == (1, far, far)


def test_a_dilation_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="dilation >= 1"):
        MaxPool2d((2, 2), (1, 1), dilation=(0, 1))
