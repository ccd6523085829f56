"""The rest of a search over boxes of inputs in compiled loops: boxes that wait, handed over, and points tried."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from verifier.bounds.inputs.boxes import InputBoxes
from verifier.bounds.inputs.chain import Chain
from verifier.bounds.inputs.compiled_tree import grown
from verifier.budget import Budget

# Seconds that compiling may take, once on a machine: a shorter limit of time is kept by not doing so.
COMPILING = 60.0
# Boxes of the first call; seconds that one takes from then on, so that limits of time are kept.
FIRST_CALL, CALL_SECONDS = 256, 0.1
# Boxes without a middle that may stay open. One rules a proof out, and the newest boxes are the first: a single edge of
# ties has many of them, beside which a counterexample may lie.
MOST_THIN = 1024
# Points that are unsafe in floats and no counterexamples before no more are tried.
MOST_POINTS = 64
# Rows that boxes may wait in, beyond those that are handed over, before there is more room.
ROOM = 256


Attack = Callable[[Tensor], bool]
Report = Callable[[], None]


def may_compile(budget: Budget) -> bool:
    """Return whether the loops are ready, on disk, or a time limit leaves time to compile them."""
    place, kept = grown.stats.cache_path, f"compiled_tree.{grown.py_func.__qualname__}-*.nbi"
    return budget.remaining > COMPILING or (place is not None and any(Path(place).glob(kept)))


@dataclass
class CompiledSearch:
    """Boxes of a chain that wait: `(room, width)`, of which `waiting` are in use. See `compiled_tree`."""

    chain: Chain
    boxes: NDArray[np.float64]
    waiting: int
    bounded: int = 0
    thin: int = 0
    tried: int = 0
    point: NDArray[np.float64] = field(init=False)
    least_thin: NDArray[np.float64] = field(default_factory=lambda: np.array([np.inf]))

    def __post_init__(self) -> None:
        self.point = np.empty(int(self.chain.layers.sizes[0]))

    @classmethod
    def of(cls, chain: Chain, boxes: InputBoxes) -> CompiledSearch:
        """Return the search that starts from boxes; the last ones come first."""
        inputs, rows, units = int(chain.layers.sizes[0]), int(chain.layers.sizes[-1]), len(chain.least)
        table = np.zeros((len(boxes) + ROOM, 2 * (inputs + units) + rows * (inputs + 1) + 2))
        table[: len(boxes), :inputs] = boxes.lower.numpy()
        table[: len(boxes), inputs : 2 * inputs] = boxes.upper.numpy()
        table[: len(boxes), 2 * inputs : 2 * inputs + units] = chain.least
        table[: len(boxes), 2 * inputs + units : 2 * (inputs + units)] = chain.greatest
        table[: len(boxes), -1] = boxes.bounds.nan_to_num(-np.inf, np.inf, -np.inf).numpy()
        return cls(chain, table, len(boxes))

    @property
    def least(self) -> float:
        """The least bound of the boxes that wait or have no middle; infinite where there are none."""
        waiting = self.boxes[: self.waiting, -1]
        return min(float(self.least_thin[0]), float(waiting.min(initial=np.inf)))

    def run(self, attack: Attack, budget: Budget, most_boxes: int, report: Callable[[], None]) -> bool:
        """Bound and halve until no box waits or a limit is met; true once the attack takes a point `(1, inputs)`.

        report: called after each piece of work.
        """
        most = FIRST_CALL
        while self.waiting and self.bounded < most_boxes and self.thin < MOST_THIN and not budget.exhausted:
            started = time.monotonic()
            tries = self.tried < MOST_POINTS
            self.waiting, bounded, thin, unsafe = grown(
                self.chain.layers,
                self.boxes,
                self.waiting,
                min(most, most_boxes - self.bounded),
                tries,
                self.point,
                self.least_thin,
            )
            self.bounded, self.thin, self.tried = self.bounded + bounded, self.thin + thin, self.tried + int(unsafe)
            report()
            if unsafe and attack(torch.from_numpy(self.point.copy())[None]):
                return True
            if self.waiting + 2 > len(self.boxes):
                self.boxes = np.concatenate([self.boxes, np.zeros_like(self.boxes)])
            if bounded == most:
                most = max(1, min(2 * most, int(most * CALL_SECONDS / max(time.monotonic() - started, 1e-6))))
        return False
