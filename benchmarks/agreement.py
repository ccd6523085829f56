"""What comparing graph and runtime costs, and how far their differences stay within what rounding explains.

    python benchmarks/agreement.py FOLDER [--largest-bytes N]

For every .onnx, .onnx.gz, .pt2 and .safetensors file below the folder: the largest difference over the tolerance at
random inputs of [0, 1] and the probes around them (a false alarm is a ratio above 1), the tolerance over the largest
output, seconds to read the file, to probe it, and to compare a batch of 64 inputs over that of running the model on it.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from encoders.formats import READERS, ModelFileError, open_runtime, read_network
from verifier.agreement import Agreement, DisagreementError, probes, rounding_tolerance

BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--largest-bytes", type=int, default=30_000_000, help="leave out larger files")
    options = parser.parse_args()
    torch.set_num_threads(1)
    worst, alarms, count = 0.0, 0, 0
    print(f"{'file':60s} {'difference':>10s} {'tolerance':>10s} {'read s':>7s} {'probe s':>7s} {'batch':>6s}")
    for path in sorted(p for p in options.folder.rglob("*") if p.name.endswith(tuple(READERS))):
        if path.stat().st_size > options.largest_bytes:
            continue
        try:
            ratio, relative, reading, probing, share = measure(path)
        except ModelFileError as error:
            print(f"{path.name:60s} not read: {str(error).splitlines()[0]}")
            continue
        except DisagreementError as error:
            alarms += 1
            print(f"{path.name:60s} FALSE ALARM: {error}")
            continue
        worst, count = max(worst, ratio), count + 1
        print(f"{path.name[-60:]:60s} {ratio:10.4f} {relative:10.1e} {reading:7.2f} {probing:7.2f} {share:6.1f}")
    print(f"{count} networks, largest difference {worst:.3f} of the tolerance, {alarms} false alarms")


def measure(path: Path) -> tuple[float, float, float, float, float]:
    """Return (difference / tolerance, tolerance / output, seconds to read, to probe, a batch's share)."""
    started = time.perf_counter()
    network, runtime = read_network(path), open_runtime(path)
    reading = time.perf_counter() - started
    inputs = np.random.default_rng(0).random((BATCH, *network.input_shape)).astype(runtime.dtype)
    points, _ = probes(inputs, None)
    exact = torch.from_numpy(points).to(torch.float64)
    expected, tolerance = network.evaluate(exact).numpy(), rounding_tolerance(network, exact).numpy()
    ratio = float((np.abs(runtime(points) - expected) / tolerance).max())
    relative = float(tolerance.max() / max(np.abs(expected).max(), 1e-300))
    started = time.perf_counter()
    agreed = Agreement(path.name, network, runtime).probed(inputs, None)
    probing = time.perf_counter() - started
    started = time.perf_counter()
    outputs = runtime(inputs)
    running = time.perf_counter() - started
    started = time.perf_counter()
    agreed.check(inputs, outputs, [""] * BATCH)
    return ratio, relative, reading, probing, (time.perf_counter() - started) / running


if __name__ == "__main__":
    main()
