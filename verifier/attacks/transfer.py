"""Transfer: points found on another network (Papernot et al. 2017), which the searched one only judges."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from encoders.network import Network
from verifier.attacks.base import Attack, Search


@dataclass(frozen=True)
class Transfer(Attack):
    """Settings: the surrogate, and the attack on it. Supports the norms of that attack.

    Raises ValueError if the surrogate takes other inputs or has another number of classes.
    """

    norms: ClassVar[tuple[str, ...]] = ("inf", "2", "1")
    needs_gradient: ClassVar[bool] = False

    surrogate: Network
    attack: Attack

    def propose(self, search: Search) -> Tensor:
        """Return what the attack proposes for the surrogate; evaluations of the surrogate are not reported."""
        check_surrogate(self.surrogate, search.network)
        elsewhere = Search(self.surrogate, search.region, search.classes, search.seeds, search.budget, search.targets)
        return self.attack.run(elsewhere).points


def check_surrogate(surrogate: Network, network: Network) -> None:
    """Raise ValueError if the surrogate takes other inputs, or has another number of classes."""
    for what in ("input_shape", "output_shape"):
        there, here = getattr(surrogate, what), getattr(network, what)
        if tuple(there) != tuple(here):
            raise ValueError(f"the surrogate's {what.replace('_', ' ')} is {tuple(there)}, the network's {tuple(here)}")
