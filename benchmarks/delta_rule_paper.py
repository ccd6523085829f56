"""The experiments of Liu and Sha (2019) with the stochastic delta rule, each beside its fair twin.

    python benchmarks/delta_rule_paper.py theorem1 | table1 | table2 | certified  --data-dir MNIST

theorem1   E ||y - X w||^2 = ||y - X m||^2 + sum_j s_j^2 ||X_j||^2 for w ~ N(m, diag(s^2)), by Monte Carlo
table1     clean accuracy: plain, rule with decay, learnable, drop-connect; at the mean, of single draws, of the vote;
           sums of variances by epoch (Figure 9)
table2     the paper's protocol (an attack of least size on one draw, judged on another) beside a fair one (a radius,
           descents along gradients of the mean and of the mean over draws, judged on fresh draws and by votes; then
           towards each class, of the network and of its mean alone, which nothing random defends)
certified  what is certified for the mean, and for every draw within some deviations

Networks are those of the paper for MNIST (784-100-100-100-10, Adam 1e-3, batches of 64), trained once into --cache.
"""

import argparse
import functools
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from encoders import BallRegion, Network, read_network
from verifier import certify, train
from verifier.attacks import ATTACKS, Search
from verifier.attacks.criteria import margins
from verifier.budget import Budget
from verifier.commands import train as train_command
from verifier.data import from_arrays, load_data
from verifier.training.random_layers import random_layers, sum_of_variances
from verifier.votes import BROKEN, KEPT, votes_at

REGIMES: dict[str, dict[str, object]] = {
    "plain": {"regime": "plain"},
    "dropout": {"regime": "dropout", "dropout": 0.2},
    "drop-connect": {"regime": "drop-connect", "drop_connect": 0.2},
    "rule, batch": {"regime": "delta-rule"},
    "rule, published": {"regime": "delta-rule", "deviation_schedule": "published"},
    "rule, printed": {"regime": "delta-rule", "deviation_schedule": "printed"},
    "learnable": {"regime": "delta-rule-learnable"},
    "learnable, .05": {"regime": "delta-rule-learnable", "deviation": 0.05},
}
DRAWS, VOTERS, SEED = 20, 50, 1000
# Draws by which the points of several descents are compared.
SELECTING = 100


def theorem_one(draws: int = 20_000) -> None:
    """Print both sides of Theorem 1, the norm of its second term read as Frobenius', and the error."""
    generator = torch.Generator().manual_seed(0)
    x, y, mean = (torch.randn(*size, generator=generator, dtype=torch.float64) for size in ((40, 12), (40,), (12,)))
    deviation = torch.rand(12, generator=generator, dtype=torch.float64)
    w = mean + deviation * torch.randn(draws, 12, generator=generator, dtype=torch.float64)
    found = (y - w @ x.T).square().sum(dim=1)
    closed = (y - x @ mean).square().sum() + (deviation**2 * x.square().sum(dim=0)).sum()
    error = float(found.std()) / draws**0.5
    ratio = found.mean() / closed
    print(f"closed form {closed:.3f}, {draws} draws {found.mean():.3f} +- {1.96 * error:.3f}, ratio {ratio:.5f}")


class Experiment:
    """The options of a command, the inputs, and the trained networks with their sums of variances by epoch."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        data = load_data("mnist", data_dir=options.data_dir)
        assert data.labels is not None
        self.x = torch.tensor(data.inputs[: options.inputs]).flatten(1)
        self.y = torch.tensor(data.labels[: options.inputs])
        chosen = options.networks or [name for name in REGIMES if name != "rule, printed"]
        self.regimes = {name: REGIMES[name] for name in chosen}

    def network(self, name: str, settings: dict[str, object]) -> Network:
        """Return a trained network, from the cache if it is there."""
        options = self.options
        key = "_".join(f"{k}={v}" for k, v in settings.items())
        path = options.cache / f"{key}_n{options.train}_e{options.epochs}.safetensors"
        if not path.exists():
            variances: list[float] = []
            watch_variances(variances)
            result = train(
                "mlp", "mnist", path, hidden=(100, 100, 100), epochs=options.epochs, batch=64, limit=options.train,
                data_dir=options.data_dir, **settings,
            )  # fmt: skip
            stopped = result.history.diverged
            shown = ", ".join(f"{value:.5g}" for value in variances)
            print(
                f"{name}: variances {shown or 'none'}" + (f"; diverged in epoch {stopped}" if stopped else ""),
                flush=True,
            )
        return read_network(path)

    def right(self, network: Network, x: Tensor) -> Tensor:
        """Return a mask of the inputs that a network classifies correctly."""
        with torch.no_grad():
            return network.evaluate(x).argmax(dim=1) == self.y


def watch_variances(found: list[float]) -> None:
    """Have the next training append the sum of variances after every epoch."""
    original = train_command._score

    @functools.wraps(original)
    def scored(*arguments: object) -> Callable[..., float]:
        score = original(*arguments)

        def judge(module: torch.nn.Module) -> float:
            if random_layers(module):
                found.append(sum_of_variances(module))
            return score(module)

        return judge

    train_command._score = scored


def table_one(experiment: Experiment) -> None:
    """Print clean accuracies."""
    print("network          mean   draws  vote of 50")
    for name, settings in experiment.regimes.items():
        try:
            network = experiment.network(name, settings)
        except ValueError as error:
            print(f"{name:16} {error}", flush=True)
            continue
        mean = float(experiment.right(network, experiment.x).float().mean())
        row = f"{name:16} {mean:.4f}"
        if network.randomised:
            votes = votes_at(network, experiment.x, VOTERS, SEED)
            vote = float((votes.winners == experiment.y).float().mean())
            row += f" {votes.share(experiment.y):.4f} {vote:.4f}"
        print(row, flush=True)


def least(name: str, network: Network, x: Tensor, y: Tensor) -> Tensor:
    """Return the points of an attack of least size on an ordinary network; the inputs where it finds none."""
    region = BallRegion(x.double(), torch.ones(len(x), dtype=torch.float64), (0.0, 1.0))
    found = ATTACKS[name].run(Search(network, region, y, tuple(range(len(x))), Budget()))
    return torch.where(found.unsafe[:, None], found.points.to(x), x)


def descend(network: Network, x: Tensor, y: Tensor, epsilon: float, steps: int, draws: int) -> Tensor:
    """Return points within epsilon: sign steps along the mean gradient over fresh draws; 0 draws: of the mean."""
    generator, z = torch.Generator().manual_seed(1), x.clone()
    z = (z + epsilon * (2 * torch.rand(x.shape, generator=generator) - 1)).clamp(0, 1)
    for _ in range(steps):
        z.requires_grad_()
        networks = [network.draw(generator) for _ in range(draws)] or [network]
        loss = sum(functional.cross_entropy(each.scores(z), y) for each in networks)
        (gradient,) = torch.autograd.grad(loss, z)
        z = (z.detach() + 2.5 * epsilon / steps * gradient.sign()).clamp(0, 1)
        z = torch.minimum(torch.maximum(z, x - epsilon), x + epsilon)
    return z.detach()


def descend_to_all(network: Network, x: Tensor, y: Tensor, epsilon: float, draws: int) -> tuple[Tensor, Tensor]:
    """Return (the strongest points found, which share of `SELECTING` draws, not those that judge, is right there).

    60 steps with momentum on the margin, then 80 towards each other class from the centre and from a random point, for
    the inputs that are not broken in nearly all draws. 0 draws: of the mean.
    """
    start = x + epsilon * (2 * torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) - 1)
    best = steepest(network, x, start, shortfalls_of(y), epsilon, 60, draws)
    least = share(network, best, y, SELECTING, SEED + 1, draws)
    left = torch.nonzero(least > 0.02).squeeze(1)
    for number in range(2 if len(left) else 0):
        with torch.no_grad():
            order = network.scores(x[left]).scatter(1, y[left, None], -torch.inf).argsort(dim=1, descending=True)
        targets, rows = order[:, :-1].flatten(), left.repeat_interleave(order.shape[1] - 1)
        noise = 2 * torch.rand(x[rows].shape, generator=torch.Generator().manual_seed(2)) - 1
        found = steepest(
            network, x[rows], x[rows] + number * epsilon * noise, shortfalls_to(targets), epsilon, 80, draws
        )
        shares = share(network, found, y[rows], SELECTING, SEED + 1, draws).reshape(len(left), -1)
        lowest, which = shares.min(dim=1)
        better = lowest < least[left]
        chosen = found.reshape(*shares.shape, -1)[torch.arange(len(left)), which]
        best[left[better]], least[left[better]] = chosen[better], lowest[better]
    return best, least


def shortfalls_of(y: Tensor) -> Callable[[Tensor], Tensor]:
    """Return what is to fall so that classes y are left."""
    return lambda scores: margins(scores, y)


def shortfalls_to(targets: Tensor) -> Callable[[Tensor], Tensor]:
    """Return what is to fall so that targets are reached."""
    return lambda scores: -margins(scores, targets)


def steepest(
    network: Network, x: Tensor, start: Tensor, missing: Callable[[Tensor], Tensor], epsilon: float, steps: int,
    draws: int,
) -> Tensor:  # fmt: skip
    """Return the last points of sign steps with momentum down the mean of what is missing; 0 draws: of the mean."""
    generator, away = torch.Generator().manual_seed(3), torch.zeros_like(x)
    z = start.clamp(0, 1)
    for step in range(steps):
        z = z.detach().requires_grad_()
        networks = [network.draw(generator) for _ in range(draws)] or [network]
        (gradient,) = torch.autograd.grad(sum(missing(each.scores(z)).sum() for each in networks), z)
        away = 0.75 * away + gradient / gradient.abs().mean(dim=1, keepdim=True).clamp(min=1e-20)
        z = z - 5 * epsilon / steps * (1 - step / steps) * away.sign()
        z = torch.minimum(torch.maximum(z, x - epsilon), x + epsilon).clamp(0, 1)
    return z.detach()


def share(network: Network, x: Tensor, y: Tensor, voters: int, seed: int, draws: int) -> Tensor:
    """Return which share of draws is right at points x; 0 draws: whether the mean is."""
    if not draws:
        with torch.no_grad():
            return (network.scores(x).argmax(dim=1) == y).double()
    votes = votes_at(network, x, voters, seed)
    counts = votes.choosing + votes.deciding
    return counts.gather(1, y[:, None]).squeeze(1).double() / counts.sum(dim=1)


def table_two(experiment: Experiment) -> None:
    """Print accuracies under attack, by the paper's protocol and by a fair one."""
    x, y, epsilon = experiment.x, experiment.y, experiment.options.epsilon
    print("network          | least size, other draw: fgsm, deepfool, local-search")
    print(f"                 | within {epsilon}: gradients of the mean, of {DRAWS} draws; votes kept and broken there")
    print("                 | towards each class: of single draws, of the mean alone")
    for name, settings in experiment.regimes.items():
        network = experiment.network(name, settings)
        generator = torch.Generator().manual_seed(2)
        attacked, judged = network.draw(generator), network.draw(generator)
        row = f"{name:16} |"
        for attack in ("fgsm-growing", "deepfool", "local-search"):
            row += f" {float(experiment.right(judged, least(attack, attacked, x, y)).float().mean()):.3f}"
        row += " |"
        of_mean = descend(network, x, y, epsilon, 40, 0)
        expected = descend(network, x, y, epsilon, 40, DRAWS) if network.randomised else of_mean
        for points in (of_mean, expected):
            if network.randomised:
                row += f" {votes_at(network, points, VOTERS, SEED).share(y):.3f}"
            else:
                row += f" {float(experiment.right(network, points).float().mean()):.3f}"
        if network.randomised:
            outcomes = votes_at(network, expected, VOTERS, SEED).outcomes(y)
            row += f"; {float((outcomes == KEPT).float().mean()):.3f} {float((outcomes == BROKEN).float().mean()):.3f}"
        row += " | all classes:"
        for draws in (DRAWS, 0) if network.randomised else (0,):
            strongest, _ = descend_to_all(network, x, y, epsilon, draws)
            row += f" {float(share(network, strongest, y, 4 * VOTERS, SEED, draws).mean()):.3f}"
        print(row, flush=True)


def certified(experiment: Experiment) -> None:
    """Print what linear bounds certify for the mean and over draws, of a rule with small deviations that stay."""
    inputs = from_arrays(experiment.x.numpy()[:50], experiment.y.numpy()[:50], (0.0, 1.0))
    for deviation in (1e-4, 1e-3):
        settings = {"regime": "delta-rule", "deviation": deviation, "beta": 0.0, "zeta": 1.0}
        network = experiment.network(f"deviation {deviation}", settings)
        for deviations in (None, 1.0, 5.0, 6.0):
            found = certify(path_of(network), inputs, [0.005, 0.02], method="crown", draws_within=deviations, out=None)
            share = "mean" if deviations is None else f"{deviations:g} deviations, {found.share_of_draws:.3g} of draws"
            counts = ", ".join(f"{row.certified} at {row.epsilon:g}" for row in found.results)
            print(f"deviation {deviation:g}, {share}: {counts} of {found.correct} correct", flush=True)


def path_of(network: Network) -> Path:
    """Return the file that a network was read from."""
    return Path(network.source)


def main() -> None:
    """Run a command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["theorem1", "table1", "table2", "certified"])
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--inputs", type=int, default=300)
    parser.add_argument("--train", type=int, default=8000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--epsilon", type=float, default=0.1)
    parser.add_argument("--networks", nargs="+", choices=list(REGIMES), help="only these; by default all that train")
    parser.add_argument("--cache", type=Path, default=Path("runs/delta-rule"))
    options = parser.parse_args()
    if options.command == "theorem1":
        theorem_one()
        return
    commands = {"table1": table_one, "table2": table_two, "certified": certified}
    commands[options.command](Experiment(options))


if __name__ == "__main__":
    main()
