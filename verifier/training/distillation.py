"""Defensive distillation: a student learns what a teacher of the same temperature says (Papernot et al. 2016).

With scores z of the network in training, v of the teacher, and a temperature T (their section III and equation 5)

    teacher   -log softmax(z / T)_y                                    the labels are the classes
    student   -sum over k of softmax(v / T)_k log softmax(z / T)_k     the labels are what the teacher says

Both are used at temperature 1, where scores are about T times as large: a softmax in float32 then says 1, and the
gradient of its loss is exactly 0. That hides gradients and is no robustness (Carlini, Wagner 2017, section VIII): what
descends on scores does not meet it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from encoders import read_network
from encoders.network import Network


@dataclass(frozen=True, eq=False)
class Distilled:
    """The loss at a temperature, by the labels of a teacher or, without one, by the classes."""

    temperature: float
    teacher: Network | None = None

    def __repr__(self) -> str:
        digest = None if self.teacher is None else self.teacher.digest
        return f"Distilled({self.temperature}, {digest})"

    def __call__(self, module: nn.Module, x: Tensor, y: Tensor, progress: float) -> Iterator[Tensor]:
        """Yield the loss of the batch; ValueError where the teacher takes other inputs or knows other classes."""
        scores = module(x) / self.temperature
        yield functional.cross_entropy(scores, y if self.teacher is None else self._labels(x, scores.shape[1]))

    def _labels(self, x: Tensor, classes: int) -> Tensor:
        assert self.teacher is not None
        theirs, ours = (*self.teacher.input_shape, *self.teacher.output_shape), (*x.shape[1:], classes)
        if theirs != ours:
            raise ValueError(
                f"--teacher {self.teacher.source}: its input and output have the sizes {theirs}, those of the network "
                f"to train are {ours}; train the teacher by the same command without --teacher"
            )
        with torch.no_grad():
            scores = self.teacher.cast(x.dtype, x.device).scores(x)
        return functional.softmax(scores / self.temperature, dim=1)


def read_teacher(path: str | Path | None) -> Network | None:
    """Return the network of a file, None for no file; ValueError where it is randomised: a teacher says one thing."""
    if path is None:
        return None
    teacher = read_network(path)
    if teacher.randomised:
        raise ValueError(f"--teacher {path} has random ops; distillation takes an ordinary network")
    return teacher
