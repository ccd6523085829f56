"""What ascent asks of a network of affine ops and hinges, whether it is held as matrices or as its ops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

# Hinge k's answer to what it reads, or to the cost of what it gives: both `(batch, units)`.
AtHinge = Callable[[int, Tensor], Tensor]


class AffineStage(Protocol):
    """What a hinge reads, or the output: an affine function of the input and of earlier hinges.

    source: the node whose value it is; size: how many of its values count; left: the slope left of zero of the hinge
    that reads it, else 1.
    """

    @property
    def source(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def left(self) -> float: ...


class HingeNetwork(Protocol):
    """The stages of all hinges in order, and the output's; all tensors of one dtype on one device.

    piece: how many subproblems are best worked on side by side; None: as many as there are.
    """

    @property
    def inputs(self) -> int: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def piece(self) -> int | None: ...
    @property
    def hinges(self) -> Sequence[AffineStage]: ...
    @property
    def output(self) -> AffineStage: ...

    def to(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> HingeNetwork:
        """Return the same in another dtype or on another device."""
        ...

    def in_units(self, units: Any, output: int) -> HingeNetwork:
        """Return the same in units of its values (`StageUnits`), its output in units of 2^output."""
        ...

    def outputs(self, points: Tensor) -> Tensor:
        """Return the outputs `(batch, outputs)` at flat points `(batch, inputs)`, differentiable."""
        ...

    def forward(self, stage: Any, points: Tensor, at_hinge: AtHinge) -> None:
        """Carry flat points through the hinges before a stage; hinge k gives what `at_hinge` does of what it reads."""
        ...

    def back(self, stage: Any, rows: Tensor, at_hinge: AtHinge) -> tuple[Tensor, Tensor]:
        """Return (constants `(batch,)`, costs `(batch, inputs)` of the inputs) of rows `(batch, values)` of a stage.

        `at_hinge` takes the cost of what hinge k gives to the cost of what it reads.
        """
        ...
