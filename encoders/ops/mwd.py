"""The max-of-weighted-distance layer: values and exact intervals.

With t_i = u_i (x_i - w_i), z = max_i |t_i| and U = exp(-z^2), negated 1 - U. Over a box [l, h] the terms move
independently, so z ranges over exactly [near, far] with

    near = max(0, max_i u_i (l_i - w_i), max_i u_i (w_i - h_i)),  far = max_i max(u_i (h_i - w_i), u_i (w_i - l_i)),

and U over [exp(-far^2), exp(-near^2)]. Agrawal, de Alfaro, Helmbold (2019), section 4, print a maximum over i of
the one-input ranges where the minimum belongs, which is unsound; a test keeps both forms apart.

The exponential is one monotone link of the distance z. With the linear link a unit is bias - z, or bias + z if
negated: the l_inf-distance neuron of Zhang et al. (2021).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoders.arithmetic import INFLATION, Arithmetic
from encoders.box import Box, Shape
from encoders.layers.mwd_kernels import distance_range, weighted_distance
from encoders.layers.mwd_linear import linear_mwd
from encoders.layers.mwd_unit import link, max_square, mwd
from encoders.ops.distance import DistanceOp
from encoders.ops.mwd_exact import exact_mwd
from encoders.rationals import Afford, NotEvaluated, Rationals
from encoders.rounding import ELEMENTARY_FUNCTION_ULPS, add_down, add_up, tiny, unit_roundoff, widen
from encoders.views.comparison import Comparison
from encoders.views.envelope import reach_of
from encoders.views.relaxation import Relaxation


@dataclass(frozen=True, eq=False)
class Mwd(DistanceOp):
    """A layer of MWD units on vectors. weight u >= 0 and attractor w: `(units, inputs)`; negated: mask `(units,)`.

    link: None for the Gaussian one, or "linear", which alone takes a bias `(units,)`. None stands for the default so
    that the digests and files of Gaussian networks do not mention it.
    """

    kind = "mwd"

    weight: Tensor
    attractor: Tensor
    negated: Tensor
    bias: Tensor | None = None
    link: str | None = None

    def __post_init__(self) -> None:
        if self.weight.dim() != 2 or self.weight.shape != self.attractor.shape:
            raise ValueError(
                f"mwd weight and attractor must be matrices of one shape, got {tuple(self.weight.shape)} "
                f"and {tuple(self.attractor.shape)}"
            )
        if tuple(self.negated.shape) != (self.weight.shape[0],) or self.negated.dtype != torch.bool:
            raise ValueError(f"mwd needs a boolean mask of {self.weight.shape[0]} units")
        if bool((self.weight < 0).any()):
            raise ValueError("mwd weights must not be negative")
        if self.link not in (None, "linear"):
            raise ValueError(f"mwd link {self.link!r} is unknown; supported: linear, or none for the Gaussian one")
        if self.bias is not None and (not self.has_linear_link or self.bias.shape != self.negated.shape):
            raise ValueError("an mwd bias needs the linear link and one number for each unit")

    @property
    def has_linear_link(self) -> bool:
        """Whether outputs are linear in the distance."""
        return self.link == "linear"

    def output_shape(self, *shapes: Shape) -> Shape:
        if shapes[0] != (self.weight.shape[1],):
            raise ValueError(f"mwd takes shape ({self.weight.shape[1]},), got {shapes[0]}")
        return (int(self.weight.shape[0]),)

    def squared_distance(self, x: Tensor, pseudo: bool = False) -> Tensor:
        """Return s = z^2, differentiable by the true gradient or the pseudogradient of the maximum."""
        if torch.is_grad_enabled() and x.requires_grad:
            return max_square(x, self.weight, self.attractor, pseudo)
        z = weighted_distance(x, self.weight, self.attractor)
        return z * z

    def evaluate(self, *x: Tensor) -> Tensor:
        if self.has_linear_link:
            return linear_mwd(x[0], self.weight, self.attractor, self.negated, self.bias)
        return link(self.squared_distance(x[0]), self.negated)

    def evaluate_pseudo(self, *x: Tensor, leak: float = 0.0) -> Tensor:
        """Return the value with pseudogradients behind it, for attacks and training."""
        if self.has_linear_link:
            return linear_mwd(x[0], self.weight, self.attractor, self.negated, self.bias, pseudo_share=1.0)
        return mwd(x[0], self.weight, self.attractor, self.negated, pseudo_share=1.0)

    def distance_range(self, box: Box) -> tuple[Tensor, Tensor]:
        """Return (near, far), rounded outward; each `(batch, units)`.

        t errs by two roundings of its own size, so four relative units and an underflow slack suffice. Of a unit
        where a term overflows, or is an infinite end times a zero weight, nothing is claimed.
        """
        # No gradient passes: kernels write into memory of their own, and nobody lowers these ends by descent.
        near, far = distance_range(box.lower.detach(), box.upper.detach(), self.weight, self.attractor)
        slack, relative = 4.0 * tiny(box.dtype), 8.0 * unit_roundoff(box.dtype)
        # In place: the passes over (batch, units) take a third of the time of a layer otherwise.
        near = near.mul_(1.0 - relative).sub_(slack).nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0).clamp_(min=0)
        return near, far.mul_(1.0 + relative).add_(slack).nan_to_num_(torch.inf, torch.inf)

    def interval(self, *boxes: Box) -> Box:
        near, far = self.distance_range(boxes[0])
        if self.has_linear_link:
            return self._linear_box(near, far)
        # exp(-s) errs by the error of s times s itself, so s is rounded outward before the library's function.
        s_near, s_far = _square_range(near, far)
        if not bool(self.negated.all()):
            plain = _widen_positive((-s_far).exp_(), (-s_near).exp_(), ELEMENTARY_FUNCTION_ULPS)
            if not bool(self.negated.any()):
                return _unit_box(*plain)
        flipped = _widen_positive((-s_near).expm1_().neg_(), (-s_far).expm1_().neg_(), ELEMENTARY_FUNCTION_ULPS)
        if bool(self.negated.all()):
            return _unit_box(*flipped)
        lower, upper = (torch.where(self.negated, b, a) for a, b in zip(plain, flipped, strict=True))
        return _unit_box(lower, upper)

    def execution_error(self, boxes: Sequence[Box], errors: Sequence[Tensor], arithmetic: Arithmetic) -> Tensor:
        """Return the error of the distance z times the link's steepest slope near, and the link's own.

        Of u_i |x_i - w_i| three roundings err; a maximum moves by no more than its terms. exp(-z^2) has the slope
        2 z exp(-z^2), which falls from z = 1 / sqrt(2) on, where it is below .858; s exp(-s) falls from s = 1 on.
        """
        (box,), (error,), relative = boxes, errors, arithmetic.relative(3)
        reach, none = reach_of(box) + error, torch.zeros_like(self.attractor)
        moved = weighted_distance(error + relative * reach, self.weight, none) * INFLATION
        away = moved + relative * (self.weight * self.attractor.abs()).amax(dim=1) + arithmetic.absolute(4)
        near, far = self.distance_range(box)
        size = far + away
        if self.has_linear_link:
            size = size if self.bias is None else size + self.bias.abs()
            return arithmetic.bounded(away + arithmetic.relative(2) * size, size)
        least = (near - away).clamp(min=0)
        greatest = torch.exp(-least.square()) * INFLATION
        slope = torch.where(least > 0.7072, 2.0 * least * greatest, 0.858)
        squared = torch.where(least > 1.0, least.square() * greatest, 0.368)
        units = 2.0 * ELEMENTARY_FUNCTION_ULPS * torch.where(self.negated, 2.0, greatest)
        own = arithmetic.relative(2) * (squared + greatest) + arithmetic.roundoff * units + arithmetic.absolute(4)
        return arithmetic.bounded(away * slope + own, size.square())

    def exact(self, *boxes: Box, segments: int = 1) -> Relaxation:
        """Return rows with binaries by way of the distances; OUTER, the Gaussian link has a gap. For small layers."""
        return exact_mwd(self, boxes[0], segments)

    def scores(self, *x: Tensor, pseudo: bool = False, leak: float = 0.0) -> Tensor:
        """Return values in the order of the outputs, taken before the last exp; differentiable.

        exp(-z^2) is 0 in float32 from z = 10.2 on, where outputs tie and gradients vanish; -z^2 does neither.
        A layer with one type of unit uses +-z^2, a mixed layer the logits ln(y / (1 - y)) = +-ln(exp(z^2) - 1) of
        the outputs y, which resolve both y near 0 and y near 1. They are finite: z^2 below the smallest normal
        number counts as that. With the linear link scores are the outputs themselves.
        """
        if self.has_linear_link:
            return super().scores(*x, pseudo=pseudo, leak=leak)
        s = self.squared_distance(x[0], pseudo)
        if not bool(self.negated.any()):
            return -s
        if bool(self.negated.all()):
            return s
        logit = _log_expm1(s.clamp(min=tiny(s.dtype)))
        return torch.where(self.negated, logit, -logit)

    def compare(self, *boxes: Box, classes: Tensor) -> Comparison:
        """Return what the boxes of `scores` prove: distances tell apart what the exp makes equal."""
        return Comparison.of_values(self.score_box(*boxes), classes)

    @property
    def is_rational(self) -> bool:
        return self.has_linear_link

    def rational(self, *x: Rationals, afford: Afford) -> Rationals:
        if not self.has_linear_link:
            raise NotEvaluated("the Gaussian link of mwd leaves the rational numbers")
        distances, _ = super().rational_scores(*x, afford=afford)
        return distances if self.bias is None else distances + Rationals.of(self.bias)

    def rational_scores(self, *x: Rationals, afford: Afford) -> tuple[Rationals, NDArray[np.int64]]:
        if self.has_linear_link:
            return self.rational(*x, afford=afford), np.zeros(1, dtype=np.int64)
        return super().rational_scores(*x, afford=afford)

    def distance_layer(self, shape: Shape) -> "Mwd":
        return self

    def score_box(self, box: Box) -> Box:
        """Return an outer range of `scores` (each taken exactly, unclamped), for comparisons between units only."""
        near, far = self.distance_range(box)
        if self.has_linear_link:
            return self._linear_box(near, far)
        s_near, s_far = _square_range(near, far)
        if not bool(self.negated.any()):
            return Box.unchecked(-s_far, -s_near)
        if bool(self.negated.all()):
            return Box.unchecked(s_near, s_far)
        lower, upper = widen(_log_expm1(s_near), _log_expm1(s_far), ELEMENTARY_FUNCTION_ULPS)
        # The error of expm1 inside the logarithm is an absolute one: ELEMENTARY_FUNCTION_ULPS * 2u, doubled.
        slack = 4.0 * ELEMENTARY_FUNCTION_ULPS * unit_roundoff(box.dtype)
        lower, upper = lower - slack, upper + slack
        return Box.unchecked(torch.where(self.negated, lower, -upper), torch.where(self.negated, upper, -lower))

    def _linear_box(self, near: Tensor, far: Tensor) -> Box:
        """Return the range of the outputs with the linear link, from a range of distances rounded outward."""
        lower, upper = torch.where(self.negated, near, -far), torch.where(self.negated, far, -near)
        if self.bias is not None:
            lower, upper = add_down(lower, self.bias), add_up(upper, self.bias)
        greatest = torch.finfo(lower.dtype).max
        # A sum that overflowed inward is beyond the largest float, which is a bound then.
        return Box.unchecked(lower.clamp(max=greatest), upper.clamp(min=-greatest))


def _square_range(near: Tensor, far: Tensor) -> tuple[Tensor, Tensor]:
    """Return [near^2, far^2] rounded outward, for 0 <= near <= far."""
    lower, upper = _widen_positive(near * near, far * far, ulps=1)
    return lower.clamp_(min=0), upper


def _widen_positive(lower: Tensor, upper: Tensor, ulps: int) -> tuple[Tensor, Tensor]:
    """Return `widen(lower, upper, ulps)` for ends that are not negative, written over them.

    It takes 5 passes over memory in place of 10, which is a tenth of the time of a layer. 1 -+ relative is exact, so
    each end is rounded twice, as there.
    """
    relative, absolute = 2.0 * (ulps + 1) * unit_roundoff(lower.dtype), 2.0 * tiny(lower.dtype)
    lower.clamp_(max=torch.finfo(lower.dtype).max)
    return lower.mul_(1.0 - relative).sub_(absolute), upper.mul_(1.0 + relative).add_(absolute)


def _log_expm1(s: Tensor) -> Tensor:
    """Return ln(exp(s) - 1), s >= 0, to a few units in the last place of max(1, |result|): -inf at 0."""
    small = s < 1.0
    inner = torch.where(small, s, torch.ones_like(s))
    outer = torch.where(small, torch.ones_like(s), s)
    return torch.where(small, torch.log(torch.expm1(inner)), outer + torch.log1p(-torch.exp(-outer)))


def _unit_box(lower: Tensor, upper: Tensor) -> Box:
    """Return the box cut to [0, 1], in place."""
    return Box.unchecked(lower.clamp_(0, 1), upper.clamp_(0, 1))
