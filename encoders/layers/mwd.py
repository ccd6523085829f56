"""The MWD layer as a torch module: what a user trains, with the formulas of the op of the same name."""

from typing import Literal

import torch
from torch import Tensor, nn

from encoders.layers.mwd_kernels import weighted_distance
from encoders.layers.mwd_unit import link, mwd

# Bounds that the paper keeps the parameters in (Agrawal et al. 2019, section 6).
WEIGHT_RANGE = (0.01, 3.0)
ATTRACTOR_RANGE = (0.0, 1.0)

UnitTypes = Literal["plain", "negated", "mixed"]


@torch.library.custom_op("encoders::mwd", mutates_args=())
def _exported_mwd(x: Tensor, u: Tensor, w: Tensor, negated: Tensor) -> Tensor:
    """Stand for the layer in an exported graph, where the reader finds it by name."""
    z = weighted_distance(x, u, w)
    return link(z * z, negated)


@_exported_mwd.register_fake
def _(x: Tensor, u: Tensor, w: Tensor, negated: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], u.shape[0])


class Mwd(nn.Module):
    """A layer of units exp(-max_i (u_i (x_i - w_i))^2), some of them negated to one minus that.

    Parameters u and w have shape `(units, inputs)`; the mask `negated` `(units,)` is stored with the model.
    Start values: w uniform in [0, 1], u uniform in [0.2, 0.7], which trained far better than the whole range.
    """

    negated: Tensor

    def __init__(
        self,
        inputs: int,
        units: int,
        types: UnitTypes = "plain",
        pseudo_share: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.pseudo_share = pseudo_share
        self.w = nn.Parameter(torch.rand(units, inputs, generator=generator))
        self.u = nn.Parameter(0.2 + 0.5 * torch.rand(units, inputs, generator=generator))
        negated = {
            "plain": torch.zeros(units, dtype=torch.bool),
            "negated": torch.ones(units, dtype=torch.bool),
            "mixed": torch.rand(units, generator=generator) < 0.5,
        }
        if types not in negated:
            raise ValueError(f"unknown unit types {types!r}; supported: {', '.join(negated)}")
        self.register_buffer("negated", negated[types])

    def forward(self, x: Tensor) -> Tensor:
        """Return `(batch, units)` for x `(batch, inputs)`."""
        if torch.compiler.is_exporting():
            y: Tensor = _exported_mwd(x, self.u, self.w, self.negated)
            return y
        return mwd(x, self.u, self.w, self.negated, self.pseudo_share)

    @torch.no_grad()
    def clamp_parameters(self) -> None:
        """Move u and w into their ranges; call it after each optimiser step."""
        self.u.clamp_(*WEIGHT_RANGE)
        self.w.clamp_(*ATTRACTOR_RANGE)
