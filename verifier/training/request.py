"""What is asked of a training: each option stands here once, with its default and its help.

`verifier.commands.train` takes these as keywords (`TrainOptions`), and the command line builds its arguments from the
fields. Loads neither numpy nor torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypedDict

from verifier.options import number, option, radius

# Names of `verifier.training.regimes.ADVERSARIAL_SETTINGS`, which loads torch.
ATTACKS = ("fgsm", "ifgsm", "pgd")
MWD_NETWORKS = ("mwd", "mwd-conv")


class TrainOptions(TypedDict, total=False):
    """The keywords of `train`; `TrainRequest` says what each means."""

    epochs: int
    hidden: Sequence[int]
    types: Sequence[str]
    batch: int
    learning_rate: float | None
    schedule: str
    pseudo_share: float
    sharpness: float | None
    attack: str | None
    attack_epsilon: float
    mixing: Literal["batch", "steps"]
    certified_epsilon: float
    certified_share: float
    sensitivity_cost: float
    start: str | Path | None
    limit: int | None
    seed: int
    device: str
    data_dir: str | Path | None


@dataclasses.dataclass(frozen=True)
class TrainRequest:
    """A network by name, and how it is trained.

    name: of the table `verifier.training.architectures.ARCHITECTURES`.
    epochs, batch, learning_rate, schedule: passes over the data, inputs of a step, and the rate with how it falls
    ("cosine" or "constant"); None: the rate of recipe or architecture.
    hidden, types: sizes of the hidden layers and unit types of MWD layers; empty: the architecture's.
    pseudo_share: of the MWD layers' gradients, 1 pseudo to 0 true.
    sharpness: of the pseudogradient's shares (see `encoders.layers.mwd`); None: the recipe's.
    attack, attack_epsilon, mixing: mix adversarial examples of this radius in (see `Adversarial`).
    certified_epsilon: train MWD networks on the ends of the intervals of this radius, which rises to it during
    training; certified_share is the part of the loss that the ends have.
    sensitivity_cost: add that times the mean Lipschitz bound of the outputs to the loss of an MWD network (see
    `Sensitivity`).
    start: take the weights of this file (same architecture).
    limit, seed, device, data_dir: as of `verifier.commands.request.Request`; the seed is that of weights, order and
    held-out inputs.

    Raises ValueError with what an option supports.
    """

    name: str
    epochs: int = option(30, "training", "passes over the data (default: 30)", type=int, metavar="N")
    hidden: Sequence[int] = option((), "training", "sizes of the hidden layers", nargs="+", type=int, metavar="N")
    types: Sequence[str] = option((), "training", "mwd: plain, negated or mixed for each layer", nargs="+", metavar="T")
    batch: int = option(100, "training", "inputs of a step (default: 100)", type=int, metavar="N")
    learning_rate: float | None = option(
        None, "training", "default: 5 for mwd, 1 for relu and sigmoid, .01 certified", type=float, metavar="R"
    )
    schedule: str = option("cosine", "training", "cosine (default) or constant", metavar="NAME")
    pseudo_share: float = option(
        1.0, "training", "mwd: gradients, 1 pseudo (default) to 0 true", type=float, metavar="R"
    )
    sharpness: float | None = option(
        None, "training", "mwd: of pseudogradients; default: 1, certified 4", type=number, metavar="B"
    )
    attack: str | None = option(None, "training", "mix in adversarial examples: fgsm, ifgsm or pgd", metavar="NAME")
    attack_epsilon: float = option(0.3, "training", "their radius (default: 0.3)", type=radius, metavar="E")
    mixing: Literal["batch", "steps"] = option(
        "batch", "training", "one step on both halves, or one on each", choices=("batch", "steps")
    )
    certified_epsilon: float = option(0.0, "training", "mwd: train on interval ends", type=radius, metavar="E")
    certified_share: float = option(
        0.5, "training", "mwd: share of the interval ends in the loss", type=float, metavar="K"
    )
    sensitivity_cost: float = option(0.0, "training", "mwd: penalise Lipschitz bounds", type=radius, metavar="C")
    start: str | Path | None = option(
        None, "training", "mwd: start from the weights of this file", type=Path, metavar="FILE"
    )
    limit: int | None = option(None, "data", "use the first N inputs", type=int, metavar="N")
    seed: int = option(0, "training", "of weights, order and held-out inputs", type=int, metavar="N")
    device: str = option("auto", "limits", "auto, cpu or cuda", metavar="NAME")
    data_dir: str | Path | None = option(None, "data", "where the files of named data lie", type=Path, metavar="DIR")

    def __post_init__(self) -> None:
        if self.attack is not None and (self.certified_epsilon or self.attack not in ATTACKS):
            known = ", ".join(ATTACKS)
            raise ValueError(f"attack {self.attack!r}: supported for training are {known}, without a certified epsilon")
        if self.sharpness is not None and not 0.0 < self.sharpness < float("inf"):
            raise ValueError(f"sharpness must be positive, got {self.sharpness}")
        if not 0.0 <= self.certified_share <= 1.0:
            raise ValueError(f"certified_share must lie in [0, 1], got {self.certified_share}")
        if (self.certified_epsilon or self.sensitivity_cost) and self.name not in MWD_NETWORKS:
            raise ValueError("certified and sensitivity training are built for mwd networks only")
        if self.sensitivity_cost < 0 or (self.sensitivity_cost and (self.certified_epsilon or self.attack)):
            raise ValueError(
                "a sensitivity cost must not be negative, and is used without certified epsilon and attack"
            )
