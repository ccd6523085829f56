"""k-winners-take-all under attacks that see less and less of its mask, beside what is certified.

    verifier train mlp --data mnist --winners 0.05 --hidden 1000 1000 --epochs 5 --limit 15000 --out winners.safetensors
    verifier train mlp --data mnist --hidden 1000 --epochs 3 --limit 20000 --seed 5 --out surrogate.safetensors
    python benchmarks/winners.py winners.safetensors surrogate.safetensors --data mnist --epsilon 0.1 --limit 200

Prints for each attack how many of the inputs are right and withstand. PGD follows true gradients, from the centre and
from random points; the stand-ins of BPDA differ; points of `transfer` are those of descents on the surrogate. The
last rows are what all attacks together leave, what `auto` leaves alone, and what intervals and linear bounds certify at
a hundredth of the radius: there every unit that competes for a place is open.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from encoders import BallRegion, Network, read_network
from encoders.ops import Op
from verifier import certify
from verifier.attacks import ATTACKS, Attack, Search
from verifier.attacks.descent import Descent
from verifier.attacks.settings import attack_with
from verifier.attacks.source import SourceMaker
from verifier.attacks.steps import Steepest
from verifier.attacks.transfer import Transfer
from verifier.attacks.wrappers import Replace
from verifier.budget import Budget
from verifier.data import load_data

CERTIFIED_SHARE = 0.01


def stand_in(function: Callable[[Tensor], Tensor]) -> SourceMaker:
    """Return the source in which winners pass back what a function of all units does."""

    def of_op(op: Op, x: Tensor) -> Tensor:
        return function(x)

    return Replace({"k-winners": of_op})


def rows(surrogate: Network) -> Iterator[tuple[str, Attack]]:
    """Yield the attacks by what the table calls them."""
    for restarts in (1, 6):
        yield (
            f"PGD, true gradients, {restarts} of 40 steps",
            attack_with("pgd", {"pseudogradients": "no", "restarts": restarts}),
        )
    for name, function in (("identity", lambda x: x), ("relu", torch.relu)):
        yield f"BPDA, {name}", Descent(40, Steepest(0.1), restarts=2, sources=(stand_in(function),))
    yield "BPDA, soft gate (attack bpda)", ATTACKS["bpda"]
    for queries in (500, 2000):
        yield f"square, {queries} queries", attack_with("square", {"queries": queries})
    descent = ATTACKS["pgd"]
    assert isinstance(descent, Descent)
    yield "transfer of PGD on the surrogate", Transfer(surrogate, replace(descent, restarts=1, until_broken=False))
    yield "auto", ATTACKS["auto"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("surrogate")
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--data-dir")
    parser.add_argument("--epsilon", type=float, default=0.1)
    parser.add_argument("--limit", type=int, default=200)
    arguments = parser.parse_args()
    network, surrogate = read_network(arguments.model), read_network(arguments.surrogate)
    data = load_data(arguments.data, data_dir=arguments.data_dir)
    assert data.labels is not None
    x = torch.tensor(data.inputs[: arguments.limit]).reshape(-1, *network.input_shape)
    y = torch.tensor(data.labels[: arguments.limit])
    with torch.no_grad():
        right = network.scores(x).argmax(dim=1) == y
    print(f"{'clean':<36}{float(right.float().mean()):8.1%}")
    x, y = x[right], y[right]
    radius = torch.full((len(x),), arguments.epsilon, dtype=torch.float64)
    left, count = torch.ones(len(x), dtype=torch.bool), len(right)
    for name, attack in rows(surrogate):
        started = time.process_time()
        search = Search(network, BallRegion(x.double(), radius, data.clip), y, list(range(len(x))), Budget())
        robust = ~attack.run(search).unsafe
        left &= robust
        print(f"{name:<36}{int(robust.sum()) / count:8.1%}{time.process_time() - started:8.1f} s", flush=True)
    print(f"{'all of them':<36}{int(left.sum()) / count:8.1%}")
    for method in ("interval", "alpha-crown"):
        started, small = time.process_time(), CERTIFIED_SHARE * arguments.epsilon
        result = certify(
            arguments.model, arguments.data, [small], method=method, limit=count, data_dir=arguments.data_dir, out=None
        )
        share = result.results[0].certified / count
        print(f"certified at {small:g}, {method:<16}{share:8.1%}{time.process_time() - started:8.1f} s", flush=True)


if __name__ == "__main__":
    main()
