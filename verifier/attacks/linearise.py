"""First-order models of the class margins around points: the input of every linearising attack.

margin_k(x + r) ~ margin_k + <g_k, r> with margin_k = score_c - score_k and g_k its gradient. All rows come from one
forward pass and one batched backward pass.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.attacks.halfspace import dual_lengths
from verifier.attacks.source import Source, has_pseudogradient

# Elements of the gradients that one backward pass makes; more classes are worked off in chunks (128 MiB of float32).
CHUNK_ELEMENTS = 1 << 25


@dataclass(frozen=True, eq=False)
class Linearisation:
    """Models at points, m of them each, the least margin first.

    scores: `(batch, classes)`; others: the classes k, `(batch, m)`; margins: what has to become negative,
    `(batch, m)`; gradients: of the margins, `(batch, m, n)` over flattened inputs.
    """

    scores: Tensor
    others: Tensor
    margins: Tensor
    gradients: Tensor

    def vanishing(self) -> Tensor:
        """Return a mask `(batch,)`: where every gradient is zero."""
        return (self.gradients == 0).flatten(1).all(dim=1)

    def nearest_boundary(self, norm: str) -> tuple[Tensor, Tensor]:
        """Return (margin `(batch,)`, gradient `(batch, n)`) of the boundary with the least |margin| / dual norm."""
        size = dual_lengths(self.gradients, norm)
        away = torch.where(size > 0, self.margins.abs() / size, torch.inf)
        nearest = away.argmin(dim=1)
        rows = torch.arange(len(nearest), device=nearest.device)
        return self.margins[rows, nearest], self.gradients[rows, nearest]


def linearise(
    source: Source, x: Tensor, classes: Tensor, targets: Tensor | None = None, candidates: int | None = None
) -> Linearisation:
    """Return the models at points x `(batch, *shape)` for the `candidates` best other classes (None: all).

    With targets t there is one model: that of max_{k != t} score_k - score_t.
    """
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        scores = source.scores(x)
        if targets is None:
            count = scores.shape[1] - 1 if candidates is None else min(candidates, scores.shape[1] - 1)
            others = scores.detach().scatter(1, classes[:, None], -torch.inf).topk(count, dim=1).indices
            margins = scores.gather(1, classes[:, None]) - scores.gather(1, others)
        else:
            others = targets[:, None]
            rivals = scores.scatter(1, others, -torch.inf).amax(dim=1, keepdim=True)
            margins = rivals - scores.gather(1, others)
    # The backward pass of an MWD layer writes in place, which torch's vmap refuses.
    several = margins.shape[1] > 1 and not has_pseudogradient(source.network)
    rows = _batched(margins, x) if several else _one_by_one(margins, x)
    return Linearisation(scores.detach(), others, margins.detach(), rows)


def _batched(values: Tensor, x: Tensor) -> Tensor:
    """Return the gradients `(batch, m, n)` of values `(batch, m)`, many rows in one backward pass."""
    batch, count = values.shape
    chunk = max(1, min(count, CHUNK_ELEMENTS // max(1, x.numel())))
    identity = torch.eye(count, dtype=values.dtype, device=values.device)[:, None, :]
    parts = []
    for start in range(0, count, chunk):
        basis = identity[start : start + chunk].expand(-1, batch, -1)
        going_on = start + chunk < count
        (part,) = torch.autograd.grad(values, x, basis, is_grads_batched=True, retain_graph=going_on)
        parts.append(part.flatten(2))
    return torch.cat(parts).transpose(0, 1)


def _one_by_one(values: Tensor, x: Tensor) -> Tensor:
    count = values.shape[1]
    rows = [torch.autograd.grad(values[:, k].sum(), x, retain_graph=k < count - 1)[0] for k in range(count)]
    return torch.stack(rows, dim=1).flatten(2)
