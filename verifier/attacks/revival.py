"""A second source of directions for flat places, where the gradient of a loss is zero.

Behind dead hinges and saturated units every gradient is zero, however near the boundary. The scores stay what they are,
but each such unit passes back a little more than its derivative: hinges at least `LEAK` of what comes, sigmoid and tanh
`LEAK` beside their slope, MWD layers pseudogradients. That points to where the first units come to life. Where it is
zero as well (a constant network, a staircase), and in every second restart, the direction is random.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from encoders.network import Network
from verifier.attacks.base import Search
from verifier.attacks.randomness import as_seeds, uniform
from verifier.attacks.source import Source

# Far below 1, so that where some units are alive they decide.
LEAK = 0.05
# Random directions take streams of random numbers from here on.
FIRST_STREAM = 1 << 20


def revived(network: Network) -> Source:
    """Return the class scores of a network whose dead units pass gradients back."""
    return Source(network, pseudo=True, leak=LEAK)


def second_directions(
    search: Search, rows: Tensor, x: Tensor, gradient: Tensor, slopes: Callable[[Tensor, Tensor], Tensor], restart: int
) -> Tensor:
    """Return the gradients `(k, n)` at points x `(k, n)` of the given rows, those that are zero or NaN replaced.

    The tensor itself where there is none. slopes: of the loss by the scores, given the scores and which of the points
    they belong to; restart: of the search, by its number; every second one keeps to one random direction.
    """
    # NaN compares as false.
    flat = torch.nonzero(~(gradient.abs().amax(dim=1) > 0)).squeeze(1)
    if not len(flat):
        return gradient
    if restart % 2 == 0 and restart > 0:
        other = torch.zeros_like(x[flat])
    else:
        image = x.index_select(0, flat).reshape(-1, *search.region.centre.shape[1:])
        _, directions = revived(search.network).differentiate(image, lambda scores: slopes(scores, flat))
        search.record.count_gradients(rows[flat])
        other = directions.flatten(1)
    nothing = torch.nonzero(~(other.abs().amax(dim=1) > 0)).squeeze(1)
    if len(nothing):
        seeds = as_seeds(search.seeds, x.device)[rows[flat[nothing]]]
        other[nothing] = (uniform(seeds, FIRST_STREAM + restart, x.shape[1]) - 0.5).to(other)
    return gradient.index_copy(0, flat, other)
