"""The one-step attacks of Huang, Xu, Schuurmans and Szepesvari (2015), "Learning with a Strong Adversary".

With g the softmax outputs or the logits, c the class and T_k the gradient of g_k, sections 3.1 and 3.1.1 linearise g:

    Adv_Alpha      for each j != c the shortest r with <T_j - T_c, r> >= g_c - g_j, which has
                   ||r|| = (g_c - g_j) / ||T_j - T_c||_*; the shortest of all j
    Adv_Loss       r = -length T_c / ||T_c||_2, -length sign(T_c) or -length sign((T_c)_I) e_I, the minimiser of
                   <T_c, r> in the 2-, inf- and 1-norm
    Adv_Loss_Sign  r along -sign(T_c), whatever the norm its length is measured in

The paper prints the constraint as "<=", where r = 0 is best; loses the sign and the numerator of the 1-norm step; runs
over j = c (0/0); and prints Adv_Loss without the minus, which raises the class. Tests keep both forms apart. Here r
also stays in the domain, where the coordinates that can still move make up for those that cannot.

The softmax saturates: T_k and g_c - g_j underflow to 0/0. With D_k the gradient of score_c - score_k and a_k the
softmax outputs divided by the largest of the other classes, both sides are computed as
T_c ~ g_c sum_k a_k D_k and T_j ~ a_j (sum_k g_k D_k - D_j), in float64.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from verifier.attacks.base import Attack, Search
from verifier.attacks.geometry import steepest
from verifier.attacks.halfspace import dual_lengths, step_to_halfspace
from verifier.attacks.linearise import Linearisation, linearise
from verifier.attacks.nearest import Nearest
from verifier.attacks.source import Source

Form = Literal["softmax", "logit"]

# Beyond exp of this the step of a saturated softmax is infinitely long for every purpose.
LARGEST_EXPONENT = 300.0


def output_margins(model: Linearisation, form: Form) -> tuple[Tensor, Tensor]:
    """Return (g_c - g_k `(batch, m)`, their gradients `(batch, m, n)`) for all other classes k of the model, float64.

    Softmax margins and gradients of a row share a positive factor, so that neither underflows: their ratio counts.
    """
    margins, gradients = model.margins.to(torch.float64), model.gradients.to(torch.float64)
    if form == "logit":
        return margins, gradients
    # ln(g_k / g_c) = -margin_k; divided by the largest of them. Row c itself has margin 0 and D = 0.
    log_sum = torch.logsumexp(torch.cat([torch.zeros_like(margins[:, :1]), -margins], dim=1), dim=1, keepdim=True)
    own, others = torch.exp(-log_sum), torch.exp(-margins - log_sum)
    largest = -margins.amin(dim=1, keepdim=True) - log_sum
    scaled = torch.exp(-margins - log_sum - largest)
    mean = (others[:, :, None] * gradients).sum(dim=1, keepdim=True)
    of_own = own[:, :, None] * (scaled[:, :, None] * gradients).sum(dim=1, keepdim=True)
    of_others = scaled[:, :, None] * (mean - gradients)
    # g_c - g_k = g_c (1 - exp(-margin_k)), times exp(-largest): may overflow where the softmax says "infinitely far".
    differences = own * -torch.expm1(-margins) * torch.exp((-largest).clamp(max=LARGEST_EXPONENT))
    return differences, of_own - of_others


@dataclass(frozen=True)
class LinearisedMargin(Attack):
    """Adv_Alpha: towards the class whose linearised boundary is nearest.

    It tries the shortest step, lengthened by the share `overshoot` (the step itself ends on a tie), and the step in
    that direction as long as the radius; the nearer unsafe one is proposed. whole: the latter is, untried.
    """

    norms: ClassVar[tuple[str, ...]] = ("inf", "2", "1")
    one_domain: ClassVar[bool] = True

    form: Form = "softmax"
    overshoot: float = 0.02
    whole: bool = False

    def propose(self, search: Search) -> Tensor:
        """Return the nearer of the two points that is unsafe, else the one with the lesser margin."""
        nearest = Nearest(search)
        if search.budget.exhausted:
            return nearest.points
        rows = nearest.all_rows()
        model = linearise(Source(search.network), nearest.centre, search.classes)
        search.record.count_gradients(rows)
        search.record.note_gradient(rows, model.vanishing())
        margins, gradients = self._boundary(model, search.targets, nearest.norm)
        below, above = nearest.rooms(nearest.centre)
        caps = torch.where(gradients > 0, below, above).to(gradients.dtype)
        longest = steepest(gradients, search.region.radius, nearest.norm, caps)
        if self.whole:
            return nearest.clamp(nearest.centre + longest.to(nearest.centre.dtype).reshape_as(nearest.centre))
        shortest = step_to_halfspace(gradients, margins, below, above, nearest.norm)
        for step in ((1.0 + self.overshoot) * shortest, longest):
            nearest.evaluate(
                rows, nearest.clamp(nearest.centre + step.to(nearest.centre.dtype).reshape_as(nearest.centre))
            )
        return nearest.points

    def _boundary(self, model: Linearisation, targets: Tensor | None, norm: str) -> tuple[Tensor, Tensor]:
        """Return (margin `(batch,)`, gradient `(batch, n)`) of the boundary to the nearest class, or to the target."""
        margins, gradients = output_margins(model, self.form)
        if targets is None:
            size = dual_lengths(gradients, norm)
            rivals = torch.where(size > 0, margins / size, torch.inf).argmin(dim=1)
        else:
            rivals = (model.others == targets[:, None]).to(torch.int64).argmax(dim=1)
        rows = torch.arange(len(rivals), device=rivals.device)
        return margins[rows, rivals], gradients[rows, rivals]


@dataclass(frozen=True)
class LinearisedLoss(Attack):
    """Adv_Loss and, with `sign`, Adv_Loss_Sign: one step as long as the radius against the gradient of the class.

    With targets along the gradient of the target. The softmax form takes the logarithm of the odds, whose gradient
    has the same direction as the softmax's and does not underflow.
    """

    norms: ClassVar[tuple[str, ...]] = ("inf", "2", "1")
    one_domain: ClassVar[bool] = True

    form: Form = "softmax"
    sign: bool = False

    def propose(self, search: Search) -> Tensor:
        """Return the end of the step."""
        nearest = Nearest(search)
        if search.budget.exhausted:
            return nearest.points
        gradients = self._gradients(search, nearest).to(torch.float64)
        below, above = nearest.rooms(nearest.centre)
        caps = torch.where(gradients > 0, below, above).to(torch.float64)
        radius, norm = search.region.radius, nearest.norm
        if not self.sign:
            step = steepest(gradients, radius, norm, caps)
        elif norm == "1":
            # All coordinates alike, with sum |r_i| = radius: the least r in the inf-norm with <sign(g), r> = -radius.
            step = step_to_halfspace(gradients.sign(), radius, below, above, "inf")
        else:
            step = steepest(gradients.sign(), radius, norm, caps)
        return nearest.clamp(nearest.centre + step.to(nearest.centre.dtype).reshape_as(nearest.centre))

    def _gradients(self, search: Search, nearest: Nearest) -> Tensor:
        """Return the gradients `(batch, n)` of what is to fall: g_c, or minus g of the target."""
        classes = search.classes if search.targets is None else search.targets
        x = nearest.centre.detach().requires_grad_()
        with torch.enable_grad():
            scores = Source(search.network).scores(x)
            values = scores.gather(1, classes[:, None]).squeeze(1)
            if self.form == "softmax":
                values = values - scores.scatter(1, classes[:, None], -torch.inf).logsumexp(dim=1)
            (gradients,) = torch.autograd.grad(values.sum(), x)
        rows = nearest.all_rows()
        search.record.count_gradients(rows)
        search.record.note_gradient(rows, (gradients == 0).flatten(1).all(dim=1))
        return (gradients if search.targets is None else -gradients).flatten(1)
