"""Votes of draws of a randomised network, and what breaks one.

The *vote* at a point is the class that most draws give it: with p_k the probability of class k over draws, the class of
the greatest p_k. No number of draws shows p, so a vote is broken, kept or open at a confidence, by the test of Hung and
Fithian 2019 (as Cohen, Rosenfeld, Kolter 2019 predict): some draws choose the strongest rival k of the class c; among
other draws that give c or k, k comes up in a binomial number of trials of probability p_k / (p_c + p_k). The vote

    is broken    where the Clopper-Pearson interval of that probability lies above 1/2: p_k > p_c
    is kept      where it lies below 1/2 against every rival, chosen or not: p_c > p_k for all k (where c is not the
                 vote, one of these tests errs, so that no more confidence is asked of each)
    is open      elsewhere.

Each is wrong with a probability of at most 1 - confidence, at one point and for draws that are independent of the
point: not those on which an attack found it, whose seeds give others (`STREAM`). A broken vote is no proof in the sense
of the other commands.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from encoders.network import Network
from verifier.metrics import clopper_pearson

# What the vote at a point is said to be.
BROKEN, OPEN, KEPT = -1, 0, 1
# Added to seeds: attacks over draws start from the seeds themselves. Torch reads the lower 32 bits of a seed.
STREAM = 1 << 31


@dataclasses.dataclass(frozen=True, eq=False)
class Votes:
    """What draws said at points. choosing, deciding: how many of some draws and of others gave each class.

    Both `(batch, classes)`, on the device of the points. A draw whose outputs are not finite gives none.
    """

    choosing: Tensor
    deciding: Tensor

    @property
    def winners(self) -> Tensor:
        """The class `(batch,)` that most draws gave, the first of equal ones."""
        return (self.choosing + self.deciding).argmax(dim=1)

    def share(self, classes: Tensor) -> float:
        """Return the mean share of single draws that gave classes `(batch,)`."""
        counts = self.choosing + self.deciding
        draws = max(1, int(counts.sum(dim=1).max()))
        return float(counts.gather(1, classes[:, None]).double().mean()) / draws

    def outcomes(self, classes: Tensor, confidence: float = 0.95) -> Tensor:
        """Return BROKEN, OPEN or KEPT `(batch,)` of the votes for classes `(batch,)`."""
        others = self.choosing.scatter(1, classes[:, None], -1)
        found = torch.full_like(classes, OPEN)
        for row, (own, chosen) in enumerate(zip(classes.tolist(), others.argmax(dim=1).tolist(), strict=True)):
            counts = self.deciding[row].tolist()
            rivals = {k: (n, n + counts[own]) for k, n in enumerate(counts) if k != own and n + counts[own]}
            ends = {k: clopper_pearson(theirs, both, confidence) for k, (theirs, both) in rivals.items()}
            if chosen in ends and ends[chosen][0] > 0.5:
                found[row] = BROKEN
            elif len(ends) == len(counts) - 1 and all(upper < 0.5 for _, upper in ends.values()):
                found[row] = KEPT
        return found


def votes_at(network: Network, points: Tensor, draws: int, seed: int) -> Votes:
    """Return the votes of so many draws at points `(batch, *input_shape)`; a quarter of them choose the rivals.

    The draws follow from the seed, the same for all points. Raises ValueError as `check_vote` does.
    """
    check_vote(network, draws)
    generator = torch.Generator().manual_seed(seed + STREAM)
    classes = network.output_shape[0]
    counts = [torch.zeros(len(points), classes, dtype=torch.int64, device=points.device) for _ in range(2)]
    with torch.no_grad():
        for number in range(draws):
            outputs = network.draw(generator).scores(points)
            rows = outputs.isfinite().all(dim=1).nonzero().squeeze(1)
            counts[number >= draws // 4][rows, outputs[rows].argmax(dim=1)] += 1
    return Votes(*counts)


def check_vote(network: Network, draws: int) -> None:
    """Raise ValueError unless the network is randomised and draws is at least 4."""
    if not network.randomised:
        raise ValueError(f"{network.source} has no random op, so that all its draws are alike: ask for no vote")
    if draws < 4:
        raise ValueError(f"a vote takes at least 4 draws, got {draws}")
