"""The attacks of adv-lib, foolbox, torchattacks and ART, called with the settings that `attack_strength.py` gives ours.

Each takes a `Problem` and a seed and returns points; what they found is judged elsewhere. Descents of torchattacks and
foolbox start at the points that ours start at: the libraries draw theirs inside, so the draw is replaced.
"""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from encoders import Network
from verifier.attacks.oracle import Picture


@dataclass(frozen=True)
class Settings:
    """What all libraries are given. share: of the radius that one step is long; rate, constant: of Carlini-Wagner."""

    steps: int = 40
    short_steps: int = 10
    share: float = 0.1
    restarts: int = 3
    linearisations: int = 50
    overshoot: float = 0.02
    searches: int = 9
    penalty_steps: int = 100
    rate: float = 0.1
    constant: float = 0.01
    boundary_steps: int = 30
    queries: int = 1000
    # Gradients of one input, of minimum-norm attacks.
    gradients: int = 100


class Wrapped(nn.Module):
    """The class scores of a network at pictures `(batch, channels, height, width)`."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        # The libraries look for a parameter to learn the device from.
        self.anchor = nn.Parameter(torch.zeros(1, dtype=network.dtype), requires_grad=False)
        self.eval()

    def forward(self, pictures: Tensor) -> Tensor:
        return self.network.scores(pictures.reshape(-1, *self.network.input_shape))


@dataclass(frozen=True, eq=False)
class Problem:
    """Correctly classified pictures, the ball, and the points `(restarts, *pictures)` from which descents start."""

    model: Wrapped
    x: Tensor
    y: Tensor
    radius: float
    norm: str
    starts: Tensor
    settings: Settings

    def at(self, rows: Tensor) -> Problem:
        """Return the problem of some rows."""
        return replace(self, x=self.x[rows], y=self.y[rows], starts=self.starts[:, rows])


Opponent = Callable[[Problem, int], Tensor]


def pictures(x: Tensor) -> Tensor:
    """Return inputs as pictures."""
    picture = Picture.of(tuple(x.shape[1:]))
    return x.reshape(-1, picture.channels, picture.height, picture.width)


def seed_all(seed: int) -> None:
    """Seed every generator that a library may draw from."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def restarted(once: Callable[[Problem, Tensor], Tensor]) -> Opponent:
    """Return the attack restarted on the inputs that it has not broken yet, as ours is."""

    def attack(problem: Problem, seed: int) -> Tensor:
        best, rows = problem.x.clone(), torch.arange(len(problem.x))
        for start in problem.starts:
            part = problem.at(rows)
            best[rows] = once(part, start[rows])
            with torch.no_grad():
                left = problem.model(best[rows]).argmax(dim=1) == part.y
            rows = rows[left]
            if not len(rows):
                break
        return best

    return attack


def torchattacks_opponents() -> dict[str, Opponent]:
    """Return the attacks of torchattacks by the names of ours."""
    import torchattacks as ta

    def iterated(make: Any) -> Opponent:
        return lambda p, seed: make(
            p.model, eps=p.radius, alpha=p.settings.share * p.radius, steps=p.settings.short_steps
        )(p.x, p.y)

    def pgd(p: Problem, start: Tensor) -> Tensor:
        make = ta.PGD if p.norm == "inf" else ta.PGDL2
        attack = make(p.model, eps=p.radius, alpha=p.settings.share * p.radius, steps=p.settings.steps)
        with _draws(start - p.x, p.radius, p.norm):
            return attack(p.x, p.y)

    def of_norm(p: Problem) -> str:
        return "Linf" if p.norm == "inf" else "L2"

    def cw(p: Problem, seed: int) -> Tensor:
        s = p.settings
        # No search for c: 1, its default, and as many steps as the others have in all.
        return ta.CW(p.model, c=1, steps=s.searches * s.penalty_steps, lr=s.rate)(p.x, p.y)

    return {
        "fgsm": lambda p, seed: ta.FGSM(p.model, eps=p.radius)(p.x, p.y),
        "ifgsm": iterated(ta.BIM),
        "mi-fgsm": iterated(ta.MIFGSM),
        "pgd": restarted(pgd),
        "deepfool": lambda p, seed: ta.DeepFool(
            p.model, steps=p.settings.linearisations, overshoot=p.settings.overshoot
        )(p.x, p.y),
        "cw": cw,
        # Its radius bounds random starts only, and one run has none.
        "fab": lambda p, seed: ta.FAB(
            p.model, norm=of_norm(p), eps=p.radius, steps=p.settings.boundary_steps, seed=seed
        )(p.x, p.y),
        "square": lambda p, seed: ta.Square(
            p.model, norm=of_norm(p), eps=p.radius, n_queries=p.settings.queries, seed=seed
        )(p.x, p.y),
        "auto": lambda p, seed: ta.AutoAttack(p.model, norm=of_norm(p), eps=p.radius, seed=seed)(p.x, p.y),
    }


def foolbox_opponents() -> dict[str, Opponent]:
    """Return the attacks of foolbox by the names of ours."""
    import foolbox
    from foolbox import attacks as fa

    def run(attack: Any, p: Problem, epsilon: float | None) -> Tensor:
        model = foolbox.PyTorchModel(p.model, bounds=(0, 1), device="cpu")
        # Without a radius the nearest points.
        raw, clipped, _ = attack(model, p.x, p.y, epsilons=epsilon)
        result: Tensor = raw if epsilon is None else clipped
        return result

    def of(p: Problem, name: str) -> Any:
        return getattr(fa, ("Linf" if p.norm == "inf" else "L2") + name)

    def iterated(name: str) -> Opponent:
        return lambda p, seed: run(
            of(p, name)(rel_stepsize=p.settings.share, steps=p.settings.short_steps, random_start=False), p, p.radius
        )

    def pgd(p: Problem, start: Tensor) -> Tensor:
        kind = fa.LinfPGD if p.norm == "inf" else fa.L2PGD
        attack = kind(rel_stepsize=p.settings.share, steps=p.settings.steps, random_start=True)
        attack.get_random_start = lambda x, epsilon: type(x)(start)
        return run(attack, p, p.radius)

    def cw(p: Problem, seed: int) -> Tensor:
        s = p.settings
        attack = fa.L2CarliniWagnerAttack(
            binary_search_steps=s.searches, steps=s.penalty_steps, stepsize=s.rate, initial_const=s.constant
        )
        return run(attack, p, None)

    return {
        "fgsm": lambda p, seed: run(of(p, "FastGradientAttack")(), p, p.radius),
        "ifgsm": iterated("BasicIterativeAttack"),
        "mi-fgsm": iterated("MomentumIterativeFastGradientMethod"),
        "pgd": restarted(pgd),
        "deepfool": lambda p, seed: run(
            of(p, "DeepFoolAttack")(steps=p.settings.linearisations, overshoot=p.settings.overshoot), p, None
        ),
        "cw": cw,
    }


def art_opponents() -> dict[str, Opponent]:
    """Return the attacks of ART by the names of ours. Its own starts cannot be set, so its PGD is left out."""
    from art.attacks import evasion
    from art.estimators.classification import PyTorchClassifier

    def run(kind: Any, p: Problem, **settings: Any) -> Tensor:
        classes = int(p.model.network.output_shape[0])
        shape = tuple(p.x.shape[1:])
        model = PyTorchClassifier(p.model, nn.CrossEntropyLoss(), shape, classes, clip_values=(0.0, 1.0))
        attack = kind(model, batch_size=len(p.x), **settings)
        return torch.from_numpy(attack.generate(p.x.numpy(), p.y.numpy()))

    def within(p: Problem) -> dict[str, Any]:
        return {"norm": np.inf if p.norm == "inf" else 2, "eps": p.radius}

    return {
        "fgsm": lambda p, seed: run(evasion.FastGradientMethod, p, **within(p)),
        "ifgsm": lambda p, seed: run(
            evasion.ProjectedGradientDescent,
            p,
            **within(p),
            eps_step=p.settings.share * p.radius,
            max_iter=p.settings.short_steps,
            verbose=False,
        ),
        "deepfool": lambda p, seed: run(
            evasion.DeepFool, p, max_iter=p.settings.linearisations, epsilon=p.settings.overshoot, verbose=False
        ),
        "square": lambda p, seed: run(evasion.SquareAttack, p, **within(p), max_iter=p.settings.queries, verbose=False),
    }


def adv_lib_opponents() -> dict[str, Opponent]:
    """Return the attacks of adv-lib by the names of ours.

    It imports visdom, which draws, and torchvision, for a perceptual distance; neither is used here, and both are
    replaced where they are missing. Its `auto` is what it has of AutoAttack: APGD on the cross-entropy, targeted APGD,
    targeted FAB, each on what the others left.
    """
    for unused in ("visdom", "torchvision"):
        with contextlib.suppress(ImportError):
            __import__(unused)
        if unused not in sys.modules:
            sys.modules[unused] = mock.MagicMock()
    from adv_lib import attacks as aa

    def order(p: Problem) -> float:
        return float(p.norm)

    def auto(p: Problem, seed: int) -> Tensor:
        kinds: tuple[Callable[[Problem], Tensor], ...] = (
            lambda q: aa.apgd(q.model, q.x, q.y, q.radius, order(q), loss_function="ce"),
            lambda q: aa.apgd_targeted(q.model, q.x, q.y, q.radius, order(q), targeted=False),
            lambda q: aa.fab(q.model, q.x, q.y, order(q), ε=q.radius, targeted_restarts=True),
        )
        best, rows = p.x.clone(), torch.arange(len(p.x))
        for kind in kinds:
            part = p.at(rows)
            found = kind(part).detach()
            away = (found - part.x).flatten(1).norm(order(p), dim=1)
            with torch.no_grad():
                broken = (part.model(found).argmax(dim=1) != part.y) & (away <= p.radius * (1 + 1e-6))
            best[rows[broken]] = found[broken]
            rows = rows[~broken]
            if not len(rows):
                break
        return best

    return {
        "ddn": lambda p, seed: aa.ddn(p.model, p.x, p.y, steps=p.settings.gradients, levels=None),
        "fmn": lambda p, seed: aa.fmn(p.model, p.x, p.y, order(p), steps=p.settings.gradients),
        "pdpgd": lambda p, seed: aa.pdpgd(p.model, p.x, p.y, order(p), num_steps=3 * p.settings.gradients),
        "sigma-zero": lambda p, seed: aa.sigma_zero(p.model, p.x, p.y, num_steps=3 * p.settings.gradients),
        "deepfool": lambda p, seed: aa.df(
            p.model, p.x, p.y, steps=p.settings.linearisations, norm=order(p), overshoot=p.settings.overshoot
        ),
        "fab": lambda p, seed: aa.fab(p.model, p.x, p.y, order(p), n_iter=p.settings.boundary_steps),
        "cw": lambda p, seed: aa.carlini_wagner_l2(
            p.model, p.x, p.y, learning_rate=p.settings.rate, initial_const=p.settings.constant,
            binary_search_steps=p.settings.searches, max_iterations=p.settings.penalty_steps,
        ),
        "auto": auto,
    }  # fmt: skip


LIBRARIES: dict[str, Callable[[], dict[str, Opponent]]] = {
    "torchattacks": torchattacks_opponents,
    "foolbox": foolbox_opponents,
    "art": art_opponents,
    "adv-lib": adv_lib_opponents,
}


@contextlib.contextmanager
def _draws(offsets: Tensor, radius: float, norm: str) -> Iterator[None]:
    """Make torchattacks draw the given offsets from the centres.

    In the inf-norm its PGD adds uniform numbers; in the 2-norm a normal direction of a uniform share of the radius.
    """
    lengths = offsets.flatten(1).norm(dim=1).reshape(-1, *[1] * (offsets.dim() - 1)) / radius
    uniform = offsets if norm == "inf" else lengths
    with (
        mock.patch.object(Tensor, "uniform_", lambda self, *_: self.copy_(uniform)),
        mock.patch.object(Tensor, "normal_", lambda self, *_: self.copy_(offsets)),
    ):
        yield
