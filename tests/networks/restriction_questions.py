"""Questions of the restriction's linear program, and networks and inputs to ask them of."""

import numpy as np
import torch

from encoders import Network
from encoders.formulations.restrict import freeze
from encoders.ops import Affine, Conv2d, MaxPool2d, Relu, Reshape
from tests.networks.chains import chain
from verifier.restriction.question import Question

F64 = torch.float64


def ask(network: Network, x: torch.Tensor, target: int, at=None, direction=None, alpha=0.0, reach=1.0) -> Question:
    """Return the question for x in [0, 1]^n, frozen at x or at another point."""
    flat = x.flatten().numpy()
    frozen = freeze(network, x if at is None else at, direction)
    lower, upper = np.maximum(-flat, -reach), np.minimum(1 - flat, reach)
    return Question(frozen, x, target, lower, upper, reach, alpha)


def inputs_of(seed: int, n: int) -> torch.Tensor:
    return torch.rand(1, n, dtype=F64, generator=torch.Generator().manual_seed(1000 + seed))


def second_label(network: Network, x: torch.Tensor) -> tuple[int, int]:
    order = network.evaluate(x)[0].argsort(descending=True)
    return int(order[0]), int(order[1])


def conv_network(seed: int) -> Network:
    generator = torch.Generator().manual_seed(seed)
    weight = [torch.randn(*s, generator=generator, dtype=F64) for s in ((3, 1, 3, 3), (3,), (4, 12), (4,), (3, 4))]
    return chain(
        (1, 6, 6), Conv2d(weight[0], weight[1]), Relu(), MaxPool2d((2, 2), (2, 2)), Reshape((12,)),
        Affine(weight[2], weight[3]), Relu(), Affine(weight[4]), dtype=F64,
    )  # fmt: skip
