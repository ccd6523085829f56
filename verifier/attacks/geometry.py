"""Balls of p-norms, and their intersections with a box that holds the centre: projections and steepest steps.

All functions take displacements from the centre, `(batch, n)`, radii `(batch,)` and optional bounds on the size of
each coordinate in the direction that it points to. Since both ball and box hold 0, the nearest point keeps every
sign, so a problem in v is one in a = |v| with caps b >= 0:

    minimise |x - a|_2^2  subject to  |x|_p <= r, 0 <= x <= b,

    inf  x = min(a, b, r)
    2    x = min(s a, b) for the s <= 1 with |x|_2 = r
    1    x = clip(a - m, 0, b) for the m >= 0 with sum x = r (Duchi et al. 2008, whose caps are infinite)
    p    x + m p x^(p-1) = a, capped by b, for the m >= 0 with |x|_p = r

(from the Karush-Kuhn-Tucker conditions). 1 and 2 are solved exactly, up to rounding; p by bisection.
"""

import torch
from torch import Tensor

# Bisections of a general p: the multiplier, and each coordinate for a multiplier. 60 exhaust float64.
BISECTION_STEPS = 60
# The 2-norm of a float32 vector is trusted above.
LEAST_LENGTH = 1e-15
# Newton's steps for p = 2; each but the last caps one more coordinate, and a handful is the rule.
NEWTON_STEPS = 50


def project(v: Tensor, radius: Tensor, norm: str | float, caps: Tensor | None = None) -> Tensor:
    """Return the nearest points to v in the balls, with each |coordinate| at most its cap.

    norm: "inf", "2", "1" or a number >= 1.
    """
    size = v.abs()
    limits = torch.full_like(size, torch.inf) if caps is None else caps
    p = float(norm)
    if not p >= 1:
        raise ValueError(f"{norm} is no norm: p must be at least 1")
    if p == torch.inf:
        size = torch.minimum(torch.minimum(size, limits), radius[:, None])
    elif p == 2:
        size = project_into_box(size, radius, -limits, limits)
    elif p == 1:
        size = _project_1(size, radius, limits)
    else:
        size = _project_p(size, radius, p, limits)
    return torch.copysign(size, v)


def steepest(gradient: Tensor, size: Tensor, norm: str, caps: Tensor | None = None) -> Tensor:
    """Return the displacements d, |d| <= size and |d_i| <= caps_i, that minimise <gradient, d>.

    inf: -sign(g) min(size, caps). 2: -g scaled until it is as long as allowed, capped coordinates staying at their
    caps. 1: the coordinates with the largest |g_i| that can still move, each as far as it may. caps are those in
    the direction of -gradient; where the gradient is 0 nothing moves.
    """
    g = gradient.abs()
    if norm == "inf":
        limits = size[:, None] if caps is None else torch.minimum(caps, size[:, None])
        step = limits * (g > 0)
    elif norm == "2":
        if caps is None:
            length = torch.linalg.vector_norm(gradient, dim=1)
            # Squares of smaller gradients underflow, of larger ones overflow.
            odd = torch.nonzero(~((length > LEAST_LENGTH) & length.isfinite())).squeeze(1)
            if len(odd):
                peaks = _unit_peak(gradient[odd])
                gradient = gradient.index_copy(0, odd, peaks)
                length = length.index_copy(0, odd, torch.linalg.vector_norm(peaks, dim=1).clamp(min=1))
            descent: Tensor = gradient * (-size / length)[:, None]
            return descent
        step = stretch_into_box(g, size, -caps, caps)
    elif norm == "1":
        step = _fill(g, size, size[:, None].expand_as(g) if caps is None else caps)
    else:
        raise ValueError(f"no steepest step for norm {norm!r}; supported: inf, 2, 1")
    return -torch.copysign(step, gradient)


def lengths(v: Tensor, norm: str) -> Tensor:
    """Return the norms `(batch,)` of displacements `(batch, n)`."""
    result: Tensor = torch.linalg.vector_norm(v, float(norm), dim=1)
    return result


def project_into_box(v: Tensor, radius: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Return the nearest points to v in the 2-norm balls cut to boxes with lower <= 0 <= upper, `(batch, n)`."""
    return _fit(v, radius, lower, upper, shrink=True)


def stretch_into_box(v: Tensor, radius: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Return clamp(s v, lower, upper) for the s where it is as long as radius, or as long as the box allows.

    It maximises <v, x> over the ball in the 2-norm cut to the box.
    """
    return _fit(_unit_peak(v), radius, lower, upper, shrink=False)


def _fit(v: Tensor, radius: Tensor, lower: Tensor, upper: Tensor, shrink: bool) -> Tensor:
    """Return clamp(s v, lower, upper) with |.|_2 = radius; with `shrink` s = 1 where that is short enough.

    With t = s^2 the squared length is sum_i min(t v_i^2, end_i^2): concave and increasing, so a step of Newton's method
    never ends right of the root, and from the left it ends after finitely many: each but the last reaches a new end.
    With the sum of the squares of the free coordinates, F, a step is s <- s sqrt(1 + (radius^2 - length^2) / F).
    """
    finfo = torch.finfo(v.dtype)
    goal, least = radius * radius, finfo.tiny**0.5
    done = goal * (1 - 8 * finfo.eps)
    # Left of the root: no end shortens s v to more than this.
    floor = radius / torch.linalg.vector_norm(v, dim=1).clamp(min=least)
    s = torch.ones_like(radius) if shrink else floor
    moving = torch.ones_like(radius, dtype=torch.bool)
    for number in range(NEWTON_STEPS):
        wanted = v if shrink and number == 0 else v * s[:, None]
        result = torch.clamp(wanted, lower, upper)
        length = torch.linalg.vector_norm(result, dim=1).square()
        moving = moving & (length > goal if shrink and number == 0 else length < done)
        if not bool(moving.any()):
            break
        # 1 where a coordinate is free, 0 at its end: arithmetic, several times as fast as a comparison.
        free = (wanted - result).sign_().abs_().neg_().add_(1.0).mul_(result)
        freedom = torch.linalg.vector_norm(free, dim=1).square().clamp(min=finfo.tiny)
        moved = torch.maximum(s * (1 + (goal - length) / freedom).clamp(min=0).sqrt(), floor)
        # Without a free coordinate, or one that counts, there is nowhere to go.
        moving = moving & (moved != s) & (moved < 1 / least)
        s = torch.where(moving, moved, s)
    return result


def _unit_peak(v: Tensor) -> Tensor:
    """Return v divided by its largest |coordinate| in each row: squares of small numbers would underflow."""
    return v / v.abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(v.dtype).tiny)


def _project_1(a: Tensor, radius: Tensor, caps: Tensor) -> Tensor:
    """sum_i clip(a_i - m, 0, b_i) falls in m, and is linear between its 2n breakpoints a_i and a_i - b_i."""
    capped = torch.minimum(a, caps)
    outside = capped.sum(dim=1) > radius
    if not bool(outside.any()):
        return capped
    m = torch.where(outside, _threshold(a, radius, caps), 0.0)
    # Where m = 0 nothing is cut.
    return torch.minimum((a - m[:, None]).clamp(min=0), caps)


def _threshold(a: Tensor, radius: Tensor, caps: Tensor) -> Tensor:
    """Return the m with sum_i clip(a_i - m, 0, caps_i) = radius: going down from the greatest breakpoint."""
    # Caps beyond a are never reached for m >= 0, and infinite ones would spoil the sums.
    reached = a - torch.minimum(caps, a)
    breaks, order = torch.cat([a, reached], dim=1).sort(dim=1, descending=True)
    change = torch.where(order < a.shape[1], 1.0, -1.0).to(a.dtype)
    slope = change.cumsum(dim=1)
    falls = (breaks[:, :-1] - breaks[:, 1:]) * slope[:, :-1]
    sums = torch.cat([torch.zeros_like(radius)[:, None], falls.cumsum(dim=1)], dim=1)
    # The last breakpoint whose sum is still below the radius; from there on the sum rises by its slope.
    index = ((sums < radius[:, None]).sum(dim=1, keepdim=True) - 1).clamp(min=0)
    rest = radius[:, None] - sums.gather(1, index)
    return (breaks.gather(1, index) - rest / slope.gather(1, index).clamp(min=1)).squeeze(1)


def _fill(g: Tensor, size: Tensor, caps: Tensor) -> Tensor:
    """Return how far coordinates move if the largest g are served first, each up to its cap, `size` in all."""
    order = g.argsort(dim=1, descending=True, stable=True)
    # A cap beyond the whole size is never reached, and infinite ones would spoil the sums.
    limits = torch.minimum(caps, size[:, None]).where(g > 0, 0).gather(1, order)
    before = limits.cumsum(dim=1) - limits
    taken = torch.minimum((size[:, None] - before).clamp(min=0), limits)
    return torch.zeros_like(taken).scatter(1, order, taken)


def _project_p(a: Tensor, radius: Tensor, p: float, caps: Tensor) -> Tensor:
    """Bisection on the multiplier m, in each coordinate on x, for 1 < p < inf."""
    capped = torch.minimum(a, caps)
    outside = torch.linalg.vector_norm(capped, p, dim=1) > radius
    low = torch.zeros_like(radius)
    # At this multiplier even the largest coordinate alone is inside: m p (r/n)^(p-1) >= a.
    share = radius / a.shape[1] ** (1 / p)
    high = a.amax(dim=1) / (p * share.clamp(min=torch.finfo(a.dtype).tiny ** (0.5 / p)) ** (p - 1))
    for _ in range(BISECTION_STEPS):
        middle = (low + high) / 2
        beyond = torch.linalg.vector_norm(torch.minimum(_solve_p(a, middle, p), caps), p, dim=1) > radius
        low, high = torch.where(beyond, middle, low), torch.where(beyond, high, middle)
    inside = torch.minimum(_solve_p(a, high, p), caps).where(radius[:, None] > 0, 0)
    return torch.where(outside[:, None], inside, capped)


def _solve_p(a: Tensor, m: Tensor, p: float) -> Tensor:
    """Return the x in [0, a] with x + m p x^(p-1) = a; the left side rises in x."""
    low, high = torch.zeros_like(a), a.clone()
    for _ in range(BISECTION_STEPS):
        middle = (low + high) / 2
        beyond = middle + m[:, None] * p * middle ** (p - 1) > a
        low, high = torch.where(beyond, low, middle), torch.where(beyond, middle, high)
    return low
