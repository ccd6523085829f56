"""The MWD layer as a torch module: what a user trains, with the formulas of the op of the same name."""

from typing import Literal

import torch
from torch import Tensor, nn

from encoders.layers.mwd_interval import pseudo_interval
from encoders.layers.mwd_kernels import weighted_distance
from encoders.layers.mwd_linear import linear_link, linear_mwd
from encoders.layers.mwd_unit import link, mwd

# Bounds that the paper keeps the parameters in (Agrawal et al. 2019, section 6).
WEIGHT_RANGE = (0.01, 3.0)
ATTRACTOR_RANGE = (0.0, 1.0)

UnitTypes = Literal["plain", "negated", "mixed"]
Link = Literal["gaussian", "linear"]


@torch.library.custom_op("encoders::mwd", mutates_args=())
def _exported_mwd(
    x: Tensor, u: Tensor, w: Tensor, negated: Tensor, bias: Tensor | None = None, linear: bool = False
) -> Tensor:
    """Stand for the layer in an exported graph, where the reader finds it by name."""
    z = weighted_distance(x, u, w)
    return linear_link(z, negated, bias) if linear else link(z * z, negated)


@_exported_mwd.register_fake
def _(x: Tensor, u: Tensor, w: Tensor, negated: Tensor, bias: Tensor | None = None, linear: bool = False) -> Tensor:
    return x.new_empty(x.shape[0], u.shape[0])


class Mwd(nn.Module):
    """A layer of units exp(-max_i (u_i (x_i - w_i))^2), some of them negated to one minus that.

    Parameters u and w have shape `(units, inputs)`; the mask `negated` `(units,)` is stored with the model.
    Start values: w uniform in [0, 1], u uniform in [0.2, 0.7], which trained far better than the whole range.
    pseudo_share and sharpness: of the gradients, see `mwd` (sharpness with the Gaussian link only).
    link `linear`: outputs bias - max_i u_i |x_i - w_i|, negated bias + that, with a trained bias that starts at 0.
    """

    negated: Tensor
    bias: nn.Parameter | None

    def __init__(
        self,
        inputs: int,
        units: int,
        types: UnitTypes = "plain",
        pseudo_share: float = 1.0,
        generator: torch.Generator | None = None,
        link: Link = "gaussian",
    ) -> None:
        super().__init__()
        if link not in ("gaussian", "linear"):
            raise ValueError(f"unknown link {link!r}; supported: gaussian, linear")
        self.pseudo_share = pseudo_share
        self.sharpness = 1.0
        self.w = nn.Parameter(torch.rand(units, inputs, generator=generator))
        self.u = nn.Parameter(0.2 + 0.5 * torch.rand(units, inputs, generator=generator))
        self.register_buffer("negated", unit_mask(units, types, generator))
        self.register_parameter("bias", nn.Parameter(torch.zeros(units)) if link == "linear" else None)

    def forward(self, x: Tensor) -> Tensor:
        """Return `(batch, units)` for x `(batch, inputs)`."""
        if torch.compiler.is_exporting():
            y: Tensor = _exported_mwd(x, self.u, self.w, self.negated, self.bias, self.bias is not None)
            return y
        if self.bias is not None:
            return linear_mwd(x, self.u, self.w, self.negated, self.bias, self.pseudo_share)
        return mwd(x, self.u, self.w, self.negated, self.pseudo_share, self.sharpness)

    def pseudo_interval(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """Return the ends of the outputs over boxes `(batch, inputs)`, with pseudogradients; for training only."""
        if self.bias is not None:
            raise TypeError("training on interval ends is built for the Gaussian link only")
        return pseudo_interval(lower, upper, self.u, self.w, self.negated, self.sharpness)

    @torch.no_grad()
    def clamp_parameters(self) -> None:
        """Move u and w into their ranges; call it after each optimiser step.

        With the linear link only u: outputs, hence the next layer's attractors, go beyond [0, 1] there.
        """
        self.u.clamp_(*WEIGHT_RANGE)
        if self.bias is None:
            self.w.clamp_(*ATTRACTOR_RANGE)


def unit_mask(units: int, types: UnitTypes, generator: torch.Generator | None = None) -> Tensor:
    """Return the mask of negated units: none, all, or each with probability one half."""
    masks = {
        "plain": torch.zeros(units, dtype=torch.bool),
        "negated": torch.ones(units, dtype=torch.bool),
        "mixed": torch.rand(units, generator=generator) < 0.5,
    }
    if types not in masks:
        raise ValueError(f"unknown unit types {types!r}; supported: {', '.join(masks)}")
    return masks[types]
