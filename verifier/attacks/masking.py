"""Signs that gradients are masked: what should not be where gradients tell the truth, measured on a few inputs.

After Athalye, Carlini, Wagner (2018), section 3.1, and Carlini et al. (2019), with true gradients throughout:

    zero gradients    of the margin over the ball (`gradient_vanishes`); of the loss, where a softmax in the model's
                      dtype says exactly 1 (as defensive distillation does; attacks on scores do not meet it)
    one step          breaks inputs that many steps leave
    outputs alone     break inputs that gradients leave
    larger balls      hold inputs that smaller ones do not: what breaks within epsilon withstands within 2 epsilon
    whole domain      inputs withstand descents that nothing bounds
    terraces          the margin jumps up, and has several minima, on the segment to where the gradient says that it
                      is least in the ball: a gradient says nothing of the steps between terraces (Xiao, Zhong, Zheng
                      2020, Figure 2); continuous networks have none

Each is a count of inputs, compared input by input with what should have been as strong or stronger. Counts are of
proposals that look unsafe, which nobody replays: they say how far to trust an attack, and nothing of the network. That
there is no sign shows nothing either.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from encoders.network import Network
from verifier.attacks.ball import Ball
from verifier.attacks.base import Attack, Search
from verifier.attacks.corners import Corners
from verifier.attacks.descent import Descent
from verifier.attacks.source import gradient_vanishes
from verifier.attacks.square import Square
from verifier.attacks.steps import Steepest, Vertex

# Steps of a descent with many, and outputs asked for.
STEPS, QUERIES = 20, 200
MANY = Descent(STEPS, Steepest(0.125))
ONE = Descent(1, Vertex(), loss="cross-entropy")
# Pieces of a segment, local minima from which on it has terraces, halvings of the piece that rises most.
PIECES, TERRACES, HALVINGS = 32, 2, 12
# As shares of the range of values on the segment: what is flat, and what still rises in the last half is a jump.
LEAST_MOVE, LEAST_JUMP = 1e-3, 1e-2


@dataclass(frozen=True)
class Signs:
    """Counts of the inputs that show each sign, of `inputs`; see the module's docstring.

    vanishing: zero gradients of the margin; saturated: of the loss; one_step, outputs, larger: broken by what is weaker
    less those that only the stronger breaks, at least 0; unbounded: what withstands in the whole domain, None where
    nothing says how large that is; terraces: segments with several minima and a jump.
    """

    inputs: int
    vanishing: int
    saturated: int
    one_step: int
    outputs: int
    larger: int
    unbounded: int | None
    terraces: int


def masking_signs(search: Search, whole: Tensor | None) -> Signs:
    """Return the signs at the inputs of a search. whole: `(batch,)`, radii that hold the domain; None: unknown."""
    region = search.region
    many, one = _broken(MANY, search), _broken(ONE, search)
    blind: Attack = Square(QUERIES) if region.norm in Square.norms else Corners(QUERIES)
    twice = _broken(MANY, replace(search, region=replace(region, radius=2.0 * region.radius), report=None))
    centre = region.clip(region.centre, search.network.dtype)
    vanishing = gradient_vanishes(search.network, centre, search.classes, region.radius, region.norm)
    everywhere = None if whole is None else replace(search, region=replace(region, radius=whole), report=None)
    return Signs(
        inputs=len(search),
        vanishing=int(vanishing.sum()),
        saturated=int(_saturated(search.network, centre, search.classes).sum()),
        one_step=_surplus(one, many),
        outputs=_surplus(_broken(blind, search), many | one),
        larger=_surplus(many, twice),
        unbounded=None if everywhere is None else int((~_broken(MANY, everywhere)).sum()),
        terraces=int(_terraces(search, centre).sum()),
    )


def _broken(attack: Attack, search: Search) -> Tensor:
    return attack.run(search).unsafe


def _surplus(weaker: Tensor, stronger: Tensor) -> int:
    return max(0, int((weaker & ~stronger).sum()) - int((stronger & ~weaker).sum()))


def _saturated(network: Network, x: Tensor, classes: Tensor) -> Tensor:
    """Return where the gradient of -log softmax(scores)_y by the scores, p - e_y, is exactly 0 in their dtype."""
    with torch.no_grad():
        slopes = network.scores(x).softmax(dim=1)
    slopes = slopes - torch.nn.functional.one_hot(classes, slopes.shape[1])
    result: Tensor = (slopes == 0).all(dim=1)
    return result


def _terraces(search: Search, centre: Tensor) -> Tensor:
    """Return where the margin jumps up, and has `TERRACES` local minima, on the way that its gradient points to.

    In float64, so that jumps are not roundings. A rise that is none halves with the piece that it is looked for in.
    """
    with torch.enable_grad():
        x = centre.detach().double().requires_grad_(True)
        (gradient,) = torch.autograd.grad(search.shortfalls(search.network.scores(x)).sum(), x)
    ball = Ball.of(search.region, torch.float64)
    away = (ball.vertex(gradient.flatten(1)) - ball.centre).reshape_as(x)

    def at(shares: Tensor) -> Tensor:
        with torch.no_grad():
            moved = x.detach() + shares.reshape(-1, *[1] * (x.dim() - 1)) * away
            return search.shortfalls(search.network.scores(moved))

    ends = torch.linspace(0, 1, PIECES + 1, dtype=torch.float64, device=x.device).expand(len(x), -1)
    values = torch.stack([at(share) for share in ends.unbind(dim=1)], dim=1)
    span, moves = values.amax(dim=1) - values.amin(dim=1), values.diff(dim=1)
    falls, rises = moves < -LEAST_MOVE * span[:, None], moves > LEAST_MOVE * span[:, None]
    minima = (falls[:, :-1] & rises[:, 1:]).sum(dim=1)
    piece = moves.argmax(dim=1, keepdim=True)
    lower, upper, low, high = (part.gather(1, piece + k).squeeze(1) for part in (ends, values) for k in (0, 1))
    for _ in range(HALVINGS):
        middle = (lower + upper) / 2
        value = at(middle)
        first = value - low >= high - value
        lower, low = torch.where(first, lower, middle), torch.where(first, low, value)
        upper, high = torch.where(first, middle, upper), torch.where(first, value, high)
    return (minima >= TERRACES) & (high - low > LEAST_JUMP * span)
