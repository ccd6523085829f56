"""The convolutional MWD layer as a torch module, with the formulas of the op of the same name."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from encoders.layers.mwd import ATTRACTOR_RANGE, WEIGHT_RANGE, UnitTypes, unit_mask
from encoders.layers.mwd_interval import pseudo_interval
from encoders.layers.mwd_kernels import weighted_distance
from encoders.layers.mwd_unit import link, mwd
from encoders.layers.mwd_windows import crop, over_windows, spans


@torch.library.custom_op("encoders::mwd_conv2d", mutates_args=())
def _exported_mwd_conv2d(
    x: Tensor, u: Tensor, w: Tensor, negated: Tensor, stride: Sequence[int], padding: Sequence[int]
) -> Tensor:
    """Stand for the layer in an exported graph, where the reader finds it by name; padding: (vertical, horizontal)."""

    def layer(rows: slice, columns: slice, windows: Sequence[Tensor]) -> Sequence[Tensor]:
        z = weighted_distance(windows[0], crop(u, rows, columns), crop(w, rows, columns))
        return [link(z * z, negated)]

    vertical, horizontal = _pair(padding)
    sides = (vertical, horizontal, vertical, horizontal)
    return over_windows([x], (u.shape[2], u.shape[3]), _pair(stride), sides, layer)[0].contiguous()


@_exported_mwd_conv2d.register_fake
def _(x: Tensor, u: Tensor, w: Tensor, negated: Tensor, stride: Sequence[int], padding: Sequence[int]) -> Tensor:
    sizes = [
        sum(span.count for span in spans(int(x.shape[2 + k]), int(u.shape[2 + k]), stride[k], padding[k], padding[k]))
        for k in (0, 1)
    ]
    return x.new_empty(x.shape[0], u.shape[0], *sizes)


class MwdConv2d(nn.Module):
    """MWD units slid over images `(batch, channels, height, width)`: the dense layer with tied weights.

    Parameters u and w have shape `(units, channels, rows, columns)`, started as those of `Mwd`. Padded places take
    no part in the maximum, as if u were 0 there; padding must be smaller than the kernel.
    """

    negated: Tensor

    def __init__(
        self,
        channels: int,
        units: int,
        kernel: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        types: UnitTypes = "plain",
        pseudo_share: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = _both(kernel), _both(stride), _both(padding)
        if min(self.kernel) < 1 or min(self.stride) < 1:
            raise ValueError(f"kernel and stride must be positive, got {kernel} and {stride}")
        if not all(0 <= p < k for p, k in zip(self.padding, self.kernel, strict=True)):
            raise ValueError(f"padding must be smaller than the kernel {self.kernel} and not negative, got {padding}")
        self.pseudo_share = pseudo_share
        self.sharpness = 1.0
        self.w = nn.Parameter(torch.rand(units, channels, *self.kernel, generator=generator))
        self.u = nn.Parameter(0.2 + 0.5 * torch.rand(units, channels, *self.kernel, generator=generator))
        self.register_buffer("negated", unit_mask(units, types, generator))

    def forward(self, x: Tensor) -> Tensor:
        """Return `(batch, units, rows, columns)`."""
        if torch.compiler.is_exporting():
            y: Tensor = _exported_mwd_conv2d(x, self.u, self.w, self.negated, self.stride, self.padding)
            return y

        def layer(rows: slice, columns: slice, windows: Sequence[Tensor]) -> Sequence[Tensor]:
            u, w = crop(self.u, rows, columns), crop(self.w, rows, columns)
            return [mwd(windows[0], u, w, self.negated, self.pseudo_share, self.sharpness)]

        return over_windows([x], self.kernel, self.stride, (*self.padding, *self.padding), layer)[0]

    def pseudo_interval(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """Return the ends of the outputs over boxes of images, with pseudogradients behind both; for training only."""

        def layer(rows: slice, columns: slice, windows: Sequence[Tensor]) -> Sequence[Tensor]:
            u, w = crop(self.u, rows, columns), crop(self.w, rows, columns)
            return pseudo_interval(windows[0], windows[1], u, w, self.negated, self.sharpness)

        ends = over_windows([lower, upper], self.kernel, self.stride, (*self.padding, *self.padding), layer)
        return ends[0], ends[1]

    @torch.no_grad()
    def clamp_parameters(self) -> None:
        """Move u and w into their ranges; call it after each optimiser step."""
        self.u.clamp_(*WEIGHT_RANGE)
        self.w.clamp_(*ATTRACTOR_RANGE)


def _both(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _pair(values: Sequence[int]) -> tuple[int, int]:
    return int(values[0]), int(values[1])
