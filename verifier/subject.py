"""The model under test: its network, the user's own runtime for replay, and where it is computed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
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
from verifier.devices.choice import choose_device, work_of
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
    of the same values in real arithmetic whose linear bounds are tighter, where there is one. mean, draws_within: where
    `network` stands for all draws of a randomised network within so many deviations, that network, and the number.
    """

    name: str
    network: Network
    runtime: Runtime
    device: torch.device
    agreement: Agreement | None = None
    classifier: ClassScores | None = None
    sharper: Network | None = None
    mean: Network | None = None
    draws_within: float | None = None

    @property
    def digest(self) -> str:
        """What identifies the model's network."""
        return (self.mean or self.network if self.classifier is None else self.classifier.model).digest

    @property
    def about(self) -> str:
        """What is asked about where the network is randomised, in a sentence; empty where it is not."""
        return about(self.randomness)

    @property
    def share_of_draws(self) -> float | None:
        """The probability that a draw is one of those asked about; None where none are."""
        within = self.draws_within
        return None if self.mean is None or within is None else self.mean.share_of_draws(within)

    @property
    def randomness(self) -> dict[str, Any]:
        """What run.json states of that: nothing of a network that is not randomised."""
        if self.draws_within is not None:
            return {"draws_within": self.draws_within}
        return {"randomised": "mean"} if self.network.randomised else {}

    def over_draws(self, deviations: float) -> Subject:
        """Return the subject of all draws within so many deviations of the means; values and runtime are of the mean.

        Raises ValueError where nothing is random, or the number is none.
        """
        if not self.network.randomised:
            raise ValueError(f"{self.name} has no random op, so there are no draws of it: leave out --draws-within")
        within = self.network.over_draws(deviations)
        return replace(self, network=within, sharper=None, mean=self.network, draws_within=float(deviations))

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


def about(randomness: Mapping[str, Any]) -> str:
    """Return in a sentence what a run is about whose run.json states so of randomness; empty where it states nothing.

    Every answer about a randomised network is about its mean, unless draws are asked about.
    """
    if "draws_within" in randomness:
        return (
            f"certified: every draw of the randomised network whose weights all lie within "
            f"{randomness['draws_within']:g} deviations of their means; witnesses are of its mean"
        )
    if "randomised" not in randomness:
        return ""
    return "everything here is about the mean of the randomised network, and says nothing about any of its draws"


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
        path, name = _locate(model), str(model)
        network, runtime = _called(read_network(path, limits), name), open_runtime(path, limits)
    subject = Subject(name, network, runtime, choose_device(device, partial(work_of, network)))
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
    return _called(read_network(path), str(model)), read_metadata(path)


def _called(network: Network, name: str) -> Network:
    """Return the network, called in messages as its user calls it: a shipped one lies where nobody put it."""
    return network if network.source == name else Network(network.nodes, network.input_shape, network.dtype, name)


def _locate(model: str | Path) -> Path:
    """Return the file of a shipped name or a path; a file of the same name in the working folder wins."""
    path = Path(model)
    shipped = shipped_models()
    # A folder of that name is that of a run, as `--out digits-relu` makes it.
    if not path.is_file() and str(model) in shipped:
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
