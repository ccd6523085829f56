"""Settings of attacks that a caller may change, by name; those of the table `ATTACKS` are the defaults.

    steps            of each descent or minimisation
    step             of steepest, adaptive and plain descents, in units of the radius
    restarts         how many descents of an input, of which the best counts
    pseudogradients  what descents differentiate on ops that mask gradients: no (true ones), only, or both in turn
    draws            of a network that draws, over which eot takes the mean of each gradient
    queries          outputs that a search without gradients asks for
    kappa, alpha     by how much, in scores, the other class is to win: of cw and cw-l0, of lbfgs

Each change returns the changed attack, or None where it has no such setting.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from encoders.network import Network
from verifier.attacks import ATTACKS
from verifier.attacks.base import Attack
from verifier.attacks.carlini_wagner import CarliniWagner
from verifier.attacks.corners import Corners
from verifier.attacks.descent import Descent
from verifier.attacks.expectation import Expectation
from verifier.attacks.lbfgs import Lbfgs
from verifier.attacks.source import Source, SourceMaker, has_pseudogradient, pseudogradient
from verifier.attacks.square import Square
from verifier.attacks.steps import Adaptive, Plain, Steepest, Vertex

SOURCES: dict[str, tuple[SourceMaker, ...]] = {
    "no": (Source,),
    "only": (pseudogradient,),
    "both": (Source, pseudogradient),
}


def configured(attack: Attack, name: str, settings: Mapping[str, Any], table: Mapping[str, Attack]) -> Attack:
    """Return an attack with other settings. name: what messages call it; table: where they look for others.

    Raises ValueError for a setting that does not exist, is out of range, or that the attack does not have, with those
    that have it.
    """
    for setting, value in settings.items():
        if setting not in CHANGES:
            raise ValueError(f"unknown setting {setting!r}; supported: {', '.join(CHANGES)}")
        _check(setting, value)
        changed = CHANGES[setting](attack, value)
        if changed is None:
            others = [other for other, each in table.items() if CHANGES[setting](each, value) is not None]
            raise ValueError(f"attack {name!r} has no {setting} of {value} to set; supported by {', '.join(others)}")
        attack = changed
    return attack


def attack_with(name: str, settings: Mapping[str, Any]) -> Attack:
    """Return an attack of `ATTACKS` with other settings; errors as of `configured`."""
    return configured(ATTACKS[name], name, settings, ATTACKS)


def is_masked(attack: Attack, network: Network) -> bool:
    """Return whether a descent follows true gradients alone on a network with layers that mask them."""
    true_only = isinstance(attack, Descent) and set(attack.sources) == {Source}
    return true_only and has_pseudogradient(network)


def draws_nothing(attack: Attack, network: Network) -> bool:
    """Return whether an attack takes means over draws of a network that has none, so that each is the network."""
    means = isinstance(attack, Descent) and any(isinstance(make, Expectation) for make in attack.sources)
    return means and not network.randomised


def _check(setting: str, value: Any) -> None:
    if setting == "pseudogradients":
        if value not in SOURCES:
            raise ValueError(f"unknown pseudogradients {value!r}; supported: {', '.join(SOURCES)}")
    elif setting in ("kappa", "alpha"):
        if not 0 <= value < float("inf"):
            raise ValueError(f"{setting} must be a finite number that is not negative, got {value}")
    elif not 0 < value < float("inf"):
        raise ValueError(f"{setting} must be a finite positive number, got {value}")


def _field(attack: Attack, **values: Any) -> Attack | None:
    """Return the attack with other fields, None where it lacks one."""
    # Every attack of the table is a dataclass; the type of the base class does not say so.
    names = getattr(attack, "__dataclass_fields__", {})
    if not {*values} <= {*names}:
        return None
    replace: Callable[..., Attack] = dataclasses.replace
    return replace(attack, **values)


def _steps(attack: Attack, value: int) -> Attack | None:
    # What jumps to the end of the ball has nothing to do in a second step.
    if isinstance(attack, Descent) and isinstance(attack.rule, Vertex) and value != 1:
        return None
    return _field(attack, steps=value)


def _step(attack: Attack, value: float) -> Attack | None:
    if not isinstance(attack, Descent) or not isinstance(attack.rule, Steepest | Adaptive | Plain):
        return None
    return dataclasses.replace(attack, rule=dataclasses.replace(attack.rule, length=value))


def _restarts(attack: Attack, value: int) -> Attack | None:
    return _field(attack, restarts=value)


def _sources(attack: Attack, value: str) -> Attack | None:
    if not isinstance(attack, Descent):
        return None
    sources = SOURCES[value]
    # In turn over the restarts: one alone would leave the second out.
    return dataclasses.replace(attack, sources=sources, restarts=max(attack.restarts, len(sources)))


def _draws(attack: Attack, value: int) -> Attack | None:
    if not isinstance(attack, Descent) or not any(isinstance(make, Expectation) for make in attack.sources):
        return None
    sources = tuple(Expectation(value) if isinstance(make, Expectation) else make for make in attack.sources)
    return dataclasses.replace(attack, sources=sources)


def _queries(attack: Attack, value: int) -> Attack | None:
    if isinstance(attack, Corners):
        return dataclasses.replace(attack, count=value)
    return dataclasses.replace(attack, queries=value) if isinstance(attack, Square) else None


def _kappa(attack: Attack, value: float) -> Attack | None:
    return dataclasses.replace(attack, kappa=value) if isinstance(attack, CarliniWagner) else None


def _alpha(attack: Attack, value: float) -> Attack | None:
    return dataclasses.replace(attack, alpha=value) if isinstance(attack, Lbfgs) else None


CHANGES: dict[str, Callable[[Attack, Any], Attack | None]] = {
    "steps": _steps,
    "step": _step,
    "restarts": _restarts,
    "pseudogradients": _sources,
    "draws": _draws,
    "queries": _queries,
    "kappa": _kappa,
    "alpha": _alpha,
}
