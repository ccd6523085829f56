"""Margins and boxes of units by optimised slopes, beside those of auto_LiRPA (Xu et al. 2021), in one run.

    python benchmarks/linear_bounds_opponent.py MODEL --data mnist --data-dir MNIST --inputs 10 --epsilon 0.03

auto_LiRPA's CROWN-Optimized with its own settings, all inputs in one batch and one by one, against `alpha-crown`: the
mean of the margins, how many inputs are proved, CPU seconds, and the mean width of the boxes behind the first hinge of
units whose sign neither knows. Ours are float64 with every rounding bounded, theirs float32. Networks of affine ops,
convolutions and relus in a chain. Version 0.3, the last that `pip` has (installed with `--no-deps`, and appdirs, tqdm
and sortedcontainers beside it), was written for older versions of torch and numpy: what it misses is put in place here.
One thread; all repeats alternate.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
import types
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from encoders import BallRegion, Network
from encoders.ops import Affine, Conv2d, Relu, Reshape
from verifier.bounds.split import ball_margins as ours
from verifier.bounds.split.ball_margins import ball_margins
from verifier.budget import Budget
from verifier.data import load_data
from verifier.subject import open_model

STEPS = 20


@dataclass(frozen=True, eq=False)
class Bounds:
    """margins: `(inputs, rivals)`; lower, upper: `(inputs, units)` of what relus behind the first read."""

    margins: Tensor
    lower: Tensor
    upper: Tensor


def opponent() -> Any:
    """Return the module auto_LiRPA, with what its version 0.3 misses in newer libraries."""
    from torch.onnx import utils
    from torch.onnx._internal.torchscript_exporter import utils as exporter
    from torch.onnx._internal.torchscript_exporter._globals import GLOBALS

    sets, opset = types.ModuleType("numpy.lib.arraysetops"), types.ModuleType("torch.onnx.symbolic_helper")
    sets.isin, opset._set_opset_version = (
        np.isin,
        lambda version: setattr(GLOBALS, "export_onnx_opset_version", version),
    )
    sys.modules["numpy.lib.arraysetops"], sys.modules["torch.onnx.symbolic_helper"] = sets, opset
    utils._optimize_graph = exporter._optimize_graph
    torch._C.Node.__getitem__ = lambda node, name: getattr(node, node.kindOf(name))(name)
    import auto_LiRPA

    return auto_LiRPA


def reshapes(network: Network) -> int:
    """Return how many ops reshape the input before anything is computed, at most one."""
    return int(isinstance(network.nodes[0].op, Reshape))


def input_shape(network: Network) -> tuple[int, ...]:
    """Return the shape of the input once reshaped."""
    return network.shapes[network.nodes[0].name] if reshapes(network) else network.input_shape


def module_of(network: Network) -> nn.Sequential:
    """Return a network that is a chain as a torch module, float32, of inputs as they are once reshaped."""
    layers: list[nn.Module] = []
    for node in network.nodes[reshapes(network) :]:
        op = node.op
        if isinstance(op, Affine):
            layer: nn.Module = nn.Linear(op.weight.shape[1], op.weight.shape[0])
        elif isinstance(op, Conv2d) and op.groups == 1 and op.padding[:2] == op.padding[2:]:
            outputs, inputs, *kernel = op.weight.shape
            layer = nn.Conv2d(inputs, outputs, tuple(kernel), op.stride, op.padding[:2], op.dilation)
        elif isinstance(op, Relu):
            layer = nn.ReLU()
        elif isinstance(op, Reshape):
            layer = nn.Flatten()
        else:
            raise SystemExit(f"node {node.name!r} is {op.kind}; chains of affine ops, convolutions and relus are taken")
        if isinstance(op, Affine | Conv2d):
            layer.weight.data = op.weight.float()
            layer.bias.data = torch.zeros(op.weight.shape[0]) if op.bias is None else op.bias.float()
        layers.append(layer)
    return nn.Sequential(*layers)


def theirs(module: Any, library: Any, region: BallRegion, rows: Tensor, shape: tuple[int, ...]) -> Bounds:
    """Return what CROWN-Optimized gives for rows `(inputs, rivals, classes)` on balls, in one batch."""
    ball = region.enclosure()
    lower, upper, centre = (x.float().reshape(-1, *shape) for x in (ball.lower, ball.upper, region.centre))
    reach = library.PerturbationLpNorm(norm=np.inf, x_L=lower, x_U=upper)
    point = library.BoundedTensor(centre, reach)
    margins = module.compute_bounds(x=(point,), C=rows, method="CROWN-Optimized", bound_upper=False)[0]
    relus = [node.inputs[0] for node in module._modules.values() if type(node).__name__ == "BoundRelu"]
    ends = [torch.cat([getattr(node, end).detach().flatten(1) for node in relus[1:]], 1) for end in ("lower", "upper")]
    return Bounds(margins.detach().double(), *(end.double() for end in ends))


def one_by_one(network: Network, region: BallRegion, classes: list[int]) -> Bounds:
    """Return our margins and boxes."""
    kept: list[Any] = []

    def noted(*given: Any, **named: Any) -> Any:
        kept.append(prepare(*given, **named))
        return kept[-1]

    prepare, ours.prepare = ours.prepare, noted
    margins = []
    for i, winner in enumerate(classes):
        own = BallRegion(region.centre[i : i + 1], region.radius[i : i + 1], region.domain)
        lower = ball_margins(network, own, winner, STEPS, Budget(math.inf)).lower
        margins.append(lower[lower.isfinite()])
    ours.prepare = prepare
    boxes = [[ball.program.boxes[h.source] for h in ball.program.hinges[1:]] for ball in kept]
    ends = [
        torch.stack([torch.cat([getattr(box, end).flatten() for box in own]) for own in boxes])
        for end in ("lower", "upper")
    ]
    return Bounds(torch.stack(margins), *ends)


def told(name: str, seconds: list[float], bounds: Bounds, is_open: Tensor) -> None:
    """Print one row."""
    widths = (bounds.upper - bounds.lower)[is_open]
    proved = int((bounds.margins > 0).all(dim=1).sum())
    print(f"  {name:24} mean margin {float(bounds.margins.mean()):8.3f}  proved {proved:3}  "
          f"mean width {float(widths.mean()):7.3f}  CPU s {statistics.median(seconds):6.2f} "
          f"({min(seconds):.2f} to {max(seconds):.2f})", flush=True)  # fmt: skip


def measure(model: str, options: argparse.Namespace, library: Any) -> None:
    """Print margins, boxes and seconds of both on one model."""
    network, _ = open_model(model)
    data = load_data(options.data, data_dir=options.data_dir).fit_to(network.input_shape)
    x = torch.tensor(data.inputs[: options.inputs]).double()
    classes = network.scores(x.to(network.dtype)).argmax(dim=1).tolist()
    region = BallRegion(x, torch.full((len(x),), options.epsilon, dtype=torch.float64), (0.0, 1.0))
    count = network.output_shape[0]
    rows = torch.stack([torch.eye(count)[c] - torch.eye(count)[[k for k in range(count) if k != c]] for c in classes])
    shape = input_shape(network)
    # Built anew each time, outside the clock: it keeps slopes from call to call.
    # With slopes of open units alone version 0.3 fails where a step changes how many are open: slopes of all units.
    options_of_theirs = {"sparse_features_alpha": False, "sparse_spec_alpha": False}
    build = partial(library.BoundedModule, module_of(network), torch.zeros(1, *shape), options_of_theirs)
    seconds: dict[str, list[float]] = {"alpha-crown": [], "auto_LiRPA, a batch": [], "auto_LiRPA, one by one": []}
    found: dict[str, Bounds] = {}
    for _ in range(options.repeats):
        whole, own = build(), [build() for _ in classes]

        def singly(modules: list[Any] = own) -> Bounds:
            parts = [
                theirs(
                    modules[i],
                    library,
                    BallRegion(x[i, None], region.radius[i, None], (0.0, 1.0)),
                    rows[i, None],
                    shape,
                )
                for i in range(len(x))
            ]
            return Bounds(*(torch.cat([getattr(part, end) for part in parts]) for end in ("margins", "lower", "upper")))

        work = (
            lambda: one_by_one(network, region, classes),
            lambda module=whole: theirs(module, library, region, rows, shape),
            singly,
        )
        for name, each in zip(seconds, work, strict=True):
            started = time.process_time()
            found[name] = each()
            seconds[name].append(time.process_time() - started)
    print(f"{Path(model).name}: {len(x)} inputs, epsilon {options.epsilon:g}", flush=True)
    is_open = torch.stack([(b.lower < 0) & (b.upper > 0) for b in found.values()]).all(dim=0)
    for name, bounds in found.items():
        told(name, seconds[name], bounds, is_open)


def main() -> None:
    """Read the command line and measure each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--inputs", type=int, default=10)
    parser.add_argument("--epsilon", type=float, default=0.03)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    library = opponent()
    for model in options.models:
        measure(model, options, library)


if __name__ == "__main__":
    main()
