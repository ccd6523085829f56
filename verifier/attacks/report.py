"""What an attack did, beside the points it found: outputs asked for, gradients that vanished.

A report belongs to the inputs of one search. Searches over some of its rows write into the same tensors, so that
attacks made of attacks need no bookkeeping.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Report:
    """Counts and masks over the inputs of a search; `rows` are those that this view writes to.

    queries: how often outputs were asked for without a gradient, int64. gradients: forward passes followed by a
    backward pass, int64. tested, vanishing: for which inputs a gradient was looked at, and where it was zero in
    every coordinate that can move.
    """

    queries: Tensor
    gradients: Tensor
    tested: Tensor
    vanishing: Tensor
    rows: Tensor

    @staticmethod
    def empty(count: int, device: torch.device) -> Report:
        """Return the report of a search over `count` inputs that has not begun."""
        zeros = torch.zeros(count, dtype=torch.int64, device=device)
        rows = torch.arange(count, device=device)
        return Report(zeros, zeros.clone(), zeros.bool(), zeros.bool(), rows)

    def at(self, rows: Tensor) -> Report:
        """Return the view of the given rows (an index tensor) of this view."""
        return Report(self.queries, self.gradients, self.tested, self.vanishing, self.rows[rows])

    def count_queries(self, rows: Tensor | slice, number: int = 1) -> None:
        """Add `number` evaluations without a gradient for each of the given rows of this view."""
        where = self.rows[rows]
        self.queries.index_add_(0, where, torch.full_like(where, number))

    def count_gradients(self, rows: Tensor | slice, numbers: Tensor | None = None) -> None:
        """Add evaluations with a gradient for each of the given rows of this view: one, or `numbers` (int64)."""
        where = self.rows[rows]
        self.gradients.index_add_(0, where, torch.ones_like(where) if numbers is None else numbers)

    def note_gradient(self, rows: Tensor | slice, vanishing: Tensor) -> None:
        """Take in whether the gradient of the given rows of this view vanishes; an earlier answer stays."""
        where = self.rows[rows]
        fresh = ~self.tested[where]
        self.vanishing[where] = torch.where(fresh, vanishing, self.vanishing[where])
        self.tested[where] = True

    @contextlib.contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """Have what is written inside count only if nothing is raised."""
        kept = (self.queries, self.gradients, self.tested, self.vanishing)
        before = [values.clone() for values in kept]
        try:
            yield
        except BaseException:
            for values, earlier in zip(kept, before, strict=True):
                values.copy_(earlier)
            raise
