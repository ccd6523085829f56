"""A property of one model as a question that methods take, and what makes a point a witness against it.

Methods decide whether a class wins on a region. A property is that question about another network
(`encoders.passes.margins_of_property`), or about the model itself where its unsafe set is that of a class; the region
is the ball around the middle of its box, cut to the box. Proofs are about the stored, outer numbers of the property,
witnesses are tested against what was written.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from encoders.box import Box
from encoders.exact_order import evaluate_exactly
from encoders.joint import Joint
from encoders.network import Network
from encoders.passes.class_scores import before_order
from encoders.passes.margins_of_property import margins_of_property, ordered
from encoders.property import Halfspaces, Property
from encoders.rationals import NotEvaluated
from encoders.region import BallRegion
from verifier.batch import Batch
from verifier.subject import Subject


@dataclass(frozen=True, eq=False)
class PropertyWitness:
    """A counterexample to a property as it was written: replayed in the user's model, and unsafe in real arithmetic.

    point: in the model's input shape and dtype; in float64 where no number of that dtype lies in the box, which the
    model then rounds. outputs: the user's model gives there, `output_shape`.
    joint: the copies of networks that both belong to; None for one network alone.
    """

    point: Tensor
    outputs: np.ndarray
    joint: Joint | None = None


@dataclass(frozen=True, eq=False)
class Question:
    """Whether a class of `batch.subject` wins on the whole region: exactly if the property holds.

    subject: the user's model; proved: its network, or what comes before last ops that keep the order of outputs, where
    the property is about their order alone; asked: in the shape of the input; batch: of one input.
    """

    subject: Subject
    proved: Network
    asked: Property
    batch: Batch
    region: BallRegion

    @property
    def network(self) -> Network:
        """The network that methods are asked about."""
        return self.batch.subject.network

    @property
    def no_input(self) -> str | None:
        """Why no float64 lies in the box as it was written, so that there is no witness; or None."""
        missing = _without_number(self.asked, torch.float64)
        if not missing:
            return None
        least, greatest = (float(end.flatten()[missing[0]]) for end in (self.asked.lower, self.asked.upper))
        return (
            f"no float64 lies between {least!r} and {greatest!r}, the bounds of input {missing[0]}, so that there is "
            "no witness"
        )

    def confirm(self, point: Tensor) -> PropertyWitness | str:
        """Return the witness that a point `input_shape` is, in the dtype of `network`; or why it is none.

        A point in the stored box that leaves the written one is moved inside.
        """
        missing = self.no_input
        if missing is not None:
            return missing
        lower, upper = (end[None] for end in self.asked.witness_box)
        point = BallRegion.of_box(Box(lower, upper)).clip(point[None].cpu(), point.dtype)
        outputs = self.subject.outputs(point, ["a witness"])[0]
        if not self.asked.contains(point[0], torch.from_numpy(np.asarray(outputs, dtype=np.float64))):
            return "a point is unsafe in real arithmetic, but not in the model's execution of it alone"
        reason = unproved(self.proved, self.asked.unsafe, point)
        return PropertyWitness(point[0], outputs, self.asked.joint) if reason is None else reason


# The networks of margins by their unsafe sets, of which many boxes of a file have the same.
KnownMargins = dict[tuple[bytes, ...], Network]


def ask(subject: Subject, asked: Property, seed: int, known: KnownMargins | None = None) -> Question:
    """Return the question of a property with unsafe sets; ValueError where it does not fit the model.

    subject: its agreement compares every point that is run with the graph. known: of this model, filled in.
    """
    network, sharper = subject.network, subject.sharper
    asked = asked.shaped(network.input_shape, int(np.prod(network.output_shape, dtype=int)))
    if asked.compares_outputs:
        network, _ = before_order(network)
    if _without_number(asked, network.dtype):
        # Points are looked for in float64 then, and the same weights hold them.
        network, sharper = _in_float64(network), sharper and _in_float64(sharper)
    winner = asked.reference_class if len(network.output_shape) == 1 else None
    if winner is None:
        unsafe = ordered(asked.unsafe)
        known = {} if known is None else known
        own = _margins(network, asked.unsafe, known, "plain")
        others = None if sharper is None else _margins(sharper, asked.unsafe, known, "sharper")
        margins = replace(
            subject, network=own, sharper=others, agreement=None,
            runtime=lambda points: run_margins(subject, unsafe, points),
        )  # fmt: skip
    else:
        margins = replace(
            subject, network=network, sharper=sharper, agreement=None,
            runtime=lambda points: _run(subject, points).reshape(len(points), -1),
        )  # fmt: skip
    device = subject.device
    domain = Box(*(end[None].to(device) for end in (asked.lower, asked.upper)))
    region, reach = _region(asked, domain, subject.network.dtype)
    classes = torch.tensor([winner or 0], device=device)
    batch = Batch(
        margins, region.centre, classes, (seed,), domain, reach, region.norm,
        conjunctions=(sharper or network, asked.unsafe),
    )  # fmt: skip
    return Question(subject, network, asked, batch, region)


def _region(asked: Property, domain: Box, dtype: torch.dtype) -> tuple[BallRegion, float]:
    """Return (the region of a property, a radius within which its whole box lies)."""
    if asked.ball is None:
        region = BallRegion.around(start(asked, dtype).to(domain.lower.device), domain)
        return region, float(region.radius[0])
    centre = asked.ball.centre[None].to(domain.lower.device)
    radius = torch.full((1,), asked.ball.radius, dtype=torch.float64, device=centre.device)
    region = BallRegion(centre, radius, domain, asked.ball.norm)
    farthest = torch.where(domain.upper - centre > centre - domain.lower, domain.upper, domain.lower)
    return region, max(float(region.distance(farthest)), asked.ball.radius)


def _without_number(asked: Property, dtype: torch.dtype) -> list[int]:
    """Return the inputs whose bounds, as they were written, have no number of a dtype between them."""
    lower, upper = (end[None] for end in asked.witness_box)
    inside = torch.minimum(lower, upper)
    nearest = BallRegion.of_box(Box(inside, upper)).clip(inside, dtype).to(torch.float64)
    missing: list[int] = ((nearest < lower) | (nearest > upper)).flatten().nonzero().flatten().tolist()
    return missing


def _in_float64(network: Network) -> Network:
    """Return the network of the same weights, run in float64."""
    return Network(network.cast(torch.float64).nodes, network.input_shape, torch.float64, network.source)


def _margins(network: Network, unsafe: tuple[Halfspaces, ...], known: KnownMargins, form: str) -> Network:
    """Return the network of margins behind a form of the model's network, made once."""
    # Last ops are left out for some properties and not for others.
    key = (*_numbers(unsafe), f"{network.dtype} {len(network.nodes)} {form}".encode())
    if key not in known:
        known[key] = margins_of_property(network, unsafe)
    return known[key]


def _numbers(unsafe: tuple[Halfspaces, ...]) -> tuple[bytes, ...]:
    """Return all that the network of margins depends on, beside the model."""
    pairs = ((halfspaces.coefficients, halfspaces.offsets) for halfspaces in unsafe)
    return tuple(values.cpu().contiguous().numpy().tobytes() for pair in pairs for values in pair)


def run_margins(subject: Subject, unsafe: list[Halfspaces], points: np.ndarray) -> np.ndarray:
    """Return (0, -z_1, ..., -z_K) `(batch, 1 + K)` of the user's model, float64, with exact signs.

    -z_k is at least zero exactly where the outputs lie in polyhedron k as it was written, so never for NaN.
    """
    outputs = _run(subject, points)
    flat = torch.from_numpy(outputs.astype(np.float64)).flatten(1)
    margins = np.zeros((len(outputs), 1 + len(unsafe)))
    for number, halfspaces in enumerate(unsafe, start=1):
        least = (halfspaces.offsets - flat @ halfspaces.coefficients.T).amin(dim=1).nan_to_num(-1.0).numpy()
        inside = np.array([halfspaces.contains(row) for row in flat])
        tiny = np.finfo(np.float64).tiny
        margins[:, number] = np.where(inside, np.maximum(least, 0.0), np.minimum(least, -tiny))
    return margins


def unproved(network: Network, unsafe: tuple[Halfspaces, ...], point: Tensor) -> str | None:
    """Return None if the real outputs at a point `(1, *input_shape)` lie in one of the polyhedra, else why it is open.

    The interval of the point encloses the real outputs; where that is not enough they are evaluated in rationals.
    """
    exact = point.detach().cpu().to(torch.float64)
    (box,) = network.interval(Box.point(exact))
    if any(_holds_all(halfspaces, box) for halfspaces in unsafe):
        return None
    try:
        outputs = evaluate_exactly(network, exact).values()
    except NotEvaluated as error:
        return f"a point is unsafe in the model's execution; in real arithmetic {error}"
    if any(halfspaces.contains(outputs) for halfspaces in unsafe):
        return None
    return "a point is unsafe in the model's execution alone, by its rounding"


def _holds_all(halfspaces: Halfspaces, box: Box) -> bool:
    """Return whether a polyhedron holds every point of a box of outputs: row by row the corner that is worst for it."""
    lower, upper = box.lower.flatten(), box.upper.flatten()
    if not bool((lower.isfinite() & upper.isfinite()).all()):
        return False
    worst = [torch.where(row > 0, upper, lower) for row in halfspaces.coefficients]
    return all(halfspaces.row(number).contains(corner) for number, corner in enumerate(worst))


def _run(subject: Subject, points: np.ndarray) -> np.ndarray:
    """Return the outputs of the user's model, once they are seen to be those of the graph."""
    return subject.outputs(points, ["a point that was tried"] * len(points))


def start(asked: Property, dtype: torch.dtype) -> Tensor:
    """Return the middle of a box `(1, *shape)`, float64: numbers of a dtype where the sides hold one."""
    box = Box(asked.lower[None], asked.upper[None])
    region = BallRegion.of_box(box)
    centre = region.clip(region.centre, dtype).to(torch.float64)
    return torch.where((box.lower <= centre) & (centre <= box.upper), centre, region.centre)
