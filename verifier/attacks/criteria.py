"""What an attack wants: losses to minimise, and which classes to aim at. Two tables.

z are the class scores, c the class to leave, t the target where there is one. Every loss is *minimised*:

    margin         z_c - max_{k != c} z_k;  with a target z_c - z_t
    cross-entropy  ln softmax(z)_c;  with a target -ln softmax(z)_t
    log-probability  the same; its slopes are its own, where those of cross-entropy are those of the log odds
    logit-ratio    margin / (z_(1) - z_(3));  with a target (z_c - z_t) / (z_(1) - (z_(3) + z_(4)) / 2),
                   z_(i) the i-th largest (Croce, Hein 2020, equations 6 and 7, negated)

The targeted margin is the difference of the two cross-entropies L(t) - L(c), whose log-sum-exp cancels. Pallaprolu
and Madala (2020) print the argmin of L(c) - L(t) = z_t - z_c, which drives away from the target; a test keeps both
apart.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

# (scores (batch, classes), classes (batch,), targets (batch,) or None) -> (batch,)
Loss = Callable[[Tensor, Tensor, Tensor | None], Tensor]
# (scores (batch, classes) at the centres, classes) -> targets (batch, rounds), the first to be tried first
TargetChoice = Callable[[Tensor, Tensor], Tensor]

# As many classes as AutoAttack aims at (Croce, Hein 2020): all others of ten.
NEAREST = 9
# Below this a logit ratio's denominator is a tie of all its scores, where the ratio has no value.
LEAST_RATIO_DENOMINATOR = 1e-12


def margins(scores: Tensor, classes: Tensor) -> Tensor:
    """Return score_c - max_{k != c} score_k, `(batch,)`: negative or zero where another class wins or ties."""
    return _of(scores, classes) - _without(scores, classes).amax(dim=1)


def shortfalls(scores: Tensor, classes: Tensor, targets: Tensor | None = None) -> Tensor:
    """Return the margins, or with targets max_{k != t} score_k - score_t: not positive where t wins or ties."""
    return margins(scores, classes) if targets is None else -margins(scores, targets)


def margin(scores: Tensor, classes: Tensor, targets: Tensor | None = None) -> Tensor:
    """Return z_c - max_{k != c} z_k, with targets z_c - z_t."""
    if targets is None:
        return margins(scores, classes)
    return _of(scores, classes) - _of(scores, targets)


def cross_entropy(scores: Tensor, classes: Tensor, targets: Tensor | None = None) -> Tensor:
    """Return ln softmax(z)_c, with targets -ln softmax(z)_t.

    Computed as the softplus of ln sum_{k != c} exp(z_k) - z_c: where softmax_c rounds to 1 the usual form loses the
    gradient of z_c, and so the direction. This one keeps it until the softplus underflows, beyond 87 in float32.
    """
    if targets is None:
        return -functional.softplus(_odds(scores, classes))
    return functional.softplus(_odds(scores, targets))


def slopes(name: str, scores: Tensor, classes: Tensor, targets: Tensor | None = None) -> Tensor:
    """Return the gradients `(batch, classes)` of a row of `LOSSES` by the scores.

    In closed form for the margin and the cross-entropy: a backward pass through ten small operations costs a small
    network as much as its own. Of the cross-entropy it is the gradient divided by 1 - softmax_c (of t with targets),
    that of the log odds ln(softmax_c / (1 - softmax_c)): steps look at directions, and this one never underflows.
    """
    if name not in ("margin", "cross-entropy"):
        with torch.enable_grad():
            leaf = scores.detach().requires_grad_(True)
            (result,) = torch.autograd.grad(LOSSES[name](leaf, classes, targets).sum(), leaf)
        return result
    aim = classes if targets is None else targets
    if name == "margin":
        other = _without(scores, classes).argmax(dim=1) if targets is None else targets
        return torch.zeros_like(scores).scatter_(1, classes[:, None], 1.0).scatter_(1, other[:, None], -1.0)
    shares = _without(scores, aim).softmax(dim=1).scatter_(1, aim[:, None], -1.0)
    return shares if targets is not None else shares.neg_()


def logit_ratio(scores: Tensor, classes: Tensor, targets: Tensor | None = None) -> Tensor:
    """Return the margin over a difference of the largest scores, which no scaling of the scores changes.

    Raises ValueError where there are too few classes for the denominator: 3, or 4 with targets.
    """
    needed = 3 if targets is None else 4
    if scores.shape[1] < needed:
        raise ValueError(
            f"the logit ratio needs {needed} classes{' with targets' if needed == 4 else ''}, "
            f"the network has {scores.shape[1]}; use the margin"
        )
    largest = scores.topk(needed, dim=1).values
    below = largest[:, 2] if targets is None else (largest[:, 2] + largest[:, 3]) / 2
    return margin(scores, classes, targets) / (largest[:, 0] - below).clamp(min=LEAST_RATIO_DENOMINATOR)


def second_label(scores: Tensor, classes: Tensor) -> Tensor:
    """Return the class with the greatest score beside the own, `(batch, 1)`."""
    return _without(scores, classes).argmax(dim=1, keepdim=True)


def least_likely(scores: Tensor, classes: Tensor) -> Tensor:
    """Return the class with the least score beside the own, `(batch, 1)` (Kurakin et al. 2017)."""
    return _without(scores, classes, torch.inf).argmin(dim=1, keepdim=True)


def all_labels(scores: Tensor, classes: Tensor) -> Tensor:
    """Return every class beside the own, the greatest score first, `(batch, classes - 1)`."""
    return _without(scores, classes).argsort(dim=1, descending=True, stable=True)[:, :-1]


def nearest_labels(scores: Tensor, classes: Tensor) -> Tensor:
    """Return the first `NEAREST` of all labels, or all where there are fewer."""
    return all_labels(scores, classes)[:, :NEAREST]


def check_targets(classes: Tensor, targets: Tensor, count: int) -> None:
    """Raise ValueError if a target is the class to leave, or not one of `count` classes."""
    if targets.shape != classes.shape:
        raise ValueError(f"{len(targets)} target classes for {len(classes)} inputs")
    outside = torch.nonzero((targets < 0) | (targets >= count)).flatten().tolist()
    if outside:
        raise ValueError(
            f"input {outside[0]}: the target class is {int(targets[outside[0]])}, "
            f"but the network has classes 0 to {count - 1}"
        )
    same = torch.nonzero(targets == classes).flatten().tolist()
    if same:
        raise ValueError(
            f"input {same[0]}: the target class {int(targets[same[0]])} is the class it has already; "
            "name another, or none"
        )


def _odds(scores: Tensor, classes: Tensor) -> Tensor:
    """Return ln sum_{k != c} exp(z_k) - z_c."""
    return _without(scores, classes).logsumexp(dim=1) - _of(scores, classes)


def _of(scores: Tensor, classes: Tensor) -> Tensor:
    return scores.gather(1, classes[:, None]).squeeze(1)


def _without(scores: Tensor, classes: Tensor, value: float = -torch.inf) -> Tensor:
    return scores.scatter(1, classes[:, None], value)


LOSSES: dict[str, Loss] = {
    "margin": margin, "cross-entropy": cross_entropy, "log-probability": cross_entropy, "logit-ratio": logit_ratio,
}  # fmt: skip

# "any" aims at no class in particular.
TARGETS: dict[str, TargetChoice | None] = {
    "any": None,
    "second": second_label,
    "least-likely": least_likely,
    "nearest": nearest_labels,
    "all": all_labels,
}
