"""Any property of a model: proved, broken by a witness, or open.

`verify` ties the parts together: model, properties, method. What a property is as a question about classes, and what
makes a point a witness against it, stands in `verifier.properties`.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

import torch
from numpy.typing import NDArray
from torch import Tensor

from encoders.box import Box
from encoders.files import write_atomically
from encoders.formats import read_property
from encoders.limits import Limits
from encoders.property import Property
from verifier.agreement import INPUTS
from verifier.answers import Answer
from verifier.budget import Budget
from verifier.commands.request import Model
from verifier.commands.verify_request import Verdict, VerifyOptions, VerifyRequest
from verifier.methods import find_method, find_prover
from verifier.methods.suitable import check_method
from verifier.properties import PropertyWitness, Question, ask, start
from verifier.runs.records import SCHEMA
from verifier.subject import Subject, load_model
from verifier.threads import threads_for
from verifier.verdict import Strength

# A property, a file of one or more, or several of these.
Asked = Property | str | Path


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class VerifiedProperty:
    """What is known of one property, or of a file, which may ask about several boxes.

    property: its name. verdict: about all its boxes together. seconds: for it alone.
    witness: with `sat`. strength: with `unsat`, of the weakest proof. method: what proved a box or found the witness;
    empty where nothing had to be done. reason: why it is open, or what must be said of a proof.
    """

    property: str
    verdict: Verdict
    seconds: float = 0.0
    boxes: int = 1
    witness: PropertyWitness | None = None
    strength: Strength | None = None
    method: str = ""
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return its entry in the object that `--json` prints."""
        witness = self.witness
        numbers = None if witness is None else {"input": _flat(witness.point), "output": _flat(witness.outputs)}
        return {
            "property": self.property, "verdict": self.verdict.value, "seconds": self.seconds, "certificate": None,
            "witness": numbers, "boxes": self.boxes, "strength": None if self.strength is None else self.strength.value,
            "method": self.method, "reason": self.reason,
        }  # fmt: skip

    def to_text(self) -> str:
        """Return the result in the format of VNN-COMP: the verdict, after `sat` the witness."""
        if self.witness is None:
            return f"{self.verdict.value}\n"
        values = [f"(X_{i} {value!r})" for i, value in enumerate(_flat(self.witness.point))]
        values += [f"(Y_{i} {value!r})" for i, value in enumerate(_flat(self.witness.outputs))]
        return "sat\n(" + "\n".join(values) + ")\n"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class VerifyResult:
    """What `verify` returns.

    model, digest: the name of the model, and what identifies its network. properties: in the order they were given.
    seconds: of the whole command.
    """

    model: str
    digest: str
    properties: tuple[VerifiedProperty, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        return {
            "schema": SCHEMA, "command": "verify", "model": self.model, "digest": self.digest, "seconds": self.seconds,
            "properties": [verified.to_json() for verified in self.properties],
        }  # fmt: skip


def verify(
    model: Model,
    properties: Asked | Sequence[Asked],
    *,
    results: str | Path | None = None,
    **options: Unpack[VerifyOptions],
) -> VerifyResult:
    """Return for each property whether it holds: no input of its box has outputs in its unsafe set.

    model: a file (.onnx, .pt2, .safetensors), a shipped name, or a torch module.
    properties: `Property` objects, or VNN-LIB files, of which each has one verdict over all its boxes.
    results: a file to write in the format of VNN-COMP, where one property is asked about.
    options: as `VerifyRequest` says.

    unsat is a proof in real arithmetic on the stored weights; sat has a witness of the model's dtype, in the box
    without tolerance, unsafe in the user's own model and in real arithmetic; what a solver alone vouches for is
    unknown. Raises ValueError with what is wrong before any work starts, and where graph and model disagree.
    """
    began, request = time.perf_counter(), VerifyRequest(**options)
    given = [properties] if isinstance(properties, Property | str | Path) else list(properties)
    find_method(request.method, "inf")
    if not given or (results is not None and len(given) > 1):
        raise ValueError("name a property" if not given else "a results file is about one property: ask about one")
    asked = [_read(one, f"property {number}", request.limits) for number, one in enumerate(given)]
    work = _Work(_load(model, asked, request), request)
    work.check(asked)
    done: list[VerifiedProperty] = []
    with threads_for(work.subject.network.parameter_count):
        for one in asked:
            done.append(work.decided(one))
            if request.progress is not None:
                request.progress(len(done), len(asked))
    if results is not None:
        write_atomically(Path(results), done[0].to_text().encode())
    name, digest = work.subject.name, work.subject.network.digest
    return VerifyResult(model=name, digest=digest, properties=tuple(done), seconds=time.perf_counter() - began)


@dataclasses.dataclass(frozen=True, eq=False)
class _Asked:
    """A property as it was given: its name, and the boxes that it asks about."""

    name: str
    boxes: tuple[Property, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class _Work:
    """A model, compared with its graph, and how it is asked."""

    subject: Subject
    request: VerifyRequest

    def check(self, asked: Sequence[_Asked]) -> None:
        """Raise ValueError where a property does not fit the model, or the method does not take the question."""
        for one in asked:
            for box in one.boxes:
                if box.unsafe:
                    check_method(self.request.method, ask(self.subject, box, self.request.seed).network, "inf")

    def decided(self, one: _Asked) -> VerifiedProperty:
        """Return what is known of all boxes of a property, in turn until one has a witness or the time is up."""
        budget, started = Budget(self.request.time_limit), time.perf_counter()
        parts: list[VerifiedProperty] = []
        for box in one.boxes:
            parts.append(self._decided(one.name, box, budget))
            if parts[-1].verdict in (Verdict.SAT, Verdict.TIMEOUT):
                break
        worst = max(parts, key=lambda part: list(Verdict).index(part.verdict))
        reasons = [part.reason for part in parts if part.verdict is worst.verdict and part.reason is not None]
        strengths = [part.strength for part in parts if part.strength is not None]
        return dataclasses.replace(
            worst, boxes=len(one.boxes), seconds=time.perf_counter() - started, reason=next(iter(reasons), None),
            strength=max(strengths, key=list(Strength).index) if worst.verdict is Verdict.UNSAT else None,
        )  # fmt: skip

    def _decided(self, name: str, box: Property, budget: Budget) -> VerifiedProperty:
        if not box.unsafe:
            reason = "vacuously true: nothing is unsafe" + (f" ({box.note})" if box.note else "")
            return VerifiedProperty(property=name, verdict=Verdict.UNSAT, strength=Strength.CHECKED, reason=reason)
        question = ask(self.subject, box, self.request.seed)
        (answer,) = find_prover(self.request.method).decide(question.batch, question.region, budget)
        found = None if answer.witness is None else question.confirm(answer.witness.point)
        if isinstance(found, PropertyWitness):
            method = answer.bracket.upper_method
            return VerifiedProperty(property=name, verdict=Verdict.SAT, witness=found, method=method)
        if found is None and answer.bracket.lower >= float(question.region.radius[0]):
            bracket = answer.bracket
            return VerifiedProperty(
                property=name, verdict=Verdict.UNSAT, strength=bracket.strength, method=bracket.lower_method
            )
        if budget.exhausted:
            return VerifiedProperty(property=name, verdict=Verdict.TIMEOUT, reason=found or answer.reason)
        return VerifiedProperty(property=name, verdict=Verdict.UNKNOWN, reason=found or _why_open(answer, question))


def _why_open(answer: Answer, question: Question) -> str:
    """Return why neither a proof nor a witness was found."""
    if answer.vouched_safe(float(question.region.radius[0])):
        return f"safe by the word of a solver alone ({answer.bracket.trusted_method}), which proves nothing"
    return question.no_input or answer.reason or "the method neither proves it nor finds a witness"


def _read(given: Asked, name: str, limits: Limits) -> _Asked:
    if isinstance(given, Property):
        return _Asked(given.name or given.source or name, (given,))
    return _Asked(str(given), read_property(given, limits))


def _load(model: Model, asked: Sequence[_Asked], request: VerifyRequest) -> Subject:
    """Return the model, seen to be its graph all over the boxes; ValueError where it is not, or they do not fit it."""
    boxes = [box for one in asked for box in one.boxes]
    shape = tuple(boxes[0].lower.shape)
    subject = load_model(model, input_shape=shape, device=request.device, limits=request.limits)
    network = subject.network
    outputs = math.prod(network.output_shape)
    shaped = [box.shaped(network.input_shape, outputs) for box in boxes]
    lower, upper = (torch.stack(ends) for ends in ([box.lower for box in shaped], [box.upper for box in shaped]))
    hull = Box(lower.amin(dim=0, keepdim=True), upper.amax(dim=0, keepdim=True))
    reach = torch.cat([hull.lower, hull.upper]).to(network.dtype)
    if not bool(reach.isfinite().all()):
        raise ValueError(f"{subject.name} takes {network.dtype}, which does not hold the bounds of every property")
    middles = [start(box, network.dtype) for box in shaped[:INPUTS]]
    return subject.probed(torch.cat(middles).to(network.dtype), hull)


def _flat(values: Tensor | NDArray[Any]) -> list[float]:
    """Return numbers as they are, in C order."""
    return [float(value) for value in values.flatten()]
