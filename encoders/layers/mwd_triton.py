"""CUDA kernels of max-of-weighted-distance units in Triton, with the functions of `mwd_reference`.

A program holds a block of results in registers and goes through the remaining axis one index at a time, so no tensor
batch x units x inputs exists and no two programs write to the same place. Values and ranges round twice a term, like
the reference (NaN included); shares of the pseudogradient use the device's exp. The pseudogradients are two kernels,
by inputs and by parameters, which each compute the shares: cheaper than atomic sums, and repeatable.

With TRITON_INTERPRET=1 in the environment before the first import, the same kernels run on CPU tensors, slowly.
"""

from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from encoders.layers.mwd_reference import Gradients, Needs
from encoders.layers.mwd_winners import scatter_winners

# Rows and columns of the block of results that one program holds.
BLOCK = 32

_kernel: Callable[[Any], Any] = triton.jit
# Triton compiles these names into the kernels.
_ALL_NAN = tl.constexpr(tl.PropagateNan.ALL)


@_kernel
def _distance_kernel(x, u, w, z, batch, units, inputs, block: tl.constexpr):  # type: ignore[no-untyped-def]
    """Write z; x is `(inputs, batch)`, u and w are `(inputs, units)`."""
    rows = tl.program_id(0) * block + tl.arange(0, block)
    columns = tl.program_id(1) * block + tl.arange(0, block)
    in_rows, in_columns = rows < batch, columns < units
    greatest = tl.zeros((block, block), z.dtype.element_ty)
    for i in range(inputs):
        value = tl.load(x + i * batch + rows, in_rows, 0.0)
        weight = tl.load(u + i * units + columns, in_columns, 0.0)
        attractor = tl.load(w + i * units + columns, in_columns, 0.0)
        t = weight[None, :] * (value[:, None] - attractor[None, :])
        greatest = tl.maximum(greatest, tl.abs(t), propagate_nan=_ALL_NAN)
    target = rows[:, None].to(tl.int64) * units + columns[None, :]
    tl.store(z + target, greatest, in_rows[:, None] & in_columns[None, :])


@_kernel
def _range_kernel(lower, upper, u, w, near, far, batch, units, inputs, block: tl.constexpr):  # type: ignore[no-untyped-def]
    """Write near and far; the ends are `(inputs, batch)`, u and w are `(inputs, units)`."""
    rows = tl.program_id(0) * block + tl.arange(0, block)
    columns = tl.program_id(1) * block + tl.arange(0, block)
    in_rows, in_columns = rows < batch, columns < units
    least = tl.zeros((block, block), near.dtype.element_ty)
    greatest = tl.zeros((block, block), near.dtype.element_ty)
    for i in range(inputs):
        low = tl.load(lower + i * batch + rows, in_rows, 0.0)
        high = tl.load(upper + i * batch + rows, in_rows, 0.0)
        weight = tl.load(u + i * units + columns, in_columns, 0.0)
        attractor = tl.load(w + i * units + columns, in_columns, 0.0)
        above = weight[None, :] * (low[:, None] - attractor[None, :])
        below = weight[None, :] * (attractor[None, :] - high[:, None])
        least = tl.maximum(least, tl.maximum(above, below, propagate_nan=_ALL_NAN), propagate_nan=_ALL_NAN)
        greatest = tl.maximum(greatest, tl.maximum(-above, -below, propagate_nan=_ALL_NAN), propagate_nan=_ALL_NAN)
    target = rows[:, None].to(tl.int64) * units + columns[None, :]
    inside = in_rows[:, None] & in_columns[None, :]
    tl.store(near + target, least, inside)
    tl.store(far + target, greatest, inside)


@_kernel
def _winner_kernel(x, u, w, z, marks, batch, units, inputs, block: tl.constexpr):  # type: ignore[no-untyped-def]
    """Write the sum of n + i over the inputs i of n with |t_i| = z; x is `(inputs, batch)`, u, w `(inputs, units)`."""
    rows = tl.program_id(0) * block + tl.arange(0, block)
    columns = tl.program_id(1) * block + tl.arange(0, block)
    in_rows, in_columns = rows < batch, columns < units
    target = rows[:, None].to(tl.int64) * units + columns[None, :]
    inside = in_rows[:, None] & in_columns[None, :]
    distance = tl.load(z + target, inside, 0.0)
    total = tl.zeros((block, block), tl.int64)
    for i in range(inputs):
        value = tl.load(x + i * batch + rows, in_rows, 0.0)
        weight = tl.load(u + i * units + columns, in_columns, 0.0)
        attractor = tl.load(w + i * units + columns, in_columns, 0.0)
        t = weight[None, :] * (value[:, None] - attractor[None, :])
        total += tl.where(tl.abs(t) == distance, inputs + i, 0)
    tl.store(marks + target, total, inside)


@_kernel
def _input_gradient_kernel(x, u, w, s, feedback, grad_x, batch, units, inputs, block: tl.constexpr):  # type: ignore[no-untyped-def]
    """Write grad_x; x is `(batch, inputs)`, u and w are `(units, inputs)`, s and feedback `(units, batch)`."""
    rows = tl.program_id(0) * block + tl.arange(0, block)
    columns = tl.program_id(1) * block + tl.arange(0, block)
    in_rows, in_columns = rows < batch, columns < inputs
    target = rows[:, None].to(tl.int64) * inputs + columns[None, :]
    inside = in_rows[:, None] & in_columns[None, :]
    value = tl.load(x + target, inside, 0.0)
    total = tl.zeros((block, block), grad_x.dtype.element_ty)
    for j in range(units):
        weight = tl.load(u + j * inputs + columns, in_columns, 0.0)[None, :]
        attractor = tl.load(w + j * inputs + columns, in_columns, 0.0)[None, :]
        square = tl.load(s + j * batch + rows, in_rows, 0.0)[:, None]
        strength = tl.load(feedback + j * batch + rows, in_rows, 0.0)[:, None]
        t = weight * (value - attractor)
        # Padding of the block has t^2 > s, where exp could overflow; elsewhere the minimum changes rounding only.
        total += tl.exp(tl.minimum(t * t - square, 0.0, propagate_nan=_ALL_NAN)) * t * strength * weight
    tl.store(grad_x + target, total, inside)


@_kernel
def _parameter_gradient_kernel(x, u, w, s, feedback, grad_u, grad_w, batch, units, inputs, block: tl.constexpr):  # type: ignore[no-untyped-def]
    """Write grad_u and grad_w; x is `(batch, inputs)`, u and w are `(units, inputs)`, s, feedback `(batch, units)`."""
    rows = tl.program_id(0) * block + tl.arange(0, block)
    columns = tl.program_id(1) * block + tl.arange(0, block)
    in_rows, in_columns = rows < units, columns < inputs
    target = rows[:, None].to(tl.int64) * inputs + columns[None, :]
    inside = in_rows[:, None] & in_columns[None, :]
    weight, attractor = tl.load(u + target, inside, 0.0), tl.load(w + target, inside, 0.0)
    total, scaled = tl.zeros((block, block), grad_u.dtype.element_ty), tl.zeros((block, block), grad_u.dtype.element_ty)
    for b in range(batch):
        value = tl.load(x + b * inputs + columns, in_columns, 0.0)[None, :]
        square = tl.load(s + b * units + rows, in_rows, 0.0)[:, None]
        strength = tl.load(feedback + b * units + rows, in_rows, 0.0)[:, None]
        difference = value - attractor
        t = weight * difference
        half = tl.exp(tl.minimum(t * t - square, 0.0, propagate_nan=_ALL_NAN)) * t * strength
        total += half
        scaled += half * difference
    tl.store(grad_u + target, scaled, inside)
    tl.store(grad_w + target, -weight * total, inside)


def _launch(kernel: Any, shape: tuple[int, int], *arguments: Any) -> None:
    """Run the kernel over blocks that cover a matrix of this shape, on the device of the first argument."""
    with torch.cuda.device_of(arguments[0]):
        kernel[(triton.cdiv(shape[0], BLOCK), triton.cdiv(shape[1], BLOCK))](*arguments, block=BLOCK)


def _columns(*tensors: Tensor) -> list[Tensor]:
    """Return the transposed matrices, their rows contiguous."""
    return [tensor.detach().t().contiguous() for tensor in tensors]


def weighted_distance(x: Tensor, u: Tensor, w: Tensor) -> Tensor:
    """Return z = max_i |u_i (x_i - w_i)|, `(batch, units)`. Not differentiable."""
    shape = x.shape[0], u.shape[0]
    z = x.new_empty(shape)
    _launch(_distance_kernel, shape, *_columns(x, u, w), z, *shape, x.shape[1])
    return z


def distance_range(lower: Tensor, upper: Tensor, u: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """Return (near, far) of z over the boxes [lower, upper], each `(batch, units)`, rounded to nearest; u >= 0.

    Both are NaN where a term is.
    """
    shape = lower.shape[0], u.shape[0]
    near, far = lower.new_empty(shape), lower.new_empty(shape)
    _launch(_range_kernel, shape, *_columns(lower, upper, u, w), near, far, *shape, lower.shape[1])
    return near, far


def max_square_backward(
    x: Tensor, u: Tensor, w: Tensor, z: Tensor, grad: Tensor, pseudo: bool, needs: Needs
) -> Gradients:
    """Return the gradients of s = max_i t_i^2 by x, u and w, contracted with its feedback `grad`."""
    (batch, inputs), units = x.shape, u.shape[0]
    if not pseudo:
        marks = torch.empty(batch, units, dtype=torch.int64, device=x.device)
        _launch(_winner_kernel, (batch, units), *_columns(x, u, w), z.contiguous(), marks, batch, units, inputs)
        return scatter_winners(x, u, w, z, grad, marks, inputs, needs)
    x, u, w = x.contiguous(), u.contiguous(), w.contiguous()
    s, feedback = (z * z).contiguous(), (2.0 * grad).contiguous()
    grad_x = torch.empty_like(x) if needs[0] else None
    if grad_x is not None:
        operands = x, u, w, *_columns(s, feedback)
        _launch(_input_gradient_kernel, (batch, inputs), *operands, grad_x, batch, units, inputs)
    if not (needs[1] or needs[2]):
        return grad_x, None, None
    grad_u, grad_w = torch.empty_like(u), torch.empty_like(w)
    operands = x, u, w, s, feedback
    _launch(_parameter_gradient_kernel, (units, inputs), *operands, grad_u, grad_w, batch, units, inputs)
    return grad_x, grad_u if needs[1] else None, grad_w if needs[2] else None
