"""What is asked of a training: each option stands here once, with its default and its help.

`verifier.commands.train` takes these as keywords (`TrainOptions`), and the command line builds its arguments from the
fields. Loads neither numpy nor torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from verifier.options import number, option, radius
from verifier.training.tables import ATTACKS, MWD_NETWORKS, PRECISIONS, REGIMES, SCHEDULES, SPECIAL, STATISTICS

if TYPE_CHECKING:
    from encoders.region import Norm


class TrainOptions(TypedDict, total=False):
    """The keywords of `train`; `TrainRequest` says what each means."""

    epochs: int
    hidden: Sequence[int]
    types: Sequence[str]
    batch: int
    learning_rate: float | None
    schedule: str
    precision: str
    pseudo_share: float
    sharpness: float | None
    pseudo_decay: float
    pseudo_epochs: int | None
    regime: str | None
    attack: str | None
    attack_epsilon: float
    attack_norm: Norm | None
    attack_steps: int | None
    attack_step: float | None
    attack_share: float
    restarts: int | None
    unclipped: bool
    layer: str | None
    certified_epsilon: float
    certified_share: float
    ramp: float
    interval_cost: float
    batch_statistics: str
    box_share: float
    sensitivity_cost: float
    dropout: float
    drop_connect: float
    deviation: float
    beta: float
    zeta: float
    deviation_schedule: str
    smallest: float
    temperature: float
    teacher: str | Path | None
    winners: float
    augment: Sequence[str]
    patience: int | None
    start: str | Path | None
    examples: Sequence[str | Path]
    levels: int | None
    within: float | None
    limit: int | None
    seed: int
    device: str
    data_dir: str | Path | None
    logdir: str | Path | None


@dataclasses.dataclass(frozen=True)
class TrainRequest:
    """A network by name, and how it is trained.

    name: of the table `verifier.training.architectures.ARCHITECTURES`.
    epochs, batch, learning_rate, schedule: passes over the data, inputs of a step, and the rate with how it falls
    ("cosine" or "constant"); None: the rate of recipe or architecture.
    precision: of the values that losses and their gradients are found from; weights and scores of epochs are float32.
    hidden, types: sizes of the hidden layers and unit types of MWD layers; empty: the architecture's.
    pseudo_share, pseudo_decay, pseudo_epochs: of the MWD layers' gradients, 1 pseudo to 0 true, multiplied by the decay
    after each epoch; true ones follow after so many epochs.
    sharpness: of the pseudogradient's shares (see `encoders.layers.mwd`); None: the recipe's.
    regime: a row of `REGIMES`; None: what the other options ask for (an attack: mixed; a certified epsilon: interval; a
    sensitivity cost: sensitivity; examples: fine-tuning), else plain.
    attack, attack_epsilon, attack_norm, attack_steps, attack_step, restarts: what perturbs inputs (see
    `verifier.training.adversaries`), within which radius; steps are in units of it. None: what the regime or the attack
    has. unclipped: perturbed inputs may leave the domain.
    attack_share: what the perturbed half counts in the loss of mixed (Goodfellow et al. 2015: 1 - alpha).
    layer: the name of the layer whose output lwa-layer perturbs.
    certified_epsilon: train on the ends of the intervals of this radius, which rises to it over the first `ramp` of
    training; certified_share is the part of the loss that the ends have; interval_cost weighs the regularisers of
    interval; batch_statistics says what normalises layers where the ends are all of the loss, the inputs, which are run
    for that, or the middles of boxes, which saves a third; box_share is the part of the radius that the boxes of sabr
    have.
    sensitivity_cost: add that times the mean Lipschitz bound of the outputs to the loss of an MWD network (see
    `Sensitivity`).
    dropout: the probability with which values behind dense relus are dropped.
    drop_connect: the probability with which weights are dropped.
    deviation, beta, zeta, deviation_schedule: of random weights (see `verifier.training.delta_rule`): the standard
    deviation of each at the start, what grows it, what shrinks it, and when: batch, printed or published.
    smallest: of resize-and-pad, the least height of an image as a share of its own.
    temperature, teacher: of distillation, what divides the scores before the softmax, and the model file whose softmax
    at that temperature the labels are; without one the labels are the classes: what is trained is the teacher.
    winners: in place of each relu, the share of its units that pass, the greatest (k-winners-take-all); 0: relus.
    augment: shift or flip images at random (see `verifier.training.augmentation`).
    patience: stop after so many epochs without a better validation score.
    start: take the weights of this file, of the same architecture.
    examples, levels, within: folders of runs about the training data, one of them about `start`, whose witnesses are
    added to the inputs under the label of their input; rounded to the grid k / levels; none farther than that.
    limit, seed, device, data_dir: as of `verifier.commands.request.Request`; the seed is that of weights, order and
    held-out inputs. logdir: a folder for scalars (see `verifier.training.scalars`).

    Raises ValueError with what an option supports.
    """

    name: str
    epochs: int = option(30, "training", "passes over the data (default: 30)", type=int, metavar="N")
    hidden: Sequence[int] = option((), "training", "sizes of the hidden layers", nargs="+", type=int, metavar="N")
    types: Sequence[str] = option((), "training", "mwd: plain, negated or mixed for each layer", nargs="+", metavar="T")
    batch: int = option(100, "training", "inputs of a step (default: 100)", type=int, metavar="N")
    learning_rate: float | None = option(
        None, "training", "at the start (default: the regime's, else the network's)", type=float, metavar="R"
    )
    schedule: str = option("cosine", "training", "cosine (default) or constant", metavar="NAME")
    precision: str = option("float32", "training", "of losses: float32 (default) or bfloat16", metavar="NAME")
    pseudo_share: float = option(
        1.0, "training", "mwd: gradients, 1 pseudo (default) to 0 true", type=float, metavar="R"
    )
    sharpness: float | None = option(
        None, "training", "mwd: of pseudogradients; default: 1, certified 4", type=number, metavar="B"
    )
    pseudo_decay: float = option(
        1.0, "training", "mwd: what multiplies that share after each epoch (default: 1)", type=float, metavar="R"
    )
    pseudo_epochs: int | None = option(
        None, "training", "mwd: true gradients after so many epochs", type=int, metavar="N"
    )
    regime: str | None = option(None, "training", f"how to train: {', '.join(REGIMES)}", metavar="NAME")
    attack: str | None = option(None, "training", f"what perturbs inputs: {', '.join(ATTACKS)}", metavar="NAME")
    attack_epsilon: float = option(0.3, "training", "its radius (default: 0.3)", type=radius, metavar="E")
    attack_norm: Norm | None = option(None, "training", "inf, 2 or 1 (default: the regime's)", metavar="NORM")
    attack_steps: int | None = option(None, "training", "its steps (default: the attack's)", type=int, metavar="N")
    attack_step: float | None = option(
        None, "training", "their length in units of the radius", type=number, metavar="R"
    )
    attack_share: float = option(
        0.5, "training", "mixed, goodfellow: weight of perturbed inputs (default: 0.5)", type=number, metavar="S"
    )
    restarts: int | None = option(None, "training", "descents of the attack, of which the best", type=int, metavar="N")
    unclipped: bool = option(False, "training", "perturbed inputs may leave the domain", action="store_true")
    layer: str | None = option(None, "training", "lwa-layer: which layer's output is perturbed", metavar="NAME")
    certified_epsilon: float = option(0.0, "training", "train on interval ends", type=radius, metavar="E")
    certified_share: float = option(
        0.5, "training", "share of the interval ends in the loss (default: 0.5)", type=float, metavar="K"
    )
    ramp: float = option(
        0.6, "training", "part of the training over which the radius rises (default: 0.6)", type=float, metavar="R"
    )
    interval_cost: float = option(
        0.0, "training", "interval: weight of the regularisers (default: 0)", type=radius, metavar="C"
    )
    batch_statistics: str = option(
        "inputs", "training", "interval with share 1: of inputs (default) or of middles", metavar="NAME"
    )
    box_share: float = option(
        0.4, "training", "sabr: half-width of boxes over the radius (default: 0.4)", type=number, metavar="S"
    )
    sensitivity_cost: float = option(0.0, "training", "mwd: penalise Lipschitz bounds", type=radius, metavar="C")
    dropout: float = option(0.5, "training", "regime dropout: the probability (default: 0.5)", type=number, metavar="P")
    drop_connect: float = option(0.2, "training", "drop-connect: probability (default: 0.2)", type=number, metavar="P")
    deviation: float = option(0.0125, "training", "random weights: deviation at first", type=number, metavar="S")
    beta: float = option(0.05, "training", "delta-rule: growth by gradients (default: 0.05)", type=number, metavar="B")
    zeta: float = option(0.7, "training", "delta-rule: factor of decays (default: 0.7)", type=number, metavar="Z")
    deviation_schedule: str = option("batch", "training", "delta-rule: batch, printed, published", metavar="NAME")
    smallest: float = option(0.9, "training", "resize-and-pad: least height (default: 0.9)", type=number, metavar="S")
    temperature: float = option(
        20.0, "training", "distillation: of the softmax (default: 20)", type=number, metavar="T"
    )
    teacher: str | Path | None = option(
        None,
        "training",
        "distillation: whose outputs are the labels; none: train the teacher",
        type=Path,
        metavar="FILE",
    )
    winners: float = option(
        0.0, "training", "share of units that pass (k-winners-take-all) in place of each relu", type=number, metavar="G"
    )
    augment: Sequence[str] = option((), "training", "change images at random: shift, flip", nargs="+", metavar="NAME")
    patience: int | None = option(
        None, "training", "stop after so many epochs without a better score", type=int, metavar="N"
    )
    start: str | Path | None = option(
        None, "training", "start from the weights of this file", type=Path, metavar="FILE"
    )
    examples: Sequence[str | Path] = option(
        (), "training", "fine-tuning: add the witnesses of these runs about the training data", nargs="+", type=Path,
        metavar="RUN",
    )  # fmt: skip
    levels: int | None = option(
        None, "training", "fine-tuning: round examples to the grid k/N; 255: whole pixels", type=int, metavar="N"
    )
    within: float | None = option(
        None, "training", "fine-tuning: leave out examples farther than this", type=radius, metavar="E"
    )
    limit: int | None = option(None, "data", "use the first N inputs", type=int, metavar="N")
    seed: int = option(0, "training", "of weights, order and held-out inputs", type=int, metavar="N")
    device: str = option("auto", "limits", "auto, cpu or cuda", metavar="NAME")
    data_dir: str | Path | None = option(None, "data", "where the files of named data lie", type=Path, metavar="DIR")
    logdir: str | Path | None = option(None, "output", "scalars of epochs, for TensorBoard", type=Path, metavar="DIR")

    def __post_init__(self) -> None:
        if self.attack is not None and self.attack not in ATTACKS:
            raise ValueError(f"attack {self.attack!r}: supported for training are {', '.join(ATTACKS)}")
        if self.regime is None:
            self._check_one_purpose()
        elif self.regime not in REGIMES:
            raise ValueError(f"unknown regime {self.regime!r}; supported: {', '.join(REGIMES)}")
        self._check_numbers()
        self._check_taken()

    @property
    def regime_name(self) -> str:
        """The regime, named or asked for by other options."""
        if self.regime is not None:
            return self.regime
        if self.examples:
            return "fine-tuning"
        if self.certified_epsilon:
            return "margins" if self.name == "distance" else "interval"
        if self.attack is not None:
            return "mixed"
        return "sensitivity" if self.sensitivity_cost else "plain"

    def _check_one_purpose(self) -> None:
        if self.attack is not None and self.certified_epsilon:
            raise ValueError(
                f"attack {self.attack!r} is used without a certified epsilon, or with --regime sabr or mtl-interval"
            )
        if self.sensitivity_cost and (self.certified_epsilon or self.attack):
            raise ValueError("a sensitivity cost is used without certified epsilon and attack")

    def _check_taken(self) -> None:
        """Raise ValueError for an option that the regime does not take, and for one that it needs."""
        regime = self.regime_name
        for field in dataclasses.fields(self):
            given = getattr(self, field.name) != field.default
            if field.name in SPECIAL and given and field.name not in REGIMES[regime]:
                takers = ", ".join(name for name, taken in REGIMES.items() if field.name in taken)
                flag = field.name.replace("_", "-")
                raise ValueError(f"regime {regime} does not take --{flag}; supported by {takers}")
        for name in ("certified_epsilon", "sensitivity_cost", "layer", "examples"):
            if name in REGIMES[regime] and not getattr(self, name):
                raise ValueError(f"regime {regime} needs --{name.replace('_', '-')}")
        if regime == "fine-tuning" and self.start is None:
            raise ValueError("regime fine-tuning needs --start, the network whose counterexamples the runs hold")
        if regime == "sensitivity" and self.name not in MWD_NETWORKS:
            raise ValueError("sensitivity training is built for mwd networks only")
        if self.attack == "adv-alpha" and self.name in MWD_NETWORKS:
            raise ValueError("attack adv-alpha needs gradients of all classes at once, which MWD layers do not have")
        if regime == "robust-linear" and self.name != "linear":
            raise ValueError(f"regime robust-linear is the closed form of the network linear, not of {self.name}")
        if self.precision != "float32" and self.name in (*MWD_NETWORKS, "distance"):
            raise ValueError(f"precision {self.precision}: the kernels of {self.name} take float32 only")

    def _check_numbers(self) -> None:
        if self.sharpness is not None and not 0.0 < self.sharpness < float("inf"):
            raise ValueError(f"sharpness must be positive, got {self.sharpness}")
        for name in ("certified_share", "attack_share", "box_share", "ramp", "dropout", "winners"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        if not 0.0 <= self.drop_connect < 1.0 or not 0.0 <= self.zeta <= 1.0:
            raise ValueError(f"drop_connect must lie in [0, 1), zeta in [0, 1]; got {self.drop_connect}, {self.zeta}")
        if not 0.0 < self.smallest < 1.0 or not 0.0 < self.temperature < float("inf"):
            raise ValueError(
                f"smallest must lie between 0 and 1, temperature be positive; got {self.smallest}, {self.temperature}"
            )
        if min(self.deviation, self.beta) < 0 or (not self.deviation and self.regime_name == "delta-rule-learnable"):
            raise ValueError(
                f"deviation and beta must be positive or 0, got {self.deviation}, {self.beta}; learnable: not 0"
            )
        if self.deviation_schedule not in SCHEDULES:
            raise ValueError(f"unknown schedule {self.deviation_schedule!r}; supported: {', '.join(SCHEDULES)}")
        for name, known in (("precision", PRECISIONS), ("batch_statistics", STATISTICS)):
            if getattr(self, name) not in known:
                raise ValueError(f"unknown {name} {getattr(self, name)!r}; supported: {', '.join(known)}")
        if self.attack_norm not in (None, "inf", "2", "1"):
            raise ValueError(f"unknown attack_norm {self.attack_norm!r}; supported: inf, 2, 1")
        if self.sensitivity_cost < 0 or self.interval_cost < 0:
            raise ValueError("a sensitivity cost and an interval cost must not be negative")
        for name in ("attack_steps", "attack_step", "restarts", "levels"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")
