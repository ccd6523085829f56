"""Our attacks against those of adv-lib, foolbox, torchattacks and ART: robust accuracy, mean distance and seconds.

    python benchmarks/attack_strength.py [--networks digits-relu digits-conv digits-mwd] [--norms inf 2]
        [--attacks fgsm ifgsm ...] [--libraries torchattacks foolbox art adv-lib]
        [--inputs 100] [--seeds 3] [--out table.csv] [--mnist-network FILE.onnx ... --data-dir FOLDER]

The opponents come with `pip install '.[benchmark]'`; those that are missing are skipped. Each attack runs on the same
correctly classified inputs in the same balls, with the same steps, step lengths, restarts, start points and queries
(`attack_opponents.Settings`); `auto` against AutoAttack's standard ensemble, rebuilt by torchattacks and, without its
black-box part, from adv-lib. fmn, ddn and pdpgd take two gradients and ten queries more than adv-lib's. A minute takes
`--inputs 20 --seeds 1 --attacks fgsm ifgsm pgd`; `auto` on MNIST takes most of the full run.

Points of a library are moved into the ball where rounding left them outside, and judged as ours are. Every
difference is paired by input: the mean over the seeds for each input, then a normal 95 % interval over inputs
(deterministic attacks would otherwise count each input as often as there are seeds). Distances are compared as
ratios where both break an input in all seeds. Seconds are CPU seconds of the process on one thread until it is known
which inputs are broken: a forward pass is added where a library returns points without a verdict (all but foolbox;
the column `judged` is its share). The runs alternate; the ratio is the median over seeds.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import math
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from attack_opponents import LIBRARIES, Opponent, Problem, Settings, Wrapped, pictures, seed_all
from torch import Tensor

from encoders import BallRegion, Network
from verifier.attacks import ATTACKS, Attack, Search
from verifier.attacks.ball import Ball
from verifier.attacks.boundary_search import BoundarySearch
from verifier.attacks.carlini_wagner import CarliniWagner
from verifier.attacks.decoupled_norm import DecoupledNorm
from verifier.attacks.deepfool import DeepFool
from verifier.attacks.descent import Descent
from verifier.attacks.fast_minimum_norm import FastMinimumNorm
from verifier.attacks.primal_dual import PrimalDual
from verifier.attacks.randomness import as_seeds
from verifier.attacks.square import Square
from verifier.attacks.steps import Steepest, Vertex
from verifier.budget import Budget
from verifier.data import load_data
from verifier.subject import load_subject

# Radii at which neither nearly all nor nearly no inputs break.
RADII = {
    "digits-relu": {"inf": 0.06, "2": 0.4},
    "digits-conv": {"inf": 0.06, "2": 0.4},
    "digits-mwd": {"inf": 0.2, "2": 0.5},
    "mnist": {"inf": 0.03, "2": 0.5},
}
# Which norms a comparison is made in: those that the opponents have, all of them but those in ONLY.
NORMS = {"mi-fgsm": ("inf",), "cw": ("2",)}
ONLY = {
    ("deepfool", "inf"): ("foolbox", "adv-lib"),
    ("fgsm", "2"): ("foolbox", "art"),
    ("ifgsm", "2"): ("foolbox", "art"),
}
# Short attacks are repeated until they took so long.
LEAST_SECONDS = 0.2
MOST_REPEATS = 20


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """Correctly classified inputs `(batch, *shape)` of a network, and the balls around them."""

    name: str
    network: Network
    x: Tensor
    y: Tensor
    norm: str
    radius: float

    @property
    def region(self) -> BallRegion:
        radii = torch.full((len(self.x),), self.radius, dtype=torch.float64)
        return BallRegion(self.x.double(), radii, (0.0, 1.0), self.norm)  # type: ignore[arg-type]

    def search(self, seed: int, region: BallRegion) -> Search:
        seeds = [1000 * seed + row for row in range(len(self.x))]
        return Search(self.network, region, self.y, seeds, Budget(math.inf))


@dataclasses.dataclass(frozen=True, eq=False)
class Outcome:
    """What an attack found: masks and distances `(batch,)`, its seconds, and those of the verdict among them."""

    broken: Tensor
    distances: Tensor
    seconds: float
    judged: float = 0.0


@dataclasses.dataclass(frozen=True)
class Row:
    """One comparison, as the table prints it. Robust accuracies are shares of the inputs."""

    network: str
    norm: str
    attack: str
    library: str
    inputs: int
    seeds: int
    radius: float
    robust_ours: float
    robust_theirs: float
    difference: float
    difference_low: float
    difference_high: float
    distance_ours: float
    distance_theirs: float
    distance_ratio: float
    distance_ratio_low: float
    distance_ratio_high: float
    seconds_ours: float
    seconds_theirs: float
    seconds_ratio: float
    seconds_ratio_least: float
    seconds_ratio_greatest: float
    judged: float


def our_attacks(s: Settings) -> dict[str, Attack]:
    """Return our attacks with the settings that the opponents get; `auto` as it is."""
    step = Steepest(s.share)
    return {
        "fgsm": Descent(1, Vertex(), "cross-entropy"),
        "ifgsm": Descent(s.short_steps, step, "cross-entropy"),
        "mi-fgsm": Descent(s.short_steps, Steepest(s.share, momentum=1.0), "cross-entropy"),
        "pgd": Descent(s.steps, step, "cross-entropy", restarts=s.restarts, random_start=True),
        # As in our table, with two more linearisations and eight forward passes at the end.
        "deepfool": DeepFool(s.linearisations, s.overshoot, clipped_steps=5, projections=2, segment_steps=8),
        "cw": CarliniWagner(s.searches, s.penalty_steps, s.rate, s.constant),
        "fab": BoundarySearch(s.boundary_steps),
        "square": Square(s.queries),
        # The same gradients, a part of them towards the two nearest classes.
        "fmn": FastMinimumNorm(s.gradients - 40, sweep=2, sweep_steps=20),
        "ddn": DecoupledNorm(s.gradients),
        "pdpgd": PrimalDual(3 * s.gradients),
        "auto": ATTACKS["auto"],
    }


def starts(case: Case, seed: int, restarts: int) -> Tensor:
    """Return the points `(restarts, *pictures)` from which our descents start."""
    ball = Ball.of(case.region, case.network.dtype)
    seeds = as_seeds(case.search(seed, case.region).seeds, case.x.device)
    points = [ball.random(seeds, restart).reshape_as(case.x) for restart in range(restarts)]
    return torch.stack([pictures(x) for x in points])


def timed(call: Callable[[], Tensor]) -> tuple[Tensor, float]:
    """Return the result and the CPU seconds of a call, the median of several where it is short."""
    result, seconds = call(), []
    while sum(seconds) < LEAST_SECONDS and len(seconds) < MOST_REPEATS:
        started = time.process_time()
        result = call()
        seconds.append(time.process_time() - started)
        if len(seconds) == 1 and seconds[0] > LEAST_SECONDS:
            break
    return result, statistics.median(seconds)


def judge(case: Case, points: Tensor, minimal: bool) -> tuple[Tensor, Tensor]:
    """Return (broken within the radius, distance where broken at all), on points moved into ball or domain."""
    wide = case.region.with_radius(math.sqrt(case.x[0].numel()) + 1.0) if minimal else case.region
    points = wide.clip(points.reshape_as(case.x), case.network.dtype)
    with torch.no_grad():
        unsafe = case.search(0, wide).shortfalls(case.network.scores(points)) <= 0
    distances = torch.where(unsafe, wide.distance(points), math.inf)
    return distances <= case.radius, distances


def run_ours(case: Case, attack: Attack, seed: int) -> Outcome:
    wide = case.region.with_radius(math.sqrt(case.x[0].numel()) + 1.0)
    region = wide if attack.minimal else case.region
    points, seconds = timed(lambda: attack.run(case.search(seed, region)).points)
    return Outcome(*judge(case, points, attack.minimal), seconds)


def run_theirs(case: Case, library: str, attack: Opponent, seed: int, minimal: bool, settings: Settings) -> Outcome:
    model = Wrapped(case.network)
    first = starts(case, seed, settings.restarts)
    problem = Problem(model, pictures(case.x), case.y, case.radius, case.norm, first, settings)

    def call() -> Tensor:
        seed_all(seed)
        return attack(problem, seed).detach()

    points, seconds = timed(call)
    judged = 0.0
    if library != "foolbox":
        with torch.no_grad():
            _, judged = timed(lambda: model(points).argmax(dim=1) != case.y)
    return Outcome(*judge(case, points, minimal), seconds + judged, judged)


def interval(values: Tensor) -> tuple[float, float, float]:
    """Return the mean of paired values and its normal 95 % interval."""
    if not len(values):
        return (math.nan,) * 3
    middle = float(values.mean())
    half = 1.96 * float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else math.inf
    return middle, middle - half, middle + half


def compare(case: Case, attack: str, library: str, ours: list[Outcome], theirs: list[Outcome], minimal: bool) -> Row:
    """Return the row of a comparison over the seeds, with distances where they are what the attack minimises."""
    robust = [torch.stack([(~o.broken).double() for o in side]).mean(dim=0) for side in (ours, theirs)]
    away = [torch.stack([o.distances for o in side]) for side in (ours, theirs)]
    both = torch.stack([(side > 0) & side.isfinite() for side in away]).all(dim=0).all(dim=0) & minimal
    logs = (away[0][:, both].log() - away[1][:, both].log()).mean(dim=0)
    ratios = sorted(a.seconds / b.seconds for a, b in zip(ours, theirs, strict=True))
    return Row(
        case.name, case.norm, attack, library, len(case.x), len(ours), case.radius,
        float(robust[0].mean()), float(robust[1].mean()), *interval(robust[0] - robust[1]),
        float(away[0][:, both].mean()), float(away[1][:, both].mean()), *map(math.exp, interval(logs)),
        statistics.median(o.seconds for o in ours), statistics.median(o.seconds for o in theirs),
        statistics.median(ratios), ratios[0], ratios[-1], statistics.median(o.judged for o in theirs),
    )  # fmt: skip


def comparisons(case: Case, names: list[str], libraries: dict[str, dict[str, Opponent]], seeds: int) -> Iterator[Row]:
    """Yield the rows of a case; all libraries of an attack run in turn for each seed."""
    settings = Settings()
    for name, attack in our_attacks(settings).items():
        wanted = ONLY.get((name, case.norm), tuple(libraries))
        opponents = {key: table[name] for key, table in libraries.items() if name in table and key in wanted}
        if name not in names or case.norm not in NORMS.get(name, attack.norms):
            continue
        found: dict[str, list[Outcome]] = {library: [] for library in ("ours", *opponents)}
        for seed in range(seeds):
            found["ours"].append(run_ours(case, attack, seed))
            for library, opponent in opponents.items():
                found[library].append(run_theirs(case, library, opponent, seed, attack.minimal, settings))
        for library in opponents:
            yield compare(case, name, library, found["ours"], found[library], attack.minimal)


def cases(options: argparse.Namespace) -> Iterator[Case]:
    """Yield the networks with their first correctly classified test inputs, in each norm."""
    named = [(name, name, "digits", None) for name in options.networks]
    named += [(Path(path).stem, path, "mnist", options.data_dir) for path in options.mnist_network]
    for name, path, data, folder in named:
        network = load_subject(path, device="cpu").network
        dataset = load_data(data, data_dir=folder)
        x = torch.as_tensor(dataset.inputs[: 2 * options.inputs]).float().reshape(-1, *network.input_shape)
        y = torch.as_tensor(dataset.labels[: len(x)]).long()
        with torch.no_grad():
            right = torch.nonzero(network.scores(x).argmax(dim=1) == y).squeeze(1)[: options.inputs]
        for norm in options.norms:
            yield Case(name, network, x[right], y[right], norm, RADII.get(name, RADII["mnist"])[norm])


def line(row: Row) -> str:
    """Return a row of the printed table."""
    distance = (
        ""
        if math.isnan(row.distance_ratio)
        else f"  distance {row.distance_ours:.4f} {row.distance_theirs:.4f} "
        f"ratio {row.distance_ratio:.3f} ({row.distance_ratio_low:.3f} to {row.distance_ratio_high:.3f})"
    )
    return (
        f"{row.network:16} {row.norm:>3} {row.attack:9} {row.library:12} "
        f"robust {row.robust_ours:6.1%} {row.robust_theirs:6.1%} "
        f"({100 * row.difference_low:+5.1f} to {100 * row.difference_high:+5.1f})  "
        f"seconds {row.seconds_ours:.4f} {row.seconds_theirs:.4f} "
        f"ratio {row.seconds_ratio:.2f} ({row.seconds_ratio_least:.2f} to {row.seconds_ratio_greatest:.2f})" + distance
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = list(our_attacks(Settings()))
    parser.add_argument("--networks", nargs="*", default=["digits-relu", "digits-conv", "digits-mwd"])
    parser.add_argument("--mnist-network", nargs="*", default=[], metavar="FILE")
    parser.add_argument("--data-dir", help="folder of the MNIST files")
    parser.add_argument("--norms", nargs="+", choices=("inf", "2"), default=["inf", "2"])
    parser.add_argument("--attacks", nargs="+", choices=names, default=names)
    parser.add_argument("--libraries", nargs="+", choices=list(LIBRARIES), default=list(LIBRARIES))
    parser.add_argument("--inputs", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="CSV file for the rows")
    options = parser.parse_args()
    torch.set_num_threads(1)
    # ART and torchattacks warn about libraries that they do not need here.
    warnings.simplefilter("ignore")
    libraries = {}
    for library in options.libraries:
        try:
            libraries[library] = LIBRARIES[library]()
        except ImportError as error:
            print(f"{library} is left out: {error}", file=sys.stderr)
    rows = []
    for case in cases(options):
        for row in comparisons(case, options.attacks, libraries, options.seeds):
            rows.append(row)
            print(line(row), flush=True)
            if options.out is not None:
                write(options.out, rows)


def write(path: Path, rows: list[Row]) -> None:
    """Write the rows so far, so that an interrupted run keeps them."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, [field.name for field in dataclasses.fields(Row)])
        table.writeheader()
        table.writerows(dataclasses.asdict(row) for row in rows)


if __name__ == "__main__":
    main()
