"""The l_inf-distance layer in training: an MWD layer of slopes 1 and linear link whose norm may be a p-norm meanwhile.

    hidden   z - mean of z over the batch; in evaluation the running mean, kept as minus the bias
    last     bias - z

(Zhang, Cai, Lu, He, Wang 2021, section 4: mean shift in place of batch statistics, which would rescale.) A layer
changes by at most as much as its input in the inf-norm, whatever its weights. In evaluation it *is* the MWD layer:
exported, read, bounded and certified as such.
"""

import torch
from torch import Tensor, nn

from encoders.layers.mwd import Mwd
from encoders.layers.mwd_linear import distance
from encoders.layers.mwd_power import power_distance

# How fast the running mean follows.
MOMENTUM = 0.1
# Of first attractors, about the deviation of MNIST's pixels; and, in these units, how far the own coordinate of a unit
# lies away, so that what comes in passes on unchanged but for a constant.
SPREAD, OWN = 0.3, 10.0


class Distance(Mwd):
    """A layer of units max_i |x_i - w_i|, `(batch, inputs)` to `(batch, units)`.

    squarings: in training, log2 of the p of the norm; None for the inf-norm, with true gradients. Slopes are fixed at
    1, and no gradient moves the bias of hidden layers.
    """

    def __init__(self, inputs: int, units: int, last: bool) -> None:
        super().__init__(inputs, units, "plain" if last else "negated", 0.0, link="linear")
        assert self.bias is not None
        self.last = last
        self.squarings: int | None = None
        self.u.requires_grad_(False)
        self.bias.requires_grad_(last)
        with torch.no_grad():
            self.u.fill_(1.0)
            nn.init.normal_(self.w, std=SPREAD)
            if inputs <= units:
                own = torch.arange(units)
                self.w[own, own % inputs] = -OWN * SPREAD

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs; in training those of the p-norm, shifted by the batch's mean."""
        assert self.bias is not None
        if not self.training:
            return super().forward(x)
        squarings = self.squarings
        z = distance(x, self.u, self.w, 0.0) if squarings is None else power_distance(x, self.w, squarings)
        if self.last:
            return self.bias - z
        mean = z.mean(dim=0)
        with torch.no_grad():
            self.bias.mul_(1.0 - MOMENTUM).sub_(MOMENTUM * mean)
        return z - mean
