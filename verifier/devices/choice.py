"""Which device a choice means, and the context in which bounds are rigorous there."""

from __future__ import annotations

import contextlib
import copy
import math
import os
import warnings
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from encoders.network import Network
from verifier.devices.arithmetic import OVERRIDES, faults
from verifier.devices.break_even import BATCH, break_even

CHOICES = ("auto", "cpu", "cuda")


def choose_device(device: str, work: Callable[[], float]) -> torch.device:
    """Return the torch device of `auto`, `cpu` or `cuda`.

    work: returns the multiply-adds of one pass of a batch. `auto` is a GPU where one is there, its arithmetic is what
    bounds are about, and so much work is faster there than on the processor, as was measured once (`break_even`).

    Raises ValueError, with what to do, for a device that is not there, or on which bounds would not be rigorous.
    """
    if device not in CHOICES:
        raise ValueError(f"unknown device {device!r}; supported: {', '.join(CHOICES)}")
    processor = torch.device("cpu")
    available = device != "cpu" and torch.cuda.is_available()
    if device == "cuda" and not available:
        raise ValueError("device cuda was asked for, but torch finds none here; use auto or cpu")
    if not available:
        return processor
    there = torch.device("cuda")
    try:
        with rigorous(there):
            return there if device == "cuda" or work() >= break_even(there) else processor
    except ValueError as error:
        if device == "cuda":
            raise
        warnings.warn(f"the processor works in place of the GPU: {error}", stacklevel=2)
        return processor


def work_of(network: Network) -> float:
    """Return the multiply-adds, sums and comparisons of a pass of a batch through a network, roughly."""
    return float(BATCH * sum(node.op.fan_in() * math.prod(network.shapes[node.name]) for node in network.nodes))


def work_of_module(module: nn.Module, x: Tensor) -> float:
    """Return the multiply-adds of a pass of one input `(1, *shape)`, or a module's weights where these are more."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        copy.deepcopy(module).eval()(x)
    return max(float(counter.get_total_flops()) / 2.0, float(sum(weight.numel() for weight in module.parameters())))


@contextlib.contextmanager
def rigorous(device: torch.device) -> Iterator[None]:
    """Compute on a device inside as bounds of roundings want it; nothing to do for the processor.

    TensorFloat-32 is off, and cuDNN, whose convolutions may be Winograd's or by Fourier transforms: torch's own sum
    products, one for each weight. What this gives is looked at (`faults`); ValueError with what to set where it is
    something else.
    """
    if device.type == "cpu":
        yield
        return
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=False, allow_tf32=False):
            found = faults(device)
            if found:
                forced = [f"{name}={os.environ[name]}" for name in OVERRIDES if os.environ.get(name)]
                remedy = f"unset {', '.join(forced)}" if forced else "use cpu"
                raise ValueError(f"bounds on {device} would not be rigorous: {'; '.join(found)}; {remedy}")
            yield
    finally:
        torch.set_float32_matmul_precision(precision)
