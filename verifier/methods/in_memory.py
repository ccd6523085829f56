"""A method asked about as many inputs of a batch at once as a device's memory holds.

Inputs that it does not hold alone stay open, with the reason, so that whatever comes after goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Protocol

import torch

from encoders.region import BallRegion
from verifier.answers import Answer, merged
from verifier.batch import Batch
from verifier.budget import Budget
from verifier.devices.parts import OUT_OF_MEMORY, in_parts
from verifier.methods.base import Method
from verifier.methods.paused import Paused

FULL = Answer.open(OUT_OF_MEMORY)


class Bracketing(Protocol):
    """A method, or an attack that brackets as one."""

    def bracket(
        self, batch: Batch, epsilons: Sequence[float], answers: Sequence[Answer], budget: Budget
    ) -> list[Answer]: ...


def decided(
    method: Method, batch: Batch, region: BallRegion, budget: Budget, paused: Paused | None = None
) -> list[Answer]:
    """Return what a method decides about regions; paused: of a batch of one, what it goes on with."""

    def work(part: slice) -> list[Answer]:
        if paused is not None:
            return method.go_on(batch, region, budget, paused)
        rows = _rows(batch, part)
        whole = len(rows) == len(batch)
        return method.decide(batch if whole else batch.at(rows), region if whole else region[rows], budget)

    return list(chain(*in_parts(work, len(batch), len(batch), lambda row: [FULL])))


def bracketed(
    method: Bracketing, batch: Batch, epsilons: Sequence[float], answers: Sequence[Answer], budget: Budget
) -> list[Answer]:
    """Return what a method brackets, after what answers say."""

    def work(part: slice) -> list[Answer]:
        rows = _rows(batch, part)
        own = batch if len(rows) == len(batch) else batch.at(rows)
        return method.bracket(own, epsilons, answers[part], budget)

    parts = in_parts(work, len(batch), len(batch), lambda row: merged([answers[row]], [0], [FULL]))
    return list(chain(*parts))


def _rows(batch: Batch, part: slice) -> torch.Tensor:
    return torch.arange(len(batch), device=batch.centres.device)[part]
