"""What `verify` returns: of each property its verdict and its witness, as JSON and as VNN-COMP writes it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from verifier.joint_subject import copies_at
from verifier.properties import PropertyWitness
from verifier.runs.records import SCHEMA
from verifier.summaries.verify import PropertySummary


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class VerifiedProperty(PropertySummary):
    """What is known of one property. witness: with `sat`."""

    witness: PropertyWitness | None

    def to_json(self) -> dict[str, Any]:
        """Return its entry in the object that `--json` prints."""
        witness = self.witness
        numbers: dict[str, Any] | None = None
        if witness is not None:
            numbers = {"input": _flat(witness.point), "output": _flat(witness.outputs)}
            if witness.joint is not None:
                numbers["copies"] = [
                    {"network": network, "input": _flat(x), "output": _flat(y)}
                    for network, x, y in copies_at(witness.joint, witness.point, witness.outputs)
                ]
        return {**super().to_json(), "witness": numbers}

    def to_text(self) -> str:
        """Return the result in the format of VNN-COMP: the verdict, after `sat` the witness.

        Of several copies of networks the inputs stand one after the other, and then the outputs.
        """
        if self.witness is None:
            return f"{self.verdict.value}\n"
        point, outputs = self.witness.point, self.witness.outputs
        copies = [("", point, outputs)] if self.witness.joint is None else copies_at(self.witness.joint, point, outputs)
        inputs = [value for _, x, _ in copies for value in _flat(x)]
        values = [f"(X_{i} {value!r})" for i, value in enumerate(inputs)]
        values += [f"(Y_{i} {value!r})" for i, value in enumerate(v for _, _, y in copies for v in _flat(y))]
        return "sat\n(" + "\n".join(values) + ")\n"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class VerifyResult:
    """What `verify` returns.

    model, digest, about: as of `VerbResult`. properties: in the order they were given. inputs: how many boxes they ask
    about. records: the run's records.jsonl, if kept. warnings: what was damaged.
    """

    model: str
    digest: str
    about: str
    properties: tuple[VerifiedProperty, ...]
    inputs: int
    seconds: float
    records: Path | None
    warnings: tuple[str, ...]

    @property
    def data(self) -> str:
        """What was asked about, in a few words."""
        return f"{len(self.properties)} properties, {self.inputs} boxes"

    def to_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        return {
            "schema": SCHEMA, "command": "verify", "model": self.model, "digest": self.digest, "about": self.about,
            "inputs": self.inputs, "seconds": self.seconds, "records": None if not self.records else str(self.records),
            "warnings": list(self.warnings), "properties": [each.to_json() for each in self.properties],
        }  # fmt: skip


def _flat(values: Tensor | NDArray[Any]) -> list[float]:
    """Return numbers as they are, in C order."""
    return [float(value) for value in values.flatten()]
