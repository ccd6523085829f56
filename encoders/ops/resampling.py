"""An affine map between grids (Resize) whose weights no file stores: runtimes compute them anew, from coordinates."""

from dataclasses import dataclass

from encoders.ops.affine import Affine


@dataclass(frozen=True, eq=False)
class Resampling(Affine):
    """y = W x, W rounded once from exact coordinates.

    Runtimes round coordinates in float32 first, by an error of the size of the grid and not of the weight: so nothing
    is known of how far their executions lie from W x.
    """

    @property
    def bounds_execution(self) -> bool:
        return False
