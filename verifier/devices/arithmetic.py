"""Whether a device sums products as bounds of roundings are about: each product and sum rounded once, none mixed.

The bounds hold for any order of a sum and for fused multiply-adds. They do not hold for operands rounded before
(TensorFloat-32), for algorithms whose error in one output is that of its neighbours (Winograd, Fourier transforms, the
splitting of float64 into pieces of lower precision), nor for subnormals taken for zero. Each question has operands for
which what is allowed is exact, whatever the order: whole numbers whose sums the significand holds, and beside them one
number so large that it swallows all others that it is mixed with. A look at some shapes proves nothing of others, where
a library takes another algorithm: `rigorous` therefore also switches off what could do so.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

# Settings of the environment that change arithmetic whatever a program asks for.
OVERRIDES = (
    "NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "CUBLAS_EMULATE_DOUBLE_PRECISION",
    "CUBLAS_EMULATE_SINGLE_PRECISION",
)  # fmt: skip
# Whole numbers of more digits than TensorFloat-32's 11, and than two or three pieces of such together.
DIGITS = {torch.float32: 16, torch.float64: 40}
# What is so large that float64 keeps nothing of whole numbers of 40 digits beside it, nor float32 of such of 16.
LARGE = 2.0**100
SIZE, CHANNELS, IMAGE = 128, 16, 16


def faults(device: torch.device) -> list[str]:
    """Return in what the arithmetic of a device is not what bounds of roundings are about; mostly nothing."""
    found = []
    for dtype in (torch.float32, torch.float64):
        for words, wrong in QUESTIONS.items():
            try:
                if wrong(dtype, device):
                    found.append(f"{words} in {str(dtype).removeprefix('torch.')}")
            except RuntimeError as error:
                return [f"it computes nothing ({str(error).splitlines()[0]})"]
    return found


def _whole_numbers(dtype: torch.dtype, *shape: int) -> Tensor:
    """Return odd whole numbers of as many binary digits as are asked about, on the processor."""
    generator = torch.Generator().manual_seed(1)
    numbers = torch.randint(2 ** (DIGITS[dtype] - 1), 2 ** DIGITS[dtype], shape, generator=generator)
    return (numbers | 1).to(dtype)


def _rounds_operands(dtype: torch.dtype, device: torch.device) -> bool:
    x = _whole_numbers(dtype, SIZE, SIZE)
    identity = torch.eye(SIZE, dtype=dtype).flip(0)
    return not torch.equal((x.to(device) @ identity.to(device)).cpu(), x.flip(1))


def _mixes_in_products(dtype: torch.dtype, device: torch.device) -> bool:
    """Ask whether a large entry that faces zeros alone changes anything."""
    x, y = _whole_numbers(dtype, SIZE, SIZE), torch.zeros(SIZE, SIZE, dtype=dtype)
    for offset in range(1, 4):
        y += torch.eye(SIZE, dtype=dtype).roll(offset, 0)
    y[0] = 0.0
    expected = x.to(torch.float64) @ y.to(torch.float64)
    x[:, 0] = LARGE
    return not torch.equal((x.to(device) @ y.to(device)).cpu(), expected.to(dtype))


def _mixes_in_convolutions(dtype: torch.dtype, device: torch.device) -> bool:
    """Ask whether a large pixel changes an output that takes it with a weight of zero, or not at all."""
    x, kernel = _whole_numbers(dtype, 2, CHANNELS, IMAGE, IMAGE), torch.zeros(CHANNELS, CHANNELS, 3, 3, dtype=dtype)
    for channel in range(CHANNELS):
        kernel[channel, channel, channel % 3, channel // 3 % 3] = 1.0
        kernel[channel, (channel + 1) % CHANNELS, 1, 1] = 1.0
    large = torch.zeros(IMAGE, IMAGE, dtype=torch.bool)
    large[IMAGE // 2, IMAGE // 2] = True
    exact = kernel.to(torch.float64)
    expected = functional.conv2d(x.to(torch.float64), exact, padding=1).to(dtype)
    taken = functional.conv2d(large.to(torch.float64).expand(1, CHANNELS, -1, -1), exact, padding=1) > 0
    found = functional.conv2d(x.masked_fill(large, LARGE).to(device), kernel.to(device), padding=1).cpu()
    return not torch.equal(found.masked_fill(taken, 0.0), expected.masked_fill(taken, 0.0))


def _loses_subnormals(dtype: torch.dtype, device: torch.device) -> bool:
    least = torch.full((2,), torch.finfo(dtype).tiny, dtype=dtype).to(device)
    return not torch.equal((least * 0.25 * 4.0).cpu(), least.cpu())


QUESTIONS: dict[str, Callable[[torch.dtype, torch.device], bool]] = {
    "operands of products are rounded before (TensorFloat-32, or an emulation)": _rounds_operands,
    "products of matrices mix their terms (an emulation)": _mixes_in_products,
    "convolutions mix neighbouring outputs (Winograd, Fourier transforms) or round operands": _mixes_in_convolutions,
    "subnormal numbers are taken for zero": _loses_subnormals,
}
