"""Torch modules of one call each that slides windows over one to three axes, pools to a size, or resizes."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Kernel = list[int]


class Slid(nn.Module):
    """Calls a function with its weights behind the input."""

    def __init__(self, function: Callable[..., Tensor], *weights: Tensor) -> None:
        super().__init__()
        self.function = function
        self.weights = nn.ParameterList(weights)
        # A module without weights would be read in float32.
        self.register_buffer("zero", torch.zeros((), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.weights)


@dataclass
class Draw:
    """A module in the making: how many axes it slides over, the input's channels and sizes."""

    random: random.Random
    axes: int
    channels: int
    sizes: list[int]

    def numbers(self, low: int, high: int) -> list[int]:
        return [self.random.randint(low, high) for _ in range(self.axes)]

    def weight(self, *shape: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.random.randrange(2**31))
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def function(self, name: str) -> Callable[..., Any]:
        return getattr(functional, name.format(self.axes))


def convolution(d: Draw) -> Slid:
    kernel, groups = d.numbers(1, 3), d.random.choice([1, 2])
    stride, dilation, call = d.numbers(1, 3), d.numbers(1, 2), d.function("conv{}d")
    padding: Any = d.numbers(0, 2)
    if d.random.random() < 0.3:
        stride, padding = [1] * d.axes, d.random.choice(["same", "valid"])
    return Slid(
        lambda x, w, b: call(x, w, b, stride, padding, dilation, groups),
        d.weight(4, d.channels // groups, *kernel),
        d.weight(4),
    )


def transposed_convolution(d: Draw) -> Slid:
    kernel, groups = d.numbers(1, 3), d.random.choice([1, 2])
    stride, dilation, padding, extra = d.numbers(1, 3), d.numbers(1, 2), d.numbers(0, 2), d.numbers(0, 1)
    call = d.function("conv_transpose{}d")
    return Slid(
        lambda x, w, b: call(x, w, b, stride, padding, extra, groups, dilation),
        d.weight(d.channels, 2, *kernel),
        d.weight(2 * groups),
    )


def max_pool(d: Draw) -> Slid:
    kernel, stride, dilation = d.numbers(1, 3), d.numbers(1, 3), d.numbers(1, 2)
    padding, ceil = [k // 2 if d.random.random() < 0.5 else 0 for k in kernel], d.random.random() < 0.5
    call, with_places = d.function("max_pool{}d"), d.random.random() < 0.3

    def pooled(x: Tensor) -> Tensor:
        result = call(x, kernel, stride, padding, dilation, ceil_mode=ceil, return_indices=with_places)
        return result[0] if with_places else result

    return Slid(pooled)


def average_pool(d: Draw) -> Slid:
    kernel, stride, ceil = d.numbers(1, 3), d.numbers(1, 3), d.random.random() < 0.5
    padding, counted = [k // 2 if d.random.random() < 0.5 else 0 for k in kernel], d.random.random() < 0.5
    divisor = [d.random.choice([None, None, 3])] if d.axes > 1 else []
    call = d.function("avg_pool{}d")
    return Slid(lambda x: call(x, kernel, stride, padding, ceil, counted, *divisor))


def adaptive_pool(d: Draw) -> Slid:
    outputs, call = d.numbers(1, 7), d.function(d.random.choice(["adaptive_avg_pool{}d", "adaptive_max_pool{}d"]))
    return Slid(lambda x: call(x, outputs))


def resized(d: Draw) -> Slid:
    linear = ("linear", "bilinear", "trilinear")[d.axes - 1]
    mode = d.random.choice(["nearest", "nearest-exact", linear, *(["bicubic"] if d.axes == 2 else [])])
    choices = [0.5, 1.5, 2.0, 3.0, 1.0, d.random.uniform(0.4, 3)]
    given: dict[str, Any] = {"size": d.numbers(1, 9)}
    if d.random.random() < 0.5:
        given = {"scale_factor": [d.random.choice(choices) for _ in range(d.axes)]}
        given["recompute_scale_factor"] = d.random.random() < 0.4
    if "nearest" not in mode:
        given["align_corners"] = d.random.random() < 0.5
    return Slid(lambda x: functional.interpolate(x, mode=mode, **given))


DRAWS = (convolution, transposed_convolution, max_pool, average_pool, adaptive_pool, resized)


def drawn_module(seed: int) -> tuple[Slid, tuple[int, ...]]:
    """Return the module of a seed and the shape of one input."""
    source = random.Random(seed)
    axes = source.choice([1, 2, 2, 3])
    draw = Draw(source, axes, source.choice([2, 4]), [source.randint(2, 6) for _ in range(axes)])
    return DRAWS[seed % len(DRAWS)](draw), (draw.channels, *draw.sizes)


def every_call() -> dict[str, tuple[Slid, tuple[int, ...]]]:
    """Return a module of every operator, by number of axes: those that tracing gives, and the low-level ones."""
    found = {}
    for axes in (1, 2, 3):
        weight = torch.ones(2, 2, *[2] * axes, dtype=torch.float64)
        for number, call in enumerate([*_windows(axes), *_adaptive(axes), *_resizings(axes)]):
            found[f"{axes} axes, call {number}"] = (Slid(call, weight), (2, *[4, 5, 3][:axes]))
    return found


Call = Callable[[Tensor, Tensor], Tensor]


def _windows(axes: int) -> list[Call]:
    names = ("conv{}d", "conv_transpose{}d", "max_pool{}d", "avg_pool{}d")
    convolved, transposed, greatest, mean = (getattr(functional, name.format(axes)) for name in names)
    return [
        lambda x, w: convolved(x, w),
        lambda x, w: convolved(x, w, padding="same"),
        lambda x, w: transposed(x, w),
        lambda x, w: greatest(x, 2),
        lambda x, w: greatest(x, 2, return_indices=True)[0],
        lambda x, w: mean(x, 2),
    ]


def _adaptive(axes: int) -> list[Call]:
    mean, greatest = (getattr(functional, f"adaptive_{name}_pool{axes}d") for name in ("avg", "max"))
    calls: list[Call] = [lambda x, w: mean(x, [2] * axes), lambda x, w: greatest(x, [2] * axes)]
    if axes > 1:
        low = getattr(torch.ops.aten, f"_adaptive_avg_pool{axes}d")
        calls.append(lambda x, w: low(x, [3] * axes))
    return calls


def _resizings(axes: int) -> list[Call]:
    linear = ("upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d")[axes - 1]
    names = [f"upsample_nearest{axes}d", f"_upsample_nearest_exact{axes}d", linear]
    calls: list[Call] = []
    for name in [*names, *(["upsample_bicubic2d"] if axes == 2 else [])]:
        calls += _both_overloads(getattr(torch.ops.aten, name), axes, () if "nearest" in name else (False,))
    return calls


def _both_overloads(operator: Any, axes: int, more: tuple[bool, ...]) -> list[Call]:
    sizes = [7, 6, 4][:axes]
    return [
        lambda x, w: operator.default(x, sizes, *more),
        lambda x, w: operator.vec(x, None, *more, [2.0] * axes),
    ]
