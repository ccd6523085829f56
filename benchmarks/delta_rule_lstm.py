"""The stochastic delta rule on a recurrent network: an LSTM that reads the rows of MNIST images one after the other.

    python benchmarks/delta_rule_lstm.py --data-dir MNIST [--train 12000] [--epochs 6] [--steps 28] [--hidden 130]

Liu and Sha 2019, Table 1, read one pixel a step (`--steps 784`), which a CPU takes a day for; rows are the stand-in.
The weights are drawn once for all steps of a batch; gradients are clipped to length 1. Columns: accuracy at the mean,
of single draws and of the vote of 50; within --epsilon after descents along gradients of the mean, and of the mean over
draws (EOT), judged by 50 fresh draws. Files of networks have no such layer: one draw holds for all its steps, and
unrolled layers would draw each their own. At its mean the trained module is an ordinary one, which `verifier.attack`
and `verifier.certify` unroll; the last columns are theirs, of --proved inputs.
"""

from __future__ import annotations

import argparse
import copy
import time
from pathlib import Path

import torch
from delta_rule_paper import DRAWS, SEED, VOTERS, descend
from torch import Tensor, nn
from torch.nn import functional

from verifier import attack, certify
from verifier.data import from_arrays, load_data
from verifier.training.delta_rule import DeltaRule
from verifier.training.random_layers import DROPPED, LEARNABLE, NORMAL, RandomLayer, sum_of_variances
from verifier.training.regimes import Clean

# Kinds of random layers and what they start with; None: ordinary ones.
REGIMES = {
    "plain": None,
    "drop-connect": (DROPPED, 0.2),
    "rule, batch": (NORMAL, 0.0125),
    "learnable": (LEARNABLE, 0.0125),
    "learnable, .05": (LEARNABLE, 0.05),
}
CLASSES, BATCH, RATE = 10, 64, 1e-3


class Lstm(nn.Module):
    """An LSTM (Hochreiter, Schmidhuber 1997; forget gates: Gers et al. 2000) over a vector cut into steps.

        i, f, g, o = W (x_t, h) + b;  c <- sigmoid(f) c + sigmoid(i) tanh(g);  h <- sigmoid(o) tanh(c)

    The scores are a linear layer of the last h. random: what `RandomLayer` takes, None for ordinary layers.
    """

    def __init__(self, inputs: int, steps: int, hidden: int, random: tuple[str, float] | None) -> None:
        super().__init__()
        if inputs % steps:
            raise ValueError(f"{inputs} inputs are no {steps} steps of one length")
        self.steps, self.width, self.hidden = steps, inputs // steps, hidden
        layers = [nn.Linear(self.width + hidden, 4 * hidden), nn.Linear(hidden, CLASSES)]
        with torch.no_grad():
            layers[0].bias[hidden : 2 * hidden] += 1.0
        self.cell, self.out = (layer if random is None else RandomLayer(layer, *random) for layer in layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return scores `(batch, classes)` of vectors `(batch, inputs)`; in training at one draw for all steps."""
        cell, out = self._weights(self.cell), self._weights(self.out)
        x = x.reshape(-1, self.steps, self.width)
        h = c = 0.0 * x[:, 0, :1].expand(-1, self.hidden)
        for step in range(self.steps):
            i, f, g, o = functional.linear(torch.cat([x[:, step], h], dim=1), **cell).split(self.hidden, dim=1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        return functional.linear(h, **out)

    def _weights(self, layer: nn.Module) -> dict[str, Tensor]:
        if isinstance(layer, RandomLayer):
            return layer.drawn() if self.training else dict(layer.layer.named_parameters())
        return dict(layer.named_parameters())

    def scores(self, x: Tensor) -> Tensor:
        """Return the scores, under the name that networks have for them."""
        result: Tensor = self(x)
        return result

    def fixed(self, *, draw: bool) -> Lstm:
        """Return an ordinary module of one draw of the weights, or of their means."""
        layers = {name: getattr(self, name) for name in ("cell", "out")}
        values = {
            name: layer.drawn() if draw else dict(getattr(layer, "layer", layer).named_parameters())
            for name, layer in layers.items()
        }
        result = Lstm(self.steps * self.width, self.steps, self.hidden, None)
        for name, found in values.items():
            getattr(result, name).load_state_dict({key: value.detach().clone() for key, value in found.items()})
        return result.eval().requires_grad_(False)

    def draw(self, generator: torch.Generator) -> Lstm:
        """Return an ordinary module of one draw."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
            return self.fixed(draw=True)


def trained(name: str, x: Tensor, y: Tensor, options: argparse.Namespace) -> Lstm:
    """Return the module of a regime after training, with its sum of variances printed."""
    torch.manual_seed(0)
    random = REGIMES[name]
    module = Lstm(x.shape[1], options.steps, options.hidden, random).train()
    rule = DeltaRule(functional.cross_entropy, 0.05, 0.7, "batch", options.epochs)
    regime = rule if random is not None and random[0] == NORMAL else Clean(functional.cross_entropy)
    optimiser, started = torch.optim.Adam(module.parameters(), lr=RATE), time.process_time()
    for epoch in range(options.epochs):
        order = torch.randperm(len(x))
        for number, rows in enumerate(order.split(BATCH)):
            progress = (epoch + number * BATCH / len(x)) / options.epochs
            for loss in regime(module, x[rows], y[rows], progress):
                optimiser.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(module.parameters(), 1.0)
                optimiser.step()
    spent = time.process_time() - started
    print(f"{name}: sum of variances {sum_of_variances(module):.5g}, {spent:.0f} CPU s", flush=True)
    return module.eval()


def voted(module: Lstm, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Return the share of right single draws, and of right votes, of fresh draws."""
    generator, votes = torch.Generator().manual_seed(SEED), torch.zeros(len(x), CLASSES)
    with torch.no_grad():
        for _ in range(VOTERS):
            votes += functional.one_hot(module.draw(generator)(x).argmax(dim=1), CLASSES)
    right = votes.gather(1, y[:, None]).squeeze(1) / VOTERS
    return float(right.mean()), float((votes.argmax(dim=1) == y).double().mean())


def measured(module: Lstm, x: Tensor, y: Tensor, options: argparse.Namespace) -> str:
    """Return a row of the table. x, y: of the test set."""
    mean, random = module.fixed(draw=False), isinstance(module.cell, RandomLayer)
    with torch.no_grad():
        row = f"{float((mean(x).argmax(dim=1) == y).double().mean()):.3f}"
    row += " {:.3f} {:.3f}".format(*voted(module, x, y)) if random else " - -"
    x, y = x[: options.attacked], y[: options.attacked]
    of_mean = descend(mean, x, y, options.epsilon, 40, 0)  # type: ignore[arg-type]
    expected = descend(module, x, y, options.epsilon, 40, DRAWS) if random else of_mean  # type: ignore[arg-type]
    for points in (of_mean, expected):
        with torch.no_grad():
            kept = float((mean(points).argmax(dim=1) == y).double().mean())
        row += f" {voted(module, points, y)[0] if random else kept:.3f}"
    if options.proved:
        some = from_arrays(x[: options.proved].numpy(), y[: options.proved].numpy(), (0.0, 1.0))
        found = attack(copy.deepcopy(mean), some, "pgd", options.epsilon, out=None, device="cpu")
        proof = certify(copy.deepcopy(mean), some, [options.certified], method="interval", out=None, device="cpu")
        row += f" | of {found.correct} right: {found.robust} withstand pgd, {proof.results[0].certified} certified"
    return row


def main() -> None:
    """Train and measure each regime."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--train", type=int, default=12_000)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--steps", type=int, default=28)
    parser.add_argument("--hidden", type=int, default=130)
    parser.add_argument("--inputs", type=int, default=1000)
    parser.add_argument("--attacked", type=int, default=100)
    parser.add_argument("--epsilon", type=float, default=0.1)
    parser.add_argument("--proved", type=int, default=10, help="inputs for the verifier itself; 0 for none")
    parser.add_argument("--certified", type=float, default=1e-4, help="radius that intervals are to prove there")
    parser.add_argument("--regimes", nargs="+", choices=list(REGIMES), default=list(REGIMES))
    options = parser.parse_args()
    torch.set_num_threads(1)
    sets = [load_data("mnist", data_dir=options.data_dir, split=split) for split in ("train", "test")]
    counts = (options.train, options.inputs)
    x, test_x = (torch.tensor(data.inputs[:n]).flatten(1) for data, n in zip(sets, counts, strict=True))
    y, test_y = (torch.tensor(data.labels[:n]).long() for data, n in zip(sets, counts, strict=True))
    print(f"mean, draws, vote; within {options.epsilon:g}: gradients of the mean, EOT")
    for name in options.regimes:
        module = trained(name, x, y, options)
        print(f"{name:16} {measured(module, test_x, test_y, options)}", flush=True)


if __name__ == "__main__":
    main()
