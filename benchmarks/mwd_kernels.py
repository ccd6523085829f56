"""Kernels of MWD layers: a training step against naive torch, intervals against values, and each kernel's rate.

    python benchmarks/mwd_kernels.py [--batch 100] [--repeats 31] [--naive-repeats 3] [--threads 1]

The step is the forward and pseudogradient backward pass of 784-512-512-512-10 in float32. Naive torch broadcasts
batch x units x inputs and lets autograd save what it needs. Times are CPU seconds of the process, all threads, so
that other processes on the machine disturb them less; passes that are compared alternate.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from encoders import Box, Network, Node
from encoders.layers import Mwd as MwdLayer
from encoders.layers import mwd_kernels
from encoders.layers.mwd_unit import attractor_exp
from encoders.network import INPUT
from encoders.ops import Mwd

SIZES = [(784, 512), (512, 512), (512, 512), (512, 10)]
NEGATED = [False, True, False, True]


class NaiveSharedFeedbackMax(torch.autograd.Function):
    """max over the last axis, with the backward pass of the paper, on the whole tensor."""

    @staticmethod
    def forward(ctx: Any, squares: Tensor) -> Tensor:
        s = squares.amax(dim=-1)
        ctx.save_for_backward(squares, s)
        return s

    @staticmethod
    def backward(ctx: Any, *feedback: Tensor) -> Tensor:
        squares, s = ctx.saved_tensors
        return torch.exp(squares - s[..., None]) * feedback[0][..., None]


def naive_output(layers: nn.Sequential, x: Tensor) -> Tensor:
    for layer in layers:
        s = NaiveSharedFeedbackMax.apply((layer.u * (x[:, None] - layer.w)) ** 2)
        x = attractor_exp(s, layer.negated)
    return x


def seconds(call: Callable[[], Any]) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started


def spread(values: list[float]) -> str:
    """Return the median with the range of the middle half, in milliseconds."""
    low, median, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return f"{median * 1e3:8.2f} ms (quartiles {low * 1e3:.2f} to {high * 1e3:.2f})"


def training_step(batch: int, repeats: int, naive_repeats: int) -> None:
    """Print the time of a step by the kernels and by naive torch, and the gradients' largest difference."""
    types = ["negated" if flag else "plain" for flag in NEGATED]
    layers = nn.Sequential(*(MwdLayer(n, out, kind) for (n, out), kind in zip(SIZES, types, strict=True)))
    x, target = torch.rand(batch, SIZES[0][0]), torch.rand(batch, SIZES[-1][1])

    def step(output: Callable[[Tensor], Tensor]) -> None:
        layers.zero_grad()
        ((output(x) - target) ** 2).sum().backward()

    times: dict[str, list[float]] = {"kernels": [], "naive": []}
    outputs = {"kernels": layers, "naive": lambda x: naive_output(layers, x)}
    gradients = {}
    for name, output in outputs.items():
        step(output)
        gradients[name] = [p.grad.clone() for p in layers.parameters() if p.grad is not None]
    for index in range(repeats):
        for name in outputs:
            if name == "kernels" or index < naive_repeats:
                times[name].append(seconds(lambda: step(outputs[name])))  # noqa: B023
    for name, values in times.items():
        print(f"step, {name:8} {spread(values)}")
    ratio = statistics.median(times["naive"]) / statistics.median(times["kernels"])
    pairs = zip(gradients["kernels"], gradients["naive"], strict=True)
    error = max(float((a - b).norm() / b.norm()) for a, b in pairs)
    print(f"naive / kernels {ratio:.0f}; gradients differ by at most {error:.1e} of their norm")


def interval_pass(batch: int, repeats: int) -> None:
    """Print the time of the intervals and of the values of the same batch."""
    names = [INPUT, "first", "second", "third", "fourth"]
    for dtype in (torch.float32, torch.float64):
        ops = [
            Mwd(0.2 + 0.5 * torch.rand(out, n, dtype=dtype), torch.rand(out, n, dtype=dtype), torch.full((out,), flag))
            for (n, out), flag in zip(SIZES, NEGATED, strict=True)
        ]
        nodes = tuple(Node(names[k + 1], op, (names[k],)) for k, op in enumerate(ops))
        network = Network(nodes, (SIZES[0][0],), dtype)
        x = torch.rand(batch, SIZES[0][0], dtype=dtype)
        box = Box((x - 0.05).clamp(0, 1), (x + 0.05).clamp(0, 1))
        with torch.no_grad():
            network.evaluate(x), network.interval(box)
            pairs = [
                (seconds(lambda: network.evaluate(x)), seconds(lambda: network.interval(box)))  # noqa: B023
                for _ in range(repeats)
            ]
        forward, interval = map(list, zip(*pairs, strict=True))
        ratios = statistics.quantiles([b / a for a, b in pairs], n=4)
        print(f"{str(dtype)[6:]} values    {spread(forward)}")
        print(
            f"{str(dtype)[6:]} intervals {spread(interval)}, ratio {ratios[1]:.2f} ({ratios[0]:.2f} to {ratios[2]:.2f})"
        )


def kernel_calls(batch: int, dtype: torch.dtype, scale: float) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield (name, call) of each kernel on a 784 x 512 layer with weights up to `scale`."""
    n, units = SIZES[0]
    x, w = torch.rand(batch, n, dtype=dtype), torch.rand(units, n, dtype=dtype)
    u, grad = scale * torch.rand(units, n, dtype=dtype), torch.randn(batch, units, dtype=dtype)
    z, upper = mwd_kernels.weighted_distance(x, u, w), x + 0.1
    yield "values", lambda: mwd_kernels.weighted_distance(x, u, w)
    yield "range", lambda: mwd_kernels.distance_range(x, upper, u, w)
    for name, pseudo, needs in (
        ("pseudogradient", True, (True, True, True)),
        ("pseudogradient by parameters", True, (False, True, True)),
        ("pseudogradient by inputs", True, (True, False, False)),
        ("true gradient", False, (True, True, True)),
    ):
        yield name, lambda p=pseudo, needs=needs: mwd_kernels.max_square_backward(x, u, w, z, grad, p, needs)


def single_kernels(batch: int, repeats: int) -> None:
    """Print the elements batch x units x inputs a second of each kernel, conversion of the arrays included."""
    elements = batch * SIZES[0][0] * SIZES[0][1]
    for dtype in (torch.float32, torch.float64):
        # Below z = 1 the shares need no splitting off of powers of two.
        for scale, where in ((0.9, "z < 1"), (3.0, "z < 3")):
            for name, call in kernel_calls(batch, dtype, scale):
                call()
                values = [seconds(call) for _ in range(repeats)]
                rate = elements / statistics.median(values) / 1e9
                print(f"{str(dtype)[6:]}, {where}, {name:29} {spread(values)}, {rate:5.1f} G elements/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=31)
    parser.add_argument("--naive-repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    kinds = [kind for kind in ("triton", "numba") if mwd_kernels.is_installed(kind)]
    print(f"torch {torch.__version__}, {options.threads} thread(s), batch {options.batch}, installed: {kinds}")
    training_step(options.batch, options.repeats, options.naive_repeats)
    interval_pass(options.batch, options.repeats)
    single_kernels(options.batch, options.repeats)


if __name__ == "__main__":
    main()
