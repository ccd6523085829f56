"""CPU kernels of max-of-weighted-distance units: tensors in and out of the compiled loops of `mwd_numba_loops`.

Same functions as `mwd_reference`, for float32 and float64 tensors on the CPU. Values and ranges are equal to the
reference bit for bit (NaN included), true gradients up to the order of sums; shares of the pseudogradient err by at
most 1e-4 of their size. u and w may hold anything in values and gradients, u >= 0 in ranges. Uses as many threads as
torch does.
"""

import functools
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor
from torch.nn import functional

from encoders.layers import mwd_numba_loops as loops
from encoders.layers import mwd_reference
from encoders.layers.mwd_reference import Gradients, Needs
from encoders.layers.mwd_winners import scatter_winners

# Lanes that a loop may be compiled for, each at first use. More than 128 leave the first-level cache.
WIDTHS = (16, 32, 64, 96, 112, 128)
# Inputs that a thread's range is cut at: a cache line of float32, so that no line is shared.
CACHE_LINE = 16
# Work that is worth a thread, which takes 0.1 ms to start.
THREAD_ELEMENTS = 1 << 22
INTEGERS = {torch.float32: torch.int32, torch.float64: torch.int64}
# Powers of 2 that a share may lie below 1, and the squared distances for which half of them suffice.
_EXPONENTS = {torch.float32: 125.0, torch.float64: 1021.0}
_SQUARE_LIMITS = {dtype: count / 2 * math.log(2) for dtype, count in _EXPONENTS.items()}


def lane_width(batch: int) -> int:
    """Return the width that costs least: going through an input costs as much as 32 lanes, whatever the width."""
    return min(WIDTHS, key=lambda width: -(-batch // width) * (32 + width))


def to_lanes(rows: Tensor, width: int, columns: int, step: int) -> Tensor:
    """Return `(blocks, columns / step, step * width)` for rows `(batch, n)`, filled up by zeros."""
    blocks = -(-rows.shape[0] // width)
    lanes = rows.new_empty(blocks, columns // step, step * width)
    loops.pack(rows.contiguous().numpy(), lanes.view(blocks, columns, width).numpy())
    return lanes


def from_lanes(lanes: Tensor, width: int, batch: int, columns: int) -> Tensor:
    """Return `(batch, columns)`, the inverse of `to_lanes`."""
    rows = lanes.new_empty(batch, columns)
    loops.unpack(lanes.view(lanes.shape[0], -1, width).numpy(), rows.numpy())
    return rows


class Operands:
    """Arrays of one call: u and w padded by zeros to whole groups and pairs, and x as lanes.

    Terms of padding are 0 times a finite number: they never exceed a distance and bring no feedback.
    """

    def __init__(self, u: Tensor, w: Tensor, *inputs: Tensor) -> None:
        self.batch, self.shape = inputs[0].shape[0], u.shape
        self.width = lane_width(self.batch)
        padding = (0, -u.shape[1] % loops.PAIR, 0, -u.shape[0] % loops.GROUP)
        u, w = (functional.pad(t, padding) if any(padding) else t.contiguous() for t in (u.detach(), w.detach()))
        self.units, self.inputs = u.shape
        self.lanes = [to_lanes(x.detach(), self.width, self.inputs, loops.PAIR) for x in inputs]
        self.arrays = [tensor.numpy() for tensor in (*self.lanes, u, w)]

    def unit_lanes(self, values: Tensor) -> Tensor:
        """Return values `(batch, units)` as lanes."""
        return to_lanes(values.detach(), self.width, self.units, loops.GROUP)

    def new_unit_lanes(self, dtype: torch.dtype) -> Tensor:
        """Return lanes for units, their values left open."""
        blocks, groups = self.lanes[0].shape[0], self.units // loops.GROUP
        return torch.empty(blocks, groups, loops.GROUP * self.width, dtype=dtype)

    def unit_values(self, lanes: Tensor) -> Tensor:
        """Return lanes of units as `(batch, units)`."""
        return from_lanes(lanes, self.width, self.batch, self.shape[0])

    def run_by_groups(self, loop: loops.Loop, *results: Tensor) -> None:
        """Run the loop over all groups of units."""
        outputs = [result.numpy() for result in results]
        elements = self.batch * self.units * self.inputs
        share_out(lambda part: loop(*self.arrays, *outputs, part), self.units // loops.GROUP, 1, elements)


def share_out(call: Callable[[tuple[int, int]], None], count: int, step: int, elements: int) -> None:
    """Call call((start, stop)) for ranges that cover `count`, cut at multiples of `step`, in threads if that pays.

    elements: batch x units x inputs of the whole call.
    """
    threads = min(torch.get_num_threads(), 1 + elements // THREAD_ELEMENTS)
    size = -(-count // (threads * step)) * step
    if size >= count:
        call((0, count))
        return
    starts = range(0, count, size)
    with ThreadPoolExecutor(len(starts)) as pool:
        for task in [pool.submit(call, (start, min(start + size, count))) for start in starts]:
            task.result()


def weighted_distance(x: Tensor, u: Tensor, w: Tensor) -> Tensor:
    """Return z = max_i |u_i (x_i - w_i)|, `(batch, units)`. Not differentiable."""
    operands = Operands(u, w, x)
    z = operands.new_unit_lanes(INTEGERS[x.dtype])
    operands.run_by_groups(loops.distance_loop(operands.width), z)
    return operands.unit_values(z.view(x.dtype))


def distance_range(lower: Tensor, upper: Tensor, u: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """Return (near, far) of z over the boxes [lower, upper], each `(batch, units)`, rounded to nearest; u >= 0.

    Both are NaN where a term is.
    """
    operands = Operands(u, w, lower, upper)
    near, far = (operands.new_unit_lanes(INTEGERS[lower.dtype]) for _ in range(2))
    extent = torch.empty(operands.units // loops.GROUP, 2, dtype=INTEGERS[lower.dtype])
    operands.run_by_groups(loops.range_loop(operands.width), near, far, extent)
    # Where no difference or term can be infinite or NaN, none was. A sum keeps NaN, which Python's max may drop.
    weight, attractor = extent.view(lower.dtype).amax(dim=0).tolist()
    size = abs(float(lower.min())) + abs(float(upper.max())) + attractor
    if not size * (1.0 + weight) < torch.finfo(lower.dtype).max:
        return mwd_reference.distance_range(lower, upper, u, w)
    near, far = (operands.unit_values(lanes.view(lower.dtype)) for lanes in (near, far))
    return near, far


def max_square_backward(
    x: Tensor, u: Tensor, w: Tensor, z: Tensor, grad: Tensor, pseudo: bool, needs: Needs
) -> Gradients:
    """Return the gradients of s = max_i t_i^2 by x, u and w, contracted with its feedback `grad`.

    The reference computes those of huge distances (z above 6 in float32, 18 in float64 for pseudogradients), of
    values that are not finite, and of more inputs than a 32-bit sum of marks can number.
    """
    greatest, strongest = float(z.max()), float(grad.abs().max())
    square = greatest * greatest  # not greatest**2, which raises where it overflows
    if pseudo:
        if square < _SQUARE_LIMITS[z.dtype] and 0.0 < strongest < math.inf:
            return _pseudogradients(x, u, w, z, grad, strongest, needs)
    elif square < torch.finfo(z.dtype).max and x.shape[1] < 2**15:
        return _true_gradients(x, u, w, z, grad, needs)
    return mwd_reference.max_square_backward(x, u, w, z, grad, pseudo, needs)


def _true_gradients(x: Tensor, u: Tensor, w: Tensor, z: Tensor, grad: Tensor, needs: Needs) -> Gradients:
    """Return the true gradients by x, u and w."""
    operands = Operands(u, w, x)
    marks = operands.new_unit_lanes(INTEGERS[x.dtype])
    operands.run_by_groups(loops.winner_loop(operands.width), operands.unit_lanes(z).view(marks.dtype), marks)
    return scatter_winners(x, u, w, z, grad, operands.unit_values(marks), operands.inputs, needs)


def _pseudogradients(
    x: Tensor, u: Tensor, w: Tensor, z: Tensor, grad: Tensor, strongest: float, needs: Needs
) -> Gradients:
    """Return the pseudogradients by x, u and w; strongest = max |grad|."""
    x, u, w = (tensor.detach().contiguous() for tensor in (x, u, w))
    scale = loops.fixed_point_scale(x.numpy().dtype)
    # Exponents of 2 down to that of the smallest normal number: feedback that is weaker than the strongest by more
    # than what s leaves of them, at least 2^60 or 2^500, is rounded up to there.
    exponents = (z * z).mul_(math.log2(math.e)).sub_((grad / strongest).abs_().log2_())
    exponents.clamp_(max=_EXPONENTS[x.dtype]).mul_(scale / math.log2(math.e))
    sign = grad.contiguous().view(INTEGERS[x.dtype]) & torch.iinfo(INTEGERS[x.dtype]).min
    by_parameters = needs[1] or needs[2]
    grad_x = torch.zeros_like(x) if needs[0] else None
    grad_u, grad_w = (torch.empty_like(u) if by_parameters else None for _ in range(2))
    # The loop writes only to what is needed; the others get an array of the same type.
    results = [spare if result is None else result for result, spare in ((grad_x, x), (grad_u, u), (grad_w, u))]
    arrays = [tensor.numpy() for tensor in (x, u, w, exponents, sign)]
    root, factor = scale**0.5, 2.0 * strongest / scale**0.5
    numbers = tuple(map(arrays[0].dtype.type, (*loops.POWER_COEFFICIENTS, 1.0, root, factor)))
    loop = loops.shared_feedback_loop(needs[0], by_parameters)
    grads = tuple(result.numpy() for result in results)
    share_out(functools.partial(loop, *arrays, numbers, grads), x.shape[1], CACHE_LINE, x.numel() * u.shape[0])
    if grad_x is not None:
        grad_x.mul_(factor / root)
    return grad_x, grad_u if needs[1] else None, grad_w if needs[2] else None
