"""Layers whose weights are drawn: each draw is an ordinary layer, and every view is that of the mean.

y = E[W] x + E[b]: of this layer the expected value, of a network of several layers not.
"""

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from encoders.ops.linear import WeightedSum


@dataclass(frozen=True, eq=False)
class RandomLayer(WeightedSum):
    """A layer beside an ordinary one: a class below this one, then below the class of its draws, whose fields it has.

    ordinary: the class of its draws.
    """

    randomised = True
    ordinary: ClassVar[type[WeightedSum]]

    @cached_property
    def mean(self) -> WeightedSum:
        """The ordinary layer of the mean weights."""
        names = (field.name for field in dataclasses.fields(self.ordinary))
        return self.ordinary(**{name: getattr(self, name) for name in names})
