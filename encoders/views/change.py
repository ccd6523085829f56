"""What an op's value changes by, from one op at x to another at x + d, as a sum of ops of d and of x.

It is the same number as the difference of both values, in real arithmetic on the stored weights; but bounds of a sum of
such terms know what the two values share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

AnyOp = TypeVar("AnyOp")


@dataclass(frozen=True)
class Change(Generic[AnyOp]):
    """other(x + d) - self(x) = of_change(d) + the sum of of_value(x), or of_both(d, x) alone.

    of_change takes as many inputs as the op, and None stands for one that is never needed, as d is zero; of_both is of
    ops with one input.
    """

    of_change: AnyOp | None = None
    of_value: tuple[AnyOp, ...] = ()
    of_both: AnyOp | None = None
