"""The odds are odd (Roth, Kilcher, Hofmann 2019): perturbed inputs shift otherwise under noise than clean ones.

For x of predicted class t and noise n, the shift of the log odds against class i (equation 6) and its z-score (8):

    g_i(x) = mean over n of [f_i(x + n) - f_t(x + n)] - [f_i(x) - f_t(x)],   z_i = (g_i - mean_ti) / deviation_ti,

with the mean and deviation of clean inputs of class t, for each pair and kind of noise. x is flagged where the greatest
z_i over i != t and all noises reaches a threshold, and the class of that z_i is the corrected one.

Departures: one threshold for all pairs instead of one each, the ceil((m + 1)(1 - rate))-th smallest score of m clean
inputs that gave no statistics, so that a clean input like these is flagged with a probability of at most `rate`. Noise
belongs to inputs: scores do not depend on how inputs are grouped. A statistic of clean inputs finds, and never proves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from encoders.network import Network
from verifier.attacks.randomness import as_seeds, uniform

KINDS = ("normal", "uniform", "sign")
# Inputs that are evaluated together.
ROWS = 500


@dataclass(frozen=True)
class Noise:
    """Independent noise of each coordinate: N(0, size^2), uniform in [-size, size], or size with either sign."""

    kind: str
    size: float

    def __post_init__(self) -> None:
        if self.kind not in KINDS or not 0.0 < self.size < math.inf:
            raise ValueError(f"noise is one of {', '.join(KINDS)} and a positive size, got {self.kind} of {self.size}")

    def at(self, seeds: Tensor, stream: int, count: int) -> Tensor:
        """Return the noise `(batch, count)` float64 of the inputs of some seeds."""
        unit = 2.0 * uniform(seeds, stream, count) - 1.0
        if self.kind == "sign":
            return self.size * unit.sign()
        return self.size * (math.sqrt(2.0) * torch.erfinv(unit) if self.kind == "normal" else unit)


@dataclass(frozen=True, eq=False)
class Odds:
    """A fitted detector. mean, deviation: `(noises, classes, classes)` float64, [predicted, other]; clip: the domain.

    profile: `(classes, classes)` float64, the mean log odds of clean inputs, for attacks that know the detector.
    samples: draws of each noise; threshold: scores of it and above are flagged; rate: of false positives, as asked for.
    digest: of the network it was fitted to.
    """

    noises: tuple[Noise, ...]
    samples: int
    clip: tuple[float, float] | None
    mean: Tensor
    deviation: Tensor
    profile: Tensor
    threshold: float
    rate: float
    digest: str

    def __post_init__(self) -> None:
        shape = (len(self.noises), *self.mean.shape[-1:] * 2)
        shapes = {tuple(self.mean.shape), tuple(self.deviation.shape), (len(self.noises), *self.profile.shape)}
        if not self.noises or self.samples < 1 or shapes != {shape}:
            raise ValueError(f"statistics of shape {tuple(self.mean.shape)} do not fit {len(self.noises)} noises")

    def scores(self, network: Network, x: Tensor, seeds: Sequence[int]) -> Scores:
        """Return what the detector says of inputs x `(batch, *input_shape)`; seeds: of their noise."""
        predicted, found = shifts(network, x, seeds, self.noises, self.samples, self.clip)
        return self.of_shifts(predicted, found)

    def of_shifts(self, predicted: Tensor, found: Tensor) -> Scores:
        """Return the same from shifts `(batch, noises, classes)`."""
        z = (found - self.mean[:, predicted].movedim(0, 1)) / self.deviation[:, predicted].movedim(0, 1)
        own = torch.nn.functional.one_hot(predicted, z.shape[2]).bool().unsqueeze(1)
        greatest = z.masked_fill(own, -torch.inf).amax(dim=1)
        score, other = greatest.max(dim=1)
        # What is no number is no clean input's.
        flagged = ~(score < self.threshold)
        return Scores(predicted, score, flagged, torch.where(flagged, other, predicted))


@dataclass(frozen=True, eq=False)
class Scores:
    """Of each input `(batch,)`: predicted class, greatest z-score, whether it is flagged, and the corrected class."""

    predicted: Tensor
    score: Tensor
    flagged: Tensor
    corrected: Tensor


def shifts(
    network: Network, x: Tensor, seeds: Sequence[int], noises: Sequence[Noise], samples: int,
    clip: tuple[float, float] | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return (predicted classes `(batch,)`, mean shifts g `(batch, noises, classes)` float64), that of the class 0."""
    parts = []
    with torch.no_grad():
        for rows in torch.arange(len(x)).split(ROWS):
            points, own_seeds = x[rows], as_seeds([seeds[row] for row in rows.tolist()], x.device)
            clean = _odds(network, points, None)
            found = [torch.zeros_like(clean[1]) for _ in noises]
            for number, noise in enumerate(noises):
                for sample in range(samples):
                    moved = points + noise.at(own_seeds, number * samples + sample, points[0].numel()).reshape(
                        points.shape
                    ).to(points)
                    moved = moved if clip is None else moved.clamp(*clip)
                    found[number] += (_odds(network, moved, clean[0])[1] - clean[1]) / samples
            parts.append((clean[0], torch.stack(found, dim=1)))
    if not parts:
        raise ValueError("there are no inputs to measure")
    predicted, measured = (torch.cat(column) for column in zip(*parts, strict=True))
    return predicted, measured


def _odds(network: Network, x: Tensor, classes: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return (classes, their log odds f_i - f_t); classes None: those that the network predicts."""
    scores = network.scores(x).double()
    classes = scores.argmax(dim=1) if classes is None else classes
    return classes, scores - scores.gather(1, classes[:, None])


def fit(
    network: Network, x: Tensor, seeds: Sequence[int], noises: Sequence[Noise], samples: int, rate: float,
    clip: tuple[float, float] | None,
) -> Odds:  # fmt: skip
    """Return the detector of clean inputs x, statistics of every other one and the threshold of the rest.

    Raises ValueError where a class has fewer than two of the former, or the latter are too few for the rate.
    """
    if not 0.0 < rate < 1.0:
        raise ValueError(f"a false-positive rate lies between 0 and 1, got {rate}")
    predicted, found = shifts(network, x, seeds, noises, samples, clip)
    classes = found.shape[2]
    first, counts = found[::2], torch.bincount(predicted[::2], minlength=classes)
    if int(counts.min()) < 2:
        raise ValueError(
            f"class {int(counts.argmin())} is predicted for {int(counts.min())} of {len(first)} inputs; statistics of "
            "a class need 2: give more inputs"
        )
    groups = [first[predicted[::2] == each] for each in range(classes)]
    mean = torch.stack([group.mean(dim=0) for group in groups], dim=1)
    deviation = torch.stack([group.std(dim=0) for group in groups], dim=1)
    deviation = deviation.clamp(min=torch.finfo(torch.float64).tiny)
    with torch.no_grad():
        odds = torch.cat([_odds(network, part, None)[1] for part in x.split(ROWS)])
    profile = torch.stack([odds[predicted == each].mean(dim=0) for each in range(classes)])
    unset = Odds(tuple(noises), samples, clip, mean, deviation, profile, math.inf, rate, network.digest)
    held_out = unset.of_shifts(predicted[1::2], found[1::2]).score.sort().values
    place = math.ceil((len(held_out) + 1) * (1.0 - rate))
    if place > len(held_out):
        raise ValueError(
            f"a threshold of rate {rate:g} needs {2 * math.ceil(1.0 / rate)} inputs or more, got {len(predicted)}"
        )
    # Above the score itself: it is not flagged.
    return replace(unset, threshold=math.nextafter(float(held_out[place - 1]), math.inf))
