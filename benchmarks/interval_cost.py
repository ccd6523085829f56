"""Cost of interval propagation against the forward pass of the same batch, dtype and threads.

    python benchmarks/interval_cost.py [--batch 100] [--repeats 7] [--threads 1]

Networks: MWD and ReLU 784-512-512-512-10, LeNet (conv 20, pool, conv 50, pool, 500, 10) with random weights. The
two passes alternate, and the ratio is taken pair by pair. Peak memory is that of an MWD pass at growing batch.
"""

import argparse
import statistics
import time

import torch

from encoders import Box, Network, Node
from encoders.network import INPUT
from encoders.ops import Affine, Conv2d, MaxPool2d, Mwd, Op, Relu, Reshape


def chain(shape: tuple[int, ...], ops: list[Op]) -> Network:
    """Return the network that applies the ops in turn."""
    names = [INPUT, *(f"{i}-{op.kind}" for i, op in enumerate(ops))]
    return Network(tuple(Node(names[i + 1], op, (names[i],)) for i, op in enumerate(ops)), shape)


def affine(inputs: int, outputs: int) -> Affine:
    return Affine(torch.randn(outputs, inputs) / inputs**0.5, torch.randn(outputs) * 0.1)


def networks() -> dict[str, Network]:
    sizes = [(784, 512), (512, 512), (512, 512), (512, 10)]
    negated = [False, True, False, True]
    mwd: list[Op] = [
        Mwd(0.2 + 0.5 * torch.rand(out, n), torch.rand(out, n), torch.full((out,), flag))
        for (n, out), flag in zip(sizes, negated, strict=True)
    ]
    relu: list[Op] = [op for n, out in sizes for op in (affine(n, out), Relu())][:-1]
    lenet: list[Op] = [
        Conv2d(torch.randn(20, 1, 5, 5) / 5, torch.randn(20)), Relu(), MaxPool2d((2, 2), (2, 2)),
        Conv2d(torch.randn(50, 20, 5, 5) / 22, torch.randn(50)), Relu(), MaxPool2d((2, 2), (2, 2)),
        Reshape((800,)), affine(800, 500), Relu(), affine(500, 10),
    ]  # fmt: skip
    return {"mwd": chain((784,), mwd), "relu": chain((784,), relu), "lenet": chain((1, 28, 28), lenet)}


def seconds(call: object) -> float:
    started = time.perf_counter()
    call()  # type: ignore[operator]
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {options.threads} thread(s), batch {options.batch}, median (min to max)")
    for name, network in networks().items():
        for dtype in (torch.float64, torch.float32):
            x = torch.rand(options.batch, *network.input_shape, dtype=dtype)
            box = Box((x - 0.05).clamp(0, 1), (x + 0.05).clamp(0, 1))
            with torch.no_grad():
                network.evaluate(x), network.interval(box)
                pairs = [
                    (seconds(lambda: network.evaluate(x)), seconds(lambda: network.interval(box)))  # noqa: B023
                    for _ in range(options.repeats)
                ]
            ratios = sorted(b / a for a, b in pairs)
            forward, interval = (statistics.median(column) for column in zip(*pairs, strict=True))
            print(
                f"{name:6} {str(dtype)[6:]}: forward {forward * 1e3:7.2f} ms, interval {interval * 1e3:7.2f} ms, "
                f"ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
            )
    memory(networks()["mwd"])


def memory(network: Network) -> None:
    """Print the peak of float storage in the first MWD layer beside the size of batch x units x inputs."""
    for batch in (50, 200, 800):
        x = torch.rand(batch, 784, dtype=torch.float64)
        with torch.profiler.profile(profile_memory=True) as profile, torch.no_grad():
            network.nodes[0].op.cast(torch.float64, torch.device("cpu")).interval(Box(x, x))
        peak = running = 0
        for event in profile.profiler.kineto_results.events():
            if event.name() == "[memory]":
                running += event.nbytes()
                peak = max(peak, running)
        full = batch * 512 * 784 * 8
        print(
            f"mwd layer, batch {batch}: peak {peak / 2**20:.1f} MiB; batch x units x inputs is {full / 2**20:.0f} MiB"
        )


if __name__ == "__main__":
    main()
