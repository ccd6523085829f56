"""The model under test: its network, the user's own runtime for replay, and where it is computed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from encoders.formats import open_runtime, read_metadata, read_network
from encoders.formats import runtime as framework
from encoders.limits import Limits
from encoders.network import INPUT, Network, Node
from encoders.ops import AddConstant, DivideConstant
from encoders.passes.class_scores import ClassScores, class_scores
from encoders.region import Domain, domain_ends
from verifier.agreement import Agreement
from verifier.zoo import shipped_models

# What a model predicts whose outputs are not finite.
NO_CLASS = -1
Runtime = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Subject:
    """A model, mostly a classifier, as graph (`network`) and as the user runs it (`runtime`, numpy in, numpy out).

    `runtime` takes `(batch, *input_shape)` in the network's dtype and returns what the model does. agreement: what
    compares the two, once they were `probed`. classifier: how the outputs are scores of classes, where they are not as
    they stand; `network` then gives the scores, and the runtime is compared with `classifier.model`. sharper: a network
    of the same values in real arithmetic whose linear bounds are tighter, where there is one.
    """

    name: str
    network: Network
    runtime: Runtime
    device: torch.device
    agreement: Agreement | None = None
    classifier: ClassScores | None = None
    sharper: Network | None = None

    @property
    def digest(self) -> str:
        """What identifies the model's network."""
        return (self.network if self.classifier is None else self.classifier.model).digest

    @property
    def note(self) -> str:
        """How the outputs are read as classes, in a sentence; empty where they are scores as they stand."""
        return "" if self.classifier is None else self.classifier.note

    @property
    def classes(self) -> int:
        """The number of classes."""
        return int(self.network.output_shape[0])

    def points(self, inputs: np.ndarray, domain: Domain) -> Tensor:
        """Return inputs `(n, *input_shape)` as the model takes them: in its dtype, rounded into the domain.

        Raises ValueError if they are beyond what that dtype holds.
        """
        centres = torch.tensor(inputs).to(self.network.dtype)
        if not bool(centres.isfinite().all()):
            raise ValueError(
                f"{self.name} takes {self.network.dtype}, which does not hold inputs as large as "
                f"{float(np.abs(inputs).max()):.3g}; scale the data, or export the model in float64"
            )
        if domain is not None:
            exact = centres.to(torch.float64)
            least, greatest = domain_ends(domain, exact)
            up, down = (torch.nextafter(centres, torch.full_like(centres, end)) for end in (math.inf, -math.inf))
            centres = torch.where(exact < least, up, torch.where(exact > greatest, down, centres))
        return centres

    def probed(self, points: Tensor, domain: Domain) -> Subject:
        """Return the subject once graph and runtime agree at points `(n, *input_shape)` and all over the domain.

        Raises DisagreementError, which names the point, otherwise.
        """
        graph = self.network if self.classifier is None else self.classifier.model
        agreement = Agreement(self.name, graph, self.runtime).probed(points.numpy(), domain)
        return replace(self, agreement=agreement)

    def outputs(self, points: Tensor | np.ndarray, where: Sequence[str]) -> np.ndarray:
        """Return `execute(points)`, once the outputs are seen to be those of the graph; where: of each point."""
        taken = self._taken(points)
        outputs = self._run(taken)
        if self.agreement is not None:
            self.agreement.check(taken, outputs, where)
        return outputs if self.classifier is None else self.classifier.read(outputs)

    def execute(self, points: Tensor | np.ndarray) -> np.ndarray:
        """Return the outputs `(batch, classes)` of the user's model, read as scores of classes."""
        outputs = self._run(self._taken(points))
        return outputs if self.classifier is None else self.classifier.read(outputs)

    def _run(self, points: np.ndarray) -> np.ndarray:
        """Return the outputs of the user's model as they are."""
        return np.asarray(self.runtime(np.ascontiguousarray(points)))

    def _taken(self, points: Tensor | np.ndarray) -> np.ndarray:
        """Return points as the model takes them: those of float64 are rounded to its dtype."""
        tensor = points.detach().cpu() if isinstance(points, Tensor) else torch.from_numpy(points)
        array: np.ndarray = tensor.to(self.network.dtype).numpy()
        return array


def classes_of(outputs: np.ndarray) -> np.ndarray:
    """Return the class `(batch,)` of the largest output; NO_CLASS where an output is NaN or infinite."""
    return np.where(np.isfinite(outputs).all(axis=1), outputs.argmax(axis=1), NO_CLASS)


def load_model(
    model: str | Path | nn.Module,
    *,
    input_shape: Sequence[int] | None = None,
    device: str = "auto",
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    limits: Limits = Limits(),
) -> Subject:
    """Return the model of a file, of a shipped name, or of a torch module (which needs `input_shape`).

    It need not be a classifier: outputs may have any shape. mean, std: prepend (x - mean) / std, one value or one for
    each channel; the digest covers it. Raises ValueError with what is wrong and what to do.
    """
    if isinstance(model, nn.Module):
        if input_shape is None:
            raise ValueError("a torch module does not state its input shape; pass it, without the batch")
        from encoders.formats.torch_export import from_module, open_module

        network, runtime = from_module(model, tuple(input_shape)), open_module(model, tuple(input_shape))
        name = type(model).__name__
    else:
        path = _locate(model)
        network, runtime, name = read_network(path, limits), open_runtime(path, limits), str(model)
    subject = Subject(name, network, runtime, choose_device(device))
    return _normalised(subject, mean, std) if len(mean) or len(std) else subject


def load_subject(
    model: str | Path | nn.Module,
    *,
    input_shape: Sequence[int] | None = None,
    device: str = "auto",
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    limits: Limits = Limits(),
) -> Subject:
    """Return the classifier of a file, of a shipped name, or of a torch module, as `load_model` does."""
    subject = load_model(model, input_shape=input_shape, device=device, mean=mean, std=std, limits=limits)
    classifier = class_scores(subject.network)
    return replace(subject, network=classifier.network, classifier=classifier) if classifier.note else subject


def open_model(model: str | Path) -> tuple[Network, dict[str, Any]]:
    """Return the network and the metadata of a file or a shipped name."""
    path = _locate(model)
    return read_network(path), read_metadata(path)


def choose_device(device: str) -> torch.device:
    """Return the torch device of `auto`, `cpu` or `cuda`; raise ValueError if it is not there."""
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"unknown device {device!r}; supported: auto, cpu, cuda")
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise ValueError("device cuda was asked for, but torch finds none here; use auto or cpu")
    return torch.device("cuda" if available and device != "cpu" else "cpu")


def _locate(model: str | Path) -> Path:
    """Return the file of a shipped name or a path; a file of the same name in the working folder wins."""
    path = Path(model)
    shipped = shipped_models()
    if not path.exists() and str(model) in shipped:
        return shipped[str(model)]
    if not path.exists() and not path.suffix:
        raise ValueError(f"no file and no shipped model is called {str(model)!r}; shipped: {', '.join(shipped)}")
    return path


def _normalised(subject: Subject, mean: Sequence[float], std: Sequence[float]) -> Subject:
    """Return the subject with (x - mean) / std in front, in the graph and in the runtime."""
    network = subject.network
    shift, scale = (
        _per_channel(values, default, network, option)
        for values, default, option in ((mean, 0.0, "--mean"), (std, 1.0, "--std"))
    )
    if not bool((scale > 0).all()):
        raise ValueError("--std must hold positive numbers")
    names = ("normalise.mean", "normalise.std")
    front = (Node(names[0], AddConstant(-shift), (INPUT,)), Node(names[1], DivideConstant(scale), (names[0],)))
    rest = tuple(
        replace(node, inputs=tuple(names[1] if name == INPUT else name for name in node.inputs))
        for node in network.nodes
    )
    wrapped = Network((*front, *rest), network.input_shape, network.dtype, network.source)
    runtime, minus, by = subject.runtime, shift.numpy(), scale.numpy()

    def normalised(x: np.ndarray) -> np.ndarray:
        result: np.ndarray = (x - minus) / by
        return result

    def before(run: Runtime) -> Runtime:
        return lambda x: run(normalised(x))

    if not isinstance(runtime, framework.Runtime):
        return replace(subject, network=wrapped, runtime=before(runtime))
    variants, inner = {name: before(run) for name, run in runtime.variants.items()}, runtime.values
    values = None if inner is None else lambda x: inner(normalised(x))
    return replace(
        subject, network=wrapped, runtime=replace(runtime, run=before(runtime.run), variants=variants, values=values)
    )


def _per_channel(values: Sequence[float], default: float, network: Network, option: str) -> Tensor:
    """Return the values as a constant that broadcasts over the network's input."""
    shape = network.input_shape
    numbers = torch.tensor(list(values) or [default], dtype=network.dtype)
    if not bool(numbers.isfinite().all()):
        raise ValueError(f"{option} must hold finite numbers, got {list(values)}")
    if len(numbers) == 1:
        return numbers.reshape([1] * len(shape))
    if not shape or len(numbers) != shape[0]:
        raise ValueError(f"{option} takes one value or one for each channel, got {len(numbers)} for shape {shape}")
    return numbers.reshape(-1, *[1] * (len(shape) - 1))
