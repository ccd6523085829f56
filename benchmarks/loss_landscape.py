"""The loss around one input, of a relu network beside one of k winners: a picture, its numbers, and how rough each is.

    python benchmarks/loss_landscape.py --folder RUNS [--data-dir MNIST] [--train 10000] [--epochs 4] [--out DOCS]

After Xiao, Zhong, Zheng 2020 (loss landscapes): margins z_y - max_{k != y} z_k at x + a s + b r, with s the signs of
the gradient at x against the margin and r random signs, a and b within epsilon. The networks are the rows `none` and
`k-WTA` of `attack_defence.py`, trained into the folder where they are not there. Writes loss-landscape.png and .csv
(the grid), and prints over many inputs the local minima along s, and how often a step along s lowers the margin where
the gradient says so: on a smooth margin nearly always. Then what their theorems are about, for a layer of Gaussian
weights by its width: how often two near points have other winners (1), and which share of its winners a point has in
common with an independent one (2).
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
from pathlib import Path

import torch
from attack_defence_rows import Defence, Scale, defences, trained
from matplotlib import colormaps
from matplotlib.figure import Figure
from torch import Tensor

from encoders import Network, read_network
from verifier.attacks.criteria import margins
from verifier.data import load_data
from verifier.reports.figure import BLUE, ORANGE, save

GRID, LINE, SEED = 31, 201, 0
WIDTHS, INPUTS, PAIRS = (30, 100, 300, 1000, 3000, 10_000), 50, 200


def gradient(network: Network, x: Tensor, y: Tensor) -> Tensor:
    """Return the gradients of the margins at points, by what the network really computes."""
    point = x.detach().requires_grad_(True)
    (result,) = torch.autograd.grad(margins(network.scores(point), y).sum(), point)
    return result


def along(network: Network, x: Tensor, y: Tensor, direction: Tensor, lengths: Tensor) -> Tensor:
    """Return the margins `(batch, lengths)` at x + length direction, for points x `(batch, *shape)`."""
    with torch.no_grad():
        return torch.stack([margins(network.scores(x + a * direction), y) for a in lengths.to(x)], dim=1)


def roughness(network: Network, x: Tensor, y: Tensor, epsilon: float) -> tuple[float, float]:
    """Return (local minima on the segments along s, means over inputs; share of steps that go where gradients say)."""
    signs = -gradient(network, x, y).sign()
    values = along(network, x, y, signs, torch.linspace(-epsilon, epsilon, LINE))
    steps = values.diff(dim=1)
    minima = ((steps[:, :-1] < 0) & (steps[:, 1:] > 0)).sum(dim=1).double().mean()
    kept = []
    for a in torch.linspace(-epsilon, epsilon, 11)[:-1]:
        point = x + a * signs
        slope = (gradient(network, point, y) * signs).flatten(1).sum(dim=1)
        moved = along(network, point, y, signs, torch.tensor([0.0, epsilon / 50])).diff(dim=1).squeeze(1)
        kept.append((slope * moved > 0).double())
    return float(minima), float(torch.stack(kept).mean())


def winners_differ(width: int, count: int, distance: float) -> tuple[float, float]:
    """Return how often x and x + d, |d| = distance |x|, have other winners, and the share that x and another x' share.

    Means over PAIRS pairs of standard normal points of INPUTS numbers, each with weights of its own.
    """
    generator = torch.Generator().manual_seed(SEED)
    differ = shared = 0.0
    for _ in range(PAIRS):
        w, x, d, other = (torch.randn(*size, INPUTS, generator=generator) for size in ((width,), (), (), ()))
        near = x + d * distance * x.norm() / d.norm()
        own, moved, far = (set((w @ point).topk(count).indices.tolist()) for point in (x, near, other))
        differ += (own != moved) / PAIRS
        shared += len(own & far) / count / PAIRS
    return differ, shared


def picture(networks: dict[str, Network], x: Tensor, y: Tensor, epsilon: float, out: Path) -> None:
    """Write the grid of margins around one input as CSV, and it and the segment along s as PNG."""
    ends = torch.linspace(-epsilon, epsilon, GRID)
    noise = torch.randint(0, 2, x.shape, generator=torch.Generator().manual_seed(SEED)).to(x) * 2 - 1
    figure = Figure(figsize=(3.6 * len(networks), 5.6), layout="constrained")
    panels = figure.subplots(2, len(networks), height_ratios=(3, 2))
    grids = dict[str, Tensor]()
    for name, network in networks.items():
        signs = -gradient(network, x, y).sign()
        grids[name] = torch.cat([along(network, x + b * noise, y, signs, ends) for b in ends])
    for column, ((name, network), colour) in enumerate(zip(networks.items(), (BLUE, ORANGE), strict=True)):
        top, bottom = panels[0][column], panels[1][column]
        edge = float(grids[name].abs().max())
        shown = top.imshow(
            grids[name].numpy(),
            origin="lower",
            extent=(-epsilon, epsilon) * 2,
            cmap=colormaps["RdBu"],
            vmin=-edge,
            vmax=edge,
        )
        figure.colorbar(shown, ax=top, shrink=0.8, label="margin; below 0 another class")
        top.set(title=name, xlabel="against the margin's gradient", ylabel="random signs")
        lengths = torch.linspace(-epsilon, epsilon, LINE)
        signs = -gradient(network, x, y).sign()
        bottom.plot(lengths.numpy(), along(network, x, y, signs, lengths)[0].numpy(), color=colour, linewidth=1)
        bottom.axhline(0.0, color="0.6", linewidth=0.8)
        bottom.set(xlabel="against the margin's gradient", ylabel="margin")
    save(figure, out / "loss-landscape.png", dpi=100)
    with (out / "loss-landscape.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["along gradient", "random", *networks])
        for i, b in enumerate(ends.tolist()):
            for j, a in enumerate(ends.tolist()):
                writer.writerow([f"{a:.4f}", f"{b:.4f}", *(f"{grid[i, j]:.3f}" for grid in grids.values())])


def main() -> None:
    """Read the command line and write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/attack-defence"))
    parser.add_argument("--out", type=Path, help="where both files go; the folder of the networks by default")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--train", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--inputs", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)
    out = options.out or options.folder
    for folder in (options.folder, out):
        folder.mkdir(parents=True, exist_ok=True)
    scale = dataclasses.replace(Scale(), train=options.train, epochs=options.epochs)
    chosen = {"relu": ("none", Defence()), "k winners": ("k-WTA", defences(scale.epsilon)["k-WTA"])}
    networks = {
        title: read_network(trained(defence, name, scale, "mnist", options.folder, options.data_dir))
        for title, (name, defence) in chosen.items()
    }
    data = load_data("mnist", data_dir=options.data_dir)
    assert data.labels is not None
    y = torch.tensor(data.labels[: options.inputs]).long()
    for title, network in networks.items():
        x = torch.tensor(data.inputs[: options.inputs]).reshape(-1, *network.input_shape).to(network.dtype)
        minima, kept = roughness(network, x, y, scale.epsilon)
        print(
            f"{title:10} {minima:6.2f} local minima on a segment, {kept:.1%} of steps go where gradients say",
            flush=True,
        )
    for width in WIDTHS:
        rows = [winners_differ(width, max(1, width * share // 100), 0.01) for share in (10, 1)]
        words = ", ".join(f"{differ:.1%} differ, {shared:.1%} shared" for differ, shared in rows)
        print(f"width {width:6}, of which 10 % and 1 % win: {words}", flush=True)
    picture(networks, x[:1], y[:1], scale.epsilon, out)


if __name__ == "__main__":
    main()
