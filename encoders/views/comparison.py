"""How the outputs of an op compare with that of a reference class, over boxes of its inputs."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from encoders.box import Box


@dataclass(frozen=True, eq=False)
class Comparison:
    """How a reference class c compares with every class k over a box; masks `(batch, classes)`.

    wins: y_c > y_k on the whole box. loses: y_c <= y_k on the whole box. Both are proofs in real arithmetic;
    column c itself counts as won.
    """

    wins: Tensor
    loses: Tensor

    @classmethod
    def of(cls, wins: Tensor, loses: Tensor, classes: Tensor) -> Comparison:
        """Return the masks with the columns of `classes` `(batch,)` themselves as they should be."""
        own = functional.one_hot(classes, wins.shape[1]).bool()
        return cls(wins | own, loses & ~own)

    @classmethod
    def of_values(cls, values: Box, classes: Tensor) -> Comparison:
        """Return what boxes `(batch, classes)` of values in the order of the outputs prove."""
        wins = values.lower.gather(1, classes[:, None]) > values.upper
        loses = values.upper.gather(1, classes[:, None]) <= values.lower
        return cls.of(wins, loses, classes)
