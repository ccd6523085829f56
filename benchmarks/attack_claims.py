"""Small claims of the sources about attacks, each measured in seconds.

    python benchmarks/attack_claims.py transfer NETWORK... [--data mnist] [--data-dir MNIST] [--inputs 100]
    python benchmarks/attack_claims.py norms NETWORK...     (same options; --epsilon 0.1 is of transfer)
    python benchmarks/attack_claims.py jacobian NETWORK...

transfer   which share of inputs that both get right each network (row) loses to points of full-length PGD on another
           (column; Papernot et al. 2016, after Liu, Sha 2019): the diagonal is the attack on itself
norms      DeepFool's distance beside that of the smallest FGSM that breaks an input, where both do (Moosavi-Dezfooli et
           al. 2016): the median ratio, and how often it is the shorter one, in the inf- and the 2-norm
jacobian   CPU seconds of the gradients of all scores beside those of one, by one backward pass for each class and by
           copies of the inputs side by side (Huang et al. 2015, section 4: d times the cost of one)
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from encoders import BallRegion, Network
from verifier.attacks import ATTACKS, Search
from verifier.attacks.descent import Descent
from verifier.budget import Budget
from verifier.data import load_data
from verifier.subject import load_subject

REPEATS = 9


class Inputs:
    """The first inputs of a data set, in the shape of a network."""

    def __init__(self, options: argparse.Namespace) -> None:
        data = load_data(options.data, data_dir=options.data_dir)
        assert data.labels is not None
        self.x = torch.tensor(data.inputs[: options.inputs])
        self.y, self.clip = torch.tensor(data.labels[: options.inputs]).long(), data.clip

    def of(self, network: Network) -> Tensor:
        """Return the inputs as the network takes them."""
        return self.x.reshape(-1, *network.input_shape).to(network.dtype)

    def right(self, network: Network, x: Tensor) -> Tensor:
        """Return where the network gives the label at points x."""
        with torch.no_grad():
            return network.scores(x.reshape(-1, *network.input_shape).to(network.dtype)).argmax(dim=1) == self.y

    def search(self, network: Network, radius: float, norm: str) -> Search:
        """Return a search around all inputs."""
        radii = torch.full((len(self.y),), radius, dtype=torch.float64)
        region = BallRegion(self.of(network).double(), radii, self.clip, norm)  # type: ignore[arg-type]
        return Search(network, region, self.y, range(len(self.y)), Budget())


def transfer(networks: dict[str, Network], inputs: Inputs, epsilon: float) -> None:
    """Print the matrix."""
    descent = ATTACKS["pgd"]
    assert isinstance(descent, Descent)
    full = replace(descent, restarts=1, until_broken=False)
    points = {name: full.run(inputs.search(network, epsilon, "inf")).points for name, network in networks.items()}
    clean = {name: inputs.right(network, inputs.x) for name, network in networks.items()}
    print(f"lost by, to points of: {'  '.join(networks)}")
    for name, network in networks.items():
        shares = []
        for source, found in points.items():
            both = clean[name] & clean[source]
            shares.append(float((both & ~inputs.right(network, found)).sum() / both.sum()))
        print(f"{name:24}" + " ".join(f"{share:6.1%}" for share in shares), flush=True)


def norms(networks: dict[str, Network], inputs: Inputs) -> None:
    """Print the ratios."""
    for name, network in networks.items():
        for norm, reach in (("inf", 1.0), ("2", float(inputs.x[0].numel()) ** 0.5)):
            search, away = inputs.search(network, reach, norm), []
            broken = inputs.right(network, inputs.x)
            for attack in ("deepfool", "fgsm-growing"):
                found = ATTACKS[attack].run(search)
                broken &= found.unsafe
                away.append(search.region.distance(found.points))
            ratios = (away[0] / away[1])[broken]
            shorter = float((ratios < 1).double().mean())
            print(
                f"{name:24}{norm:>4}: {float(ratios.median()):.3f}, shorter at {shorter:.0%} of {len(ratios)}",
                flush=True,
            )


def jacobian(networks: dict[str, Network], inputs: Inputs) -> None:
    """Print the ratios of times."""
    for name, network in networks.items():
        x, classes = inputs.of(network), int(network.output_shape[0])

        def one(network: Network = network, x: Tensor = x) -> None:
            z = x.clone().requires_grad_(True)
            torch.autograd.grad(network.scores(z)[:, 0].sum(), z)

        def each(network: Network = network, x: Tensor = x, classes: int = classes) -> None:
            z = x.clone().requires_grad_(True)
            scores = network.scores(z)
            for k in range(classes):
                torch.autograd.grad(scores[:, k].sum(), z, retain_graph=True)

        def together(network: Network = network, x: Tensor = x, classes: int = classes) -> None:
            z = x.repeat(classes, *[1] * (x.dim() - 1)).requires_grad_(True)
            scores = network.scores(z).reshape(classes, len(x), classes)
            torch.autograd.grad(scores.diagonal(dim1=0, dim2=2).sum(), z)

        single = seconds(one)
        print(
            f"{name:24}{classes} classes: {seconds(each) / single:.1f} times one gradient, "
            f"side by side {seconds(together) / single:.1f}",
            flush=True,
        )


def seconds(call: Callable[[], None]) -> float:
    """Return the median CPU seconds of a call."""
    call()
    found = []
    for _ in range(REPEATS):
        started = time.process_time()
        call()
        found.append(time.process_time() - started)
    return statistics.median(found)


def main() -> None:
    """Run a command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("transfer", "norms", "jacobian"))
    parser.add_argument("networks", nargs="+")
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--data-dir")
    parser.add_argument("--inputs", type=int, default=100)
    parser.add_argument("--epsilon", type=float, default=0.1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    networks = {}
    for path in options.networks:
        subject = load_subject(path, device="cpu")
        networks[subject.name.rsplit("/", 1)[-1].removesuffix(".safetensors")] = subject.network
    inputs = Inputs(options)
    if options.command == "transfer":
        transfer(networks, inputs, options.epsilon)
    elif options.command == "norms":
        norms(networks, inputs)
    else:
        jacobian(networks, inputs)


if __name__ == "__main__":
    main()
