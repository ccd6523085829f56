"""Signs that gradients are masked: what should not be where gradients tell the truth, measured on a few inputs.

After Athalye, Carlini, Wagner (2018), section 3.1, and Carlini et al. (2019), with true gradients throughout:

    zero gradients    of the margin over the ball (`gradient_vanishes`); of the loss, where a softmax in the model's
                      dtype says exactly 1 (as defensive distillation does; attacks on scores do not meet it)
    one step          breaks inputs that many steps leave
    outputs alone     break inputs that gradients leave
    larger balls      hold inputs that smaller ones do not: what breaks within epsilon withstands within 2 epsilon
    whole domain      inputs withstand descents that nothing bounds

Each is a count of inputs, compared input by input with what should have been as strong or stronger. Counts are of
proposals that look unsafe, which nobody replays: they say how far to trust an attack, and nothing of the network. That
there is no sign shows nothing either.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from encoders.network import Network
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


@dataclass(frozen=True)
class Signs:
    """Counts of the inputs that show each sign, of `inputs`; see the module's docstring.

    vanishing: zero gradients of the margin; saturated: of the loss; one_step, outputs, larger: broken by what is weaker
    less those that only the stronger breaks, at least 0; unbounded: what withstands in the whole domain, None where
    nothing says how large that is.
    """

    inputs: int
    vanishing: int
    saturated: int
    one_step: int
    outputs: int
    larger: int
    unbounded: int | None


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
