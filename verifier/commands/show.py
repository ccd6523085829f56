"""What a model file holds, and what there is to ask about it with."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from encoders.formats.errors import Problem, UnsupportedNodesError
from encoders.network import Network
from encoders.passes.class_scores import ClassScores, class_scores
from verifier.subject import open_model


@dataclasses.dataclass(frozen=True, eq=False)
class ShowResult:
    """What `show` returns.

    network: of the model file; None without a model, or where it cannot be read.
    metadata: what the file says beside it, as text.
    methods, attacks, supports: which lists were asked for.
    unsupported: with `supports`, every node that cannot be read, each with its `reason` and `remedy`.
    """

    network: Network | None
    metadata: dict[str, str]
    methods: bool = False
    attacks: bool = False
    supports: bool = False
    unsupported: tuple[Problem, ...] = ()

    @property
    def refused(self) -> bool:
        """Whether the model cannot be read."""
        return bool(self.unsupported)

    @property
    def classifier(self) -> ClassScores | None:
        """The model as a classifier; None where it is none."""
        try:
            return None if self.network is None else class_scores(self.network)
        except ValueError:
            return None

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints: the model, its nodes, and those that are not supported; no tables."""
        network = self.network
        model: dict[str, Any] = {} if network is None else {
            "source": network.source,
            "digest": network.digest,
            "dtype": str(network.dtype).removeprefix("torch."),
            "input_shape": list(network.input_shape),
            "output_shape": list(network.output_shape),
            "weights": network.parameter_count,
            "classes": "" if self.classifier is None else self.classifier.note,
            "nodes": [
                {
                    "node": node.name,
                    "op": node.op.kind,
                    "inputs": list(node.inputs),
                    "shape": list(network.shapes[node.name]),
                    "views": list(node.op.views()),
                }
                for node in network.nodes
            ],
        }  # fmt: skip
        problems = [{**dataclasses.asdict(problem), "remedy": problem.remedy} for problem in self.unsupported]
        support = {"supported": network is not None, "unsupported": problems}
        return {"command": "show", **model, "metadata": self.metadata, **support}


def show(
    model: str | Path | None = None, *, methods: bool = False, attacks: bool = False, supports: bool = False
) -> ShowResult:
    """Return what a model file holds; nothing is run, and the graph is not compared with its runtime.

    model: a file (.onnx, .pt2, .safetensors) or a shipped name; None: only the tables.
    methods, attacks: also list those that exist, and why a method does not take the model.
    supports: return the nodes of the file that are not supported instead of raising for them.

    Raises ValueError with what is wrong, also where nothing is asked.
    """
    if model is None and (supports or not (methods or attacks)):
        words = "--supports needs a MODEL" if supports else "name a MODEL, or ask for --methods or --attacks"
        raise ValueError(words)
    try:
        network, metadata = (None, {}) if model is None else open_model(model)
    except UnsupportedNodesError as error:
        if not supports:
            raise
        return ShowResult(None, {}, methods, attacks, supports, error.problems)
    return ShowResult(network, {key: str(value) for key, value in metadata.items()}, methods, attacks, supports)
