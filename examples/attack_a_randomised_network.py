"""Attack a network that draws noise at every evaluation, by the mean gradient over draws (EOT, Athalye et al. 2018).

One draw's gradient leads to a point that is unsafe under that draw; the mean over many leads to a point that is unsafe
under most. What is counted is the share of fresh draws under which a point is classified wrongly. A random network is
refused by `certify` and `verifier attack`, whose answers are about a function; here it is attacked directly.
"""

from __future__ import annotations

import torch
from torch import Tensor

from encoders import BallRegion, Network
from verifier.attacks import Search
from verifier.attacks.descent import Descent
from verifier.attacks.steps import Steepest
from verifier.attacks.wrappers import Expect
from verifier.budget import Budget
from verifier.data import load_data
from verifier.subject import load_subject

NOISE, EPSILON, INPUTS = 0.3, 0.1, 48


def noisy(network: Network, x: Tensor, generator: torch.Generator) -> Tensor:
    """Return the scores `(batch, classes)` of one draw: the network behind normal noise on its inputs."""
    return network.scores(x + NOISE * torch.randn(x.shape, generator=generator, dtype=x.dtype))


def broken_share(network: Network, points: Tensor, labels: Tensor, draws: int = 100) -> float:
    """Return the share of draws under which points are classified wrongly."""
    generator = torch.Generator().manual_seed(1)
    wrong = [(noisy(network, points, generator).argmax(dim=1) != labels).double().mean() for _ in range(draws)]
    return float(torch.stack(wrong).mean())


def attacked(network: Network, inputs: Tensor, labels: Tensor, draws: int) -> Tensor:
    """Return the points at which descents along the mean gradient of so many draws end."""
    # The noise hides nothing for good, so a descent takes all its steps, and none ends where one draw is unsafe.
    attack = Descent(5, Steepest(0.3), sources=(Expect(noisy, draws),), until_broken=False)
    radii = torch.full((len(inputs),), EPSILON, dtype=torch.float64)
    region = BallRegion(inputs.double(), radii, domain=(0.0, 1.0))
    return attack.run(Search(network, region, labels, range(len(inputs)), Budget())).points


def main() -> None:
    """Print how often the network is wrong: at the inputs, after one draw's gradients, and after the mean of 16."""
    network = load_subject("digits-relu").network
    data = load_data("digits")
    assert data.labels is not None
    inputs, labels = torch.tensor(data.inputs[:INPUTS]), torch.tensor(data.labels[:INPUTS])
    print(f"wrong at the inputs: {broken_share(network, inputs, labels):.1%} of draws")
    for draws in (1, 16):
        points = attacked(network, inputs, labels, draws)
        print(f"wrong at radius {EPSILON} after {draws} draws a step: {broken_share(network, points, labels):.1%}")


if __name__ == "__main__":
    main()
