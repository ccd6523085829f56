"""Batched paths on the processor and on a device: seconds, their ratio, and the share of what the card can do.

    python benchmarks/devices.py --out devices.jsonl [--device cuda] [--batches 1 16 64 256 1024] [--repeats 5]
    python benchmarks/devices.py --table devices.jsonl      # prints the table again
    python benchmarks/devices.py --smoke                    # seconds: small sizes, the processor on both sides

Each path is measured at each batch size, seconds being the shortest of some repeats after one that does not count, with
the results back on the processor. A path ends at the batch at which one repeat takes longer than --longest. Rows go
into the file as they come, and what it holds is not measured again: the same command goes on. Without a device that
column says "not run". The share is that of multiply-adds a second in the path's products of what one product of large
matrices reaches there in the same dtype: what else a path does (comparisons, moves, the kernels of MWD layers) is not
counted, and takes the rest.
"""

import argparse
import functools
import json
import math
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from encoders import BallRegion, Network
from tests.networks.chains import random_relu_network
from tests.networks.mwd_chains import random_mwd_network
from verifier.attacks import Search
from verifier.attacks.descent import Descent
from verifier.attacks.steps import Steepest
from verifier.bounds.interval import compare_classes
from verifier.bounds.linear.margins import linear_margins
from verifier.bounds.split.dual_ascent import DualAscent, Lines
from verifier.bounds.split.stages import staged
from verifier.budget import Budget
from verifier.devices.choice import rigorous
from verifier.devices.parts import in_parts

F32, F64 = torch.float32, torch.float64
CPU = torch.device("cpu")
RADIUS, PGD_STEPS, ASCENT_STEPS = 0.01, 10, 10
# A piece of work at a batch size on a device, which gives something to bring back; and its main dtype.
Call = Callable[[], Tensor]


def inputs(network: Network, batch: int, device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(batch)
    return torch.rand(batch, *network.input_shape, generator=generator, dtype=F64).to(device)


def ball(network: Network, batch: int, device: torch.device) -> tuple[BallRegion, Tensor]:
    x = inputs(network, batch, device)
    radius = torch.full((batch,), RADIUS, dtype=F64, device=device)
    return BallRegion(x, radius, (0.0, 1.0)), network.scores(x.to(network.dtype)).argmax(dim=1)


def evaluation(network: Network, batch: int, device: torch.device) -> Call:
    x = inputs(network, batch, device).to(network.dtype)
    return lambda: network.scores(x)


def pgd(network: Network, batch: int, device: torch.device) -> Call:
    region, classes = ball(network, batch, device)
    attack = Descent(PGD_STEPS, Steepest(0.25), restarts=1)
    return lambda: attack.run(Search(network, region, classes, range(batch), Budget())).points


def intervals(network: Network, batch: int, device: torch.device) -> Call:
    region, classes = ball(network, batch, device)
    box = region.enclosure()
    return lambda: compare_classes(network, box, classes).wins


def crown(network: Network, batch: int, device: torch.device) -> Call:
    region, classes = ball(network, batch, device)
    nothing = torch.zeros(batch, network.output_shape[0], dtype=torch.bool, device=device)

    def margins(part: slice) -> Tensor:
        return linear_margins(network, region[part], classes[part], wins=nothing[part]).lower

    return lambda: torch.cat(in_parts(margins, batch, batch))


def ascent(network: Network, batch: int, device: torch.device) -> Call:
    stages = staged(network).to(F32, device)
    box = torch.zeros(stages.inputs, dtype=F64), torch.ones(stages.inputs, dtype=F64)
    searched, generator = DualAscent(stages, *box), torch.Generator().manual_seed(batch)
    ends = torch.randn(2, 1, len(searched.left), generator=generator).sort(dim=0).values.to(device)
    lines = Lines.on(*ends, searched.left)
    rows = torch.randn(batch, network.output_shape[0], generator=generator).to(device)
    slopes = torch.rand(batch, len(searched.left), generator=generator).to(device)
    return lambda: searched.ascend(stages.output, rows, lines, slopes, None, ASCENT_STEPS, math.inf)[0]


def gradient(network: Network, batch: int, device: torch.device) -> Call:
    """The kernels of MWD layers, forth and back."""
    x = inputs(network, batch, device).to(network.dtype)

    def back() -> Tensor:
        wanted = x.clone().requires_grad_()
        return torch.autograd.grad(network.scores(wanted).sum(), wanted)[0]

    return back


@functools.cache
def relu_network(small: bool) -> Network:
    return random_relu_network(0, (20, 30, 30, 10) if small else (784, 256, 256, 10))


@functools.cache
def mwd_network(small: bool) -> Network:
    return random_mwd_network(0, (20, 30, 30, 10) if small else (784, 512, 512, 10))


# By the name in the table: what makes the call, for which network, and the dtype of its products.
PATHS: dict[str, tuple[Callable[[Network, int, torch.device], Call], Callable[[bool], Network], torch.dtype]] = {
    "evaluation": (evaluation, relu_network, F32),
    "attack pgd": (pgd, relu_network, F32),
    "intervals": (intervals, relu_network, F64),
    "crown": (crown, relu_network, F64),
    "ascent": (ascent, relu_network, F32),
    "MWD values": (evaluation, mwd_network, F32),
    "MWD gradients": (gradient, mwd_network, F32),
    "MWD intervals": (intervals, mwd_network, F64),
}


def shortest(call: Call, repeats: int) -> float:
    """Return the seconds of the fastest of some repeats, results on the processor."""
    best = math.inf
    for repeat in range(repeats + 1):
        began = time.perf_counter()
        call().cpu()
        seconds = time.perf_counter() - began
        best = min(best, seconds) if repeat else best
    return best


@functools.cache
def most_a_second(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """Return the multiply-adds a second of one product of large matrices."""
    x = torch.rand(size, size, dtype=dtype).to(device)
    return size**3 / shortest(lambda: (x @ x)[0, 0], 3)


def measured(name: str, batch: int, device: torch.device, asked: argparse.Namespace) -> dict[str, float]:
    """Return the seconds, the share of the limit and the memory of a path."""
    make, network_of, dtype = PATHS[name]
    call = make(network_of(asked.smoke), batch, device)
    with FlopCounterMode(display=False) as counter:
        call()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = shortest(call, asked.repeats)
    rate = most_a_second(device, dtype, 256 if asked.smoke else 4096 if device.type == "cuda" else 1024)
    found = {"seconds": seconds, "share": counter.get_total_flops() / 2 / seconds / rate}
    if device.type == "cuda":
        found["memory"] = (
            torch.cuda.max_memory_allocated(device) / torch.cuda.get_device_properties(device).total_memory
        )
    return found


def sides(asked: argparse.Namespace) -> dict[str, torch.device]:
    """Return the devices by the names that rows have: of the processor, and of the other where it is there."""
    here = {f"cpu, {platform.machine()}, {torch.get_num_threads()} threads": CPU}
    if asked.smoke:
        return {**here, "cpu again": CPU}
    if not torch.cuda.is_available():
        return here
    device = torch.device(asked.device)
    return {**here, torch.cuda.get_device_name(device): device}


def run(asked: argparse.Namespace) -> list[dict]:
    """Measure what the file lacks, path by path, and return all rows."""
    rows = read(asked.out)
    if asked.out is not None:
        # Without a last line that was not finished.
        asked.out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = {(row["path"], row["batch"], row["side"], row["torch"]) for row in rows}
    for name in asked.paths:
        for side, device in sides(asked).items():
            for batch in asked.batches:
                if (name, batch, side, torch.__version__) not in done:
                    with rigorous(device):
                        found = measured(name, batch, device, asked)
                    fixed = {"path": name, "batch": batch, "side": side, "device": device.type}
                    rows.append({**fixed, "torch": torch.__version__, **found})
                    if asked.out is not None:
                        with asked.out.open("a") as file:
                            file.write(json.dumps(rows[-1]) + "\n")
                mine = [r for r in rows if (r["path"], r["batch"], r["side"]) == (name, batch, side)]
                if mine[-1]["seconds"] > asked.longest:
                    break
    return rows


def read(path: Path | None) -> list[dict]:
    if path is None or not path.exists():
        return []
    whole = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return [json.loads(line) for line in whole]


def table(rows: list[dict]) -> str:
    """Return the rows as a table, one line for each path and batch; "not run" where there was no device."""
    names = list(dict.fromkeys(row["side"] for row in rows))
    here, there = names[0], names[1:] or ["a GPU"]
    lines = [f"| path | batch | {here}: s (share) | " + " | ".join(f"{n}: s (share), ratio" for n in there) + " |"]
    lines.append("| --- " * (3 + len(there)) + "|")
    for path, batch in dict.fromkeys((row["path"], row["batch"]) for row in rows):
        of = {row["side"]: row for row in rows if (row["path"], row["batch"]) == (path, batch)}
        cells = [path, f"{batch:,}", shown(of.get(here))]
        for name in there:
            ratio = f", {of[here]['seconds'] / of[name]['seconds']:.2f}" if here in of and name in of else ""
            cells.append(shown(of.get(name)) + ratio)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def shown(row: dict | None) -> str:
    return "not run" if row is None else f"{row['seconds']:.3g} ({row['share']:.1%})"


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="file of the rows, which the same command goes on with")
    parser.add_argument("--table", type=Path, help="print the table of a file, and measure nothing")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--paths", nargs="+", default=list(PATHS), choices=list(PATHS))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 16, 64, 256, 1024])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--longest", type=float, default=5.0, help="seconds of a repeat after which batches end")
    parser.add_argument("--smoke", action="store_true")
    asked = parser.parse_args(arguments)
    if asked.smoke:
        asked.batches, asked.repeats = [1, 8], 1
    return asked


def main(arguments: list[str] | None = None) -> None:
    asked = options(arguments)
    print(table(read(asked.table) if asked.table is not None else run(asked)))


if __name__ == "__main__":
    main()
