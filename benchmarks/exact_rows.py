"""How long it takes to write networks as rows with binaries, and how much memory that needs.

    python benchmarks/exact_rows.py

Random float32 weights, boxes from linear bounds. CPU seconds of the process, least and median of nine; memory held by
the rows and at the peak of making them. Prints one line of JSON a network.
"""

import itertools
import json
import statistics
import time
import tracemalloc

import torch

from encoders import Network
from encoders.formulations.relax import encode_exactly
from encoders.network import INPUT, Node
from encoders.ops import Affine, Conv2d, MaxPool2d, Op, Relu, Reshape, Sigmoid
from encoders.region import BallRegion
from verifier.bounds.linear.bounds import linear_bounds

REPEATS = 9


def chain(shape: tuple[int, ...], ops: list[Op]) -> Network:
    """Return a network of ops one after the other."""
    names = [INPUT, *(f"node{number}" for number in range(len(ops)))]
    nodes = tuple(Node(names[k + 1], op, (names[k],)) for k, op in enumerate(ops))
    return Network(nodes, shape, torch.float32, "benchmark")


def dense(sizes: tuple[int, ...], activation: Op) -> Network:
    """Return a network of affine layers with activations between them."""
    generator = torch.Generator().manual_seed(0)
    ops: list[Op] = []
    for before, after in itertools.pairwise(sizes):
        weight = torch.randn(after, before, generator=generator) / before**0.5
        ops += [Affine(weight, torch.randn(after, generator=generator) / 10), activation]
    return chain((sizes[0],), ops[:-1])


def pooled() -> Network:
    """Return a network of two convolutions with a max pool between them."""
    generator = torch.Generator().manual_seed(1)
    first = Conv2d(torch.randn(8, 1, 3, 3, generator=generator) / 3, torch.zeros(8), (1, 1), (1, 1, 1, 1))
    second = Conv2d(torch.randn(16, 8, 3, 3, generator=generator) / 8, torch.zeros(16), (2, 2), (1, 1, 1, 1))
    last = Affine(torch.randn(10, 784, generator=generator) / 28)
    return chain((1, 28, 28), [first, Relu(), MaxPool2d((2, 2), (2, 2)), second, Relu(), Reshape((784,)), last])


def measure(name: str, network: Network, radius: float) -> dict[str, object]:
    """Return sizes, seconds and memory of the rows of one network on a ball around a random input."""
    centre = torch.rand(1, *network.input_shape, generator=torch.Generator().manual_seed(0)).to(torch.float64)
    region = BallRegion(centre, torch.tensor([radius], dtype=torch.float64), (0.0, 1.0))
    bounds = linear_bounds(network, region)
    seconds = []
    for _ in range(REPEATS):
        started = time.process_time()
        encode_exactly(bounds.network, bounds.boxes)
        seconds.append(time.process_time() - started)
    tracemalloc.start()
    rows = encode_exactly(bounds.network, bounds.boxes)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {
        "network": name, "radius": radius, "rows": rows.A.shape[0], "entries": rows.A.nnz, "binaries": rows.binaries,
        "least_seconds": round(min(seconds), 3), "median_seconds": round(statistics.median(seconds), 3),
        "mib_held": held >> 20, "mib_peak": peak >> 20,
    }  # fmt: skip


def main() -> None:
    """Measure all networks."""
    torch.set_num_threads(1)
    for name, network, radius in (
        ("relu 784-3x1000-10", dense((784, 1000, 1000, 1000, 10), Relu()), 0.01),
        ("relu 100-40x100-10", dense((100, *[100] * 40, 10), Relu()), 0.02),
        ("conv, max pool, conv", pooled(), 0.02),
        ("sigmoid 100-10x200-10, 4 segments", dense((100, *[200] * 10, 10), Sigmoid()), 0.02),
    ):
        print(json.dumps(measure(name, network, radius)), flush=True)


if __name__ == "__main__":
    main()
