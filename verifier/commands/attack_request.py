"""What is asked of an attack: its name, norm, radius, target and settings, checked before any work starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor

from encoders.region import NORMS, Norm
from verifier.attacks import ATTACKS, Attack
from verifier.attacks.criteria import TARGETS
from verifier.attacks.descent import Descent
from verifier.attacks.settings import attack_with
from verifier.attacks.transfer import Transfer, check_surrogate
from verifier.batch import Batch
from verifier.commands.job import DataJob
from verifier.commands.request import checked_radius
from verifier.subject import Subject

# Names of targets that are one class for each input.
TARGET_NAMES = ("second", "least-likely")


@dataclass(frozen=True)
class AttackRequest:
    """A checked request. target: a class, one of TARGET_NAMES, or None for any class but the own.

    settings: of `verifier.attacks.settings`, where they are not those of the table; attack: the attack that it means.
    surrogate: the digest of the network that is searched instead, None for the model itself.
    Raises ValueError with what is supported.
    """

    name: str
    norm: str
    epsilon: float
    target: int | str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    surrogate: str | None = None
    attack: Attack = field(init=False)

    def __post_init__(self) -> None:
        if self.name not in ATTACKS:
            raise ValueError(f"unknown attack {self.name!r}; supported: {', '.join(ATTACKS)}")
        object.__setattr__(self, "attack", attack_with(self.name, self.settings))
        supported = ", ".join(self.attack.norms)
        if self.norm not in self.attack.norms or self.norm not in NORMS:
            raise ValueError(f"attack {self.name!r} does not support the {self.norm}-norm; it supports: {supported}")
        checked_radius(self.epsilon)
        if self.epsilon == 0 and not self.attack.minimal:
            minimal = ", ".join(name for name, attack in ATTACKS.items() if attack.minimal)
            raise ValueError(
                f"attack {self.name!r} searches the ball of radius epsilon, and that of radius 0 is the input itself; "
                f"give a positive epsilon, or an attack that minimises the distance: {minimal}"
            )
        if isinstance(self.target, str) and self.target not in TARGET_NAMES:
            raise ValueError(f"unknown target {self.target!r}; supported: a class, {', '.join(TARGET_NAMES)}")

    @property
    def checked_norm(self) -> Norm:
        """The norm, as regions take it."""
        return cast(Norm, self.norm)

    def to_json(self) -> dict[str, Any]:
        """Return the fields, plain."""
        changed = {"settings": dict(self.settings)} if self.settings else {}
        elsewhere = {} if self.surrogate is None else {"surrogate": self.surrogate}
        return {
            "attack": self.name, "norm": self.norm, "epsilon": self.epsilon, "target": self.target, **changed,
            **elsewhere,
        }  # fmt: skip

    def on_surrogate(self, surrogate: Subject, subject: Subject) -> AttackRequest:
        """Return the request with the attack on a surrogate; ValueError if it does not take the place of the subject.

        Descents go on where they broke the surrogate, to its surest errors, which transfer more often.
        """
        check_surrogate(surrogate.network, subject.network)
        attack = self.attack
        if isinstance(attack, Descent):
            attack = replace(attack, until_broken=False)
        moved = replace(self, surrogate=surrogate.digest)
        object.__setattr__(moved, "attack", Transfer(surrogate.network, attack))
        return moved


def check_gradient(request: AttackRequest, subject: Subject) -> None:
    """Raise ValueError if the attack needs a gradient and none reaches the network's input."""
    if not request.attack.needs_gradient:
        return
    network = subject.network
    x = torch.zeros(1, *network.input_shape, dtype=network.dtype, requires_grad=True)
    with torch.enable_grad():
        if network.scores(x).requires_grad:
            return
    others = ", ".join(name for name, attack in ATTACKS.items() if not attack.needs_gradient)
    raise ValueError(
        f"{subject.name}: no gradient of the outputs reaches the input, and attack {request.name!r} needs one; "
        f"attacks that ask for outputs only: {others}"
    )


def check_target(request: AttackRequest, job: DataJob) -> None:
    """Raise ValueError if the target is no class of the model, or the label of an input that is asked about."""
    target = request.target
    if not isinstance(target, int):
        return
    if not 0 <= target < job.subject.classes:
        raise ValueError(f"target {target} is not one of the {job.subject.classes} classes of {job.subject.name}")
    labels = job.labels(job.indices)
    if bool((labels == target).any()):
        first = job.indices[int((labels == target).argmax())]
        raise ValueError(
            f"target {target} is the label of input {first} already; choose inputs of other classes with --offset and "
            f"--limit or a file of their own, or a target that depends on the input: {', '.join(TARGET_NAMES)}"
        )


def choose_targets(request: AttackRequest, batch: Batch) -> Tensor:
    """Return the target of each input of a batch, `(batch,)`."""
    if isinstance(request.target, int):
        return torch.full_like(batch.classes, request.target)
    choose = TARGETS[str(request.target)]
    assert choose is not None
    network = batch.subject.network
    with torch.no_grad():
        return choose(network.scores(batch.centres.to(network.dtype)), batch.classes)[:, 0]
