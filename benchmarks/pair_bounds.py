"""Linear bounds of f - g as a difference, layer by layer, against the difference of bounds, on pairs of ACAS networks.

    python benchmarks/pair_bounds.py FOLDER [--networks N]

FOLDER holds onnx/ and vnnlib/ of the ACAS benchmark of VNN-COMP. Pairs: each network and the same with weights rounded
to float16 on one input; each network at two inputs that differ in the first coordinate. Boxes: those of properties 1, 3
and 4, and the same shrunk around their middles. For each: the ratio of the widths that bounds of all five differences
have both ways, as a geometric mean with its range over networks and outputs, and seconds a network. Then, for float16,
how many boxes of inputs the search bounds until it has proved that no output differs by delta on the box of property 3;
delta is given as a share of the width of plain bounds.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from encoders import BallRegion, Box, Network, read_network, read_property
from encoders.joint import Copy, Joint
from encoders.passes.join_networks import join_networks
from encoders.questions import equal_within
from verifier.bounds.inputs.search import decide_box
from verifier.bounds.linear.bounds import linear_bounds
from verifier.budget import Budget
from verifier.certificates.conjunctions import Conjunctions

PROPERTIES, SHARES, OUTPUTS = (1, 3, 4), (1.0, 0.25, 0.05, 0.01), 5
# The searches: how large delta is, beside the width of plain bounds, and their limits.
DELTAS, MOST_BOXES, SECONDS = (0.1, 0.02, 0.005), 200_000, 30.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--networks", type=int, default=9, help="how many of the 45, evenly spread")
    options = parser.parse_args()
    torch.set_num_threads(1)
    paths = sorted((options.folder / "onnx").glob("*.onnx*"))
    networks = [read_network(path) for path in paths[:: max(1, len(paths) // options.networks)]]
    boxes = {}
    for number in PROPERTIES:
        (asked, *_) = read_property(options.folder / "vnnlib" / f"prop_{number}.vnnlib")
        boxes[number] = (asked.lower.flatten(), asked.upper.flatten())
    print(f"{len(networks)} networks\nproperty  share  pair     ratio (range)            seconds plain / difference")
    for number, ends in boxes.items():
        for share in SHARES:
            for pair in ("float16", "inputs"):
                compare(networks, ends, number, share, pair)
    print("delta / plain width   boxes plain / difference, proved")
    for share in DELTAS:
        for network in networks[:3]:
            search(network, boxes[3], share)


def compare(networks: list[Network], ends: tuple[Tensor, Tensor], number: int, share: float, pair: str) -> None:
    """Print how much tighter differences are, over networks and outputs."""
    ratios, seconds = [], [0.0, 0.0]
    for network in networks:
        found = []
        for k, form in enumerate(forms(network, pair)):
            began = time.perf_counter()
            found.append(widths(form, shrunk(ends, share, form.input_shape[0])))
            seconds[k] += time.perf_counter() - began
        ratios += (found[0] / found[1]).log().tolist()
    mean, least, greatest = (math.exp(x) for x in (sum(ratios) / len(ratios), min(ratios), max(ratios)))
    each = " / ".join(f"{total / len(networks):.2f}" for total in seconds)
    print(f"{number:8d}  {share:5.2f}  {pair:7s}  {mean:6.2f} ({least:.2f} to {greatest:.1f})   {each}", flush=True)


def search(network: Network, ends: tuple[Tensor, Tensor], share: float) -> None:
    """Print how many boxes a proof takes both ways."""
    plain = forms(network, "float16")[0]
    delta = float(widths(plain, shrunk(ends, 1.0, 5)).max()) * share
    asked = equal_within(*ends, delta, OUTPUTS, second="g")
    told = []
    for form in forms(network, "float16"):
        conjunctions = Conjunctions.of_polyhedra(form.cast(torch.float64), asked.unsafe)
        found = decide_box(conjunctions, shrunk(ends, 1.0, 5), lambda _: False, Budget(SECONDS), MOST_BOXES)
        told.append(f"{found.boxes} {'proved' if found.proved else 'open'}")
    print(f"{share:8.3f} ({delta:.2e})   {' / '.join(told)}", flush=True)


def forms(network: Network, pair: str) -> list[Network]:
    """Return a pair as one network, plainly and as differences."""
    places, shape = tuple(range(5)), tuple(network.input_shape)
    first = Copy("f", shape, places, OUTPUTS)
    if pair == "float16":
        joint = Joint(5, (first, Copy("g", shape, places, OUTPUTS)))
    else:
        joint = Joint(6, (first, Copy("f", shape, (5, *places[1:]), OUTPUTS)))
    networks = {"f": network, "g": rounded(network)}
    return [join_networks(joint, networks, as_differences=differences) for differences in (False, True)]


def rounded(network: Network) -> Network:
    """Return the network with its weights rounded to float16."""
    nodes = []
    for node in network.nodes:
        weights = {name: value for name, value in node.op.parameters().items() if value.is_floating_point()}
        changed = {name: value.half().to(value.dtype) for name, value in weights.items()}
        nodes.append(replace(node, op=replace(node.op, **changed)) if changed else node)
    return replace(network, nodes=tuple(nodes))


def shrunk(ends: tuple[Tensor, Tensor], share: float, inputs: int) -> Box:
    """Return the box of so many inputs (batch 1), the first coordinate again behind the others where there are six."""
    lower, upper = (torch.cat([end, end[:1]])[None, :inputs] for end in ends)
    middle, half = (lower + upper) / 2.0, (upper - lower) / 2.0 * share
    return Box(middle - half, middle + half)


def widths(network: Network, box: Box) -> Tensor:
    """Return the widths `(outputs,)` of the bounds of all differences."""
    eye = torch.eye(OUTPUTS, dtype=torch.float64)
    row = torch.zeros(OUTPUTS, network.output_shape[0], dtype=torch.float64)
    row[:, :OUTPUTS], row[:, OUTPUTS : 2 * OUTPUTS] = -eye, eye
    least = linear_bounds(network, BallRegion.of_box(box)).minimise(torch.cat([row, -row])[None]).bound[0]
    return -(least[:OUTPUTS] + least[OUTPUTS:])


if __name__ == "__main__":
    main()
