"""Several models as one: what a property of copies of networks is about, each copy run in its own model's runtime.

The first network of a property is the model that is given; the others are named. Nothing is computed with inputs
between the joint point and the models, so that a witness is a point of each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from encoders.box import Box, Shape
from encoders.joint import Copy, Joint
from encoders.limits import Limits
from encoders.passes.join_networks import join_networks, shares_structure
from encoders.region import Domain
from verifier.subject import Subject, load_model

Model = str | Path | nn.Module


@dataclass(frozen=True, eq=False, kw_only=True)
class JointSubject(Subject):
    """Copies of models on one input, as a subject. parts: the models by the names of their networks."""

    parts: Mapping[str, Subject]
    joint: Joint

    def probed(self, points: Tensor, domain: Domain) -> Subject:
        """Return the subject once each graph agrees with its model where its copies are, and all do together."""
        assert isinstance(domain, Box)
        parts = {}
        for name, part in self.parts.items():
            copies = [copy for copy in self.joint.copies if copy.network == name]
            ends = [gathered(copy, end) for copy in copies for end in (domain.lower, domain.upper)]
            hull = torch.cat(ends).reshape(len(ends), *part.network.input_shape).to(torch.float64)
            box = Box(hull.amin(dim=0, keepdim=True), hull.amax(dim=0, keepdim=True))
            inputs = torch.cat([gathered(copy, points) for copy in copies])
            inputs = inputs.reshape(len(inputs), *part.network.input_shape).to(part.network.dtype)
            parts[name] = part.probed(inputs, box)
        return replace(self, parts=parts, runtime=_Runtime(parts, self.joint)).compared(points, domain)

    def compared(self, points: Tensor, domain: Domain) -> Subject:
        """Return the subject once the joint graph agrees with the models together."""
        return Subject.probed(self, points, domain)


@dataclass(frozen=True, eq=False)
class _Runtime:
    """From joint points `(batch, inputs)` to joint outputs `(batch, outputs)`, in float64, which holds all of them."""

    parts: Mapping[str, Subject]
    joint: Joint

    def __call__(self, points: np.ndarray) -> np.ndarray:
        tensor = torch.from_numpy(np.ascontiguousarray(points))
        found = []
        for copy in self.joint.copies:
            part = self.parts[copy.network]
            inputs = gathered(copy, tensor).reshape(len(points), *part.network.input_shape).to(part.network.dtype)
            outputs = part.outputs(inputs, ["a point of several models"] * len(points))
            found.append(np.asarray(outputs, dtype=np.float64).reshape(len(points), -1))
        found.append(points[:, list(self.joint.shown)].astype(np.float64))
        return np.concatenate(found, axis=1)


def gathered(copy: Copy, points: Tensor) -> Tensor:
    """Return the inputs `(batch, own inputs)` of a copy at joint points `(batch, ...)`; none is rounded."""
    flat = points.flatten(1)
    places = torch.tensor(copy.places)
    values = flat[:, places.clamp(min=0)]
    if not copy.constants:
        return values
    return torch.where(places >= 0, values, torch.tensor(copy.constants, dtype=torch.float64).to(values.dtype))


def load_copies(
    model: Model,
    networks: Mapping[str, Model],
    joint: Joint | None,
    *,
    input_shape: Shape | None = None,
    device: str = "auto",
    limits: Limits = Limits(),
) -> Subject:
    """Return the model that a property is about, or its copies of several; networks: the others, by their names.

    input_shape: of a single torch module. Raises ValueError where a model is missing, or one is not asked about.
    """
    _check_named(joint, networks)
    if joint is None:
        return load_model(model, input_shape=input_shape, device=device, limits=limits)
    shapes = {copy.network: copy.shape for copy in joint.copies}
    given = {joint.networks[0]: model, **networks}
    parts = {
        name: load_model(given[name], input_shape=shapes[name], device=device, limits=limits)
        for name in joint.networks
    }  # fmt: skip
    return joined(parts, joint)


def joined(parts: Mapping[str, Subject], joint: Joint) -> JointSubject:
    """Return copies of models as one; ValueError where a copy does not fit its model."""
    networks_of = {name: part.network for name, part in parts.items()}
    network = join_networks(joint, networks_of)
    sharper = join_networks(joint, networks_of, as_differences=True) if shares_structure(joint, networks_of) else None
    first = next(iter(parts.values()))
    return JointSubject(
        " and ".join(part.name for part in parts.values()), network, _Runtime(parts, joint), first.device,
        sharper=sharper, parts=parts, joint=joint,
    )  # fmt: skip


def _check_named(joint: Joint | None, networks: Mapping[str, Model]) -> None:
    """Raise ValueError where a further network of copies has no model, or a model is of none of them."""
    names = [] if joint is None else list(joint.networks[1:])
    missing = [name for name in names if name not in networks]
    if missing:
        raise ValueError(
            f"the property is about {len(names) + 1} networks; name the model of {', '.join(missing)} by "
            f"--network {missing[0]}=FILE (the model that is given is {joint and joint.networks[0]})"
        )
    unknown = [name for name in networks if name not in names]
    if unknown:
        others = f"beside {joint.networks[0]}, the model, it is about {', '.join(names)}" if joint and names else ""
        raise ValueError(
            f"the property asks nothing of a network {unknown[0]!r}: {others or 'it is about one model alone'}"
        )


def copies_at(joint: Joint, point: Tensor, outputs: np.ndarray) -> list[tuple[str, Tensor, np.ndarray]]:
    """Return (network, input, outputs) of each copy at a joint point with joint outputs."""
    found, start = [], 0
    for copy in joint.copies:
        found.append((copy.network, gathered(copy, point[None])[0], outputs[start : start + copy.outputs]))
        start += copy.outputs
    assert start == math.prod(outputs.shape) - len(joint.shown)
    return found
