"""The training loop: seeded, checkpointed after each epoch, resumed exactly, best epoch kept by validation.

The loop knows nothing of losses: a `Regime` turns a batch into losses. Checkpoints are safetensors files (no
pickle) and are replaced atomically.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from encoders.files import write_atomically
from verifier.training.architectures import clamp_parameters


class Regime(Protocol):
    """How a batch becomes losses, each followed by a step of the optimiser before the next is asked for.

    `progress` runs from 0 at the start to 1 at the end of training.
    """

    def __call__(self, module: nn.Module, x: Tensor, y: Tensor, progress: float) -> Iterator[Tensor]: ...


@dataclass(frozen=True)
class Plan:
    """How long and how to train. schedule: constant, or cosine (the learning rate falls to 0 on half a cosine)."""

    epochs: int
    batch: int = 100
    learning_rate: float = 1.0
    schedule: str = "cosine"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 1 or not self.learning_rate > 0:
            raise ValueError("training needs at least one epoch, a batch of one and a positive learning rate")
        if self.schedule not in ("constant", "cosine"):
            raise ValueError(f"unknown schedule {self.schedule!r}; supported: constant, cosine")


@dataclass
class History:
    """What was measured after each epoch: losses (their sum over a batch, mean over batches) and validation score."""

    losses: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)

    @property
    def best_epoch(self) -> int:
        """The first epoch with the greatest score, counted from 0."""
        return max(range(len(self.scores)), key=lambda epoch: (self.scores[epoch], -epoch))


class Trainer:
    """Trains a module in place. Make it, `resume` if wanted, then `run`; afterwards the best epoch is loaded."""

    def __init__(
        self,
        module: nn.Module,
        regime: Regime,
        optimiser: torch.optim.Optimizer,
        data: tuple[Tensor, Tensor],
        plan: Plan,
        score: Callable[[nn.Module], float],
    ) -> None:
        self.module, self.regime, self.optimiser, self.plan, self.score = module, regime, optimiser, plan, score
        self.inputs, self.labels = data
        self.generator = torch.Generator().manual_seed(plan.seed)
        self.history = History()
        self.best: dict[str, Tensor] = {}

    def run(self, checkpoint: Path | None = None, progress: Callable[[int, int], None] | None = None) -> History:
        """Train the epochs that are left; write the checkpoint after each; load the best epoch at the end.

        progress: called with (batches done, batches in all).
        """
        while len(self.history.losses) < self.plan.epochs:
            self._epoch(len(self.history.losses), progress)
            if checkpoint is not None:
                self.save(checkpoint)
        self.module.load_state_dict(self.best)
        self.module.eval()
        return self.history

    def _epoch(self, epoch: int, progress: Callable[[int, int], None] | None) -> None:
        self.module.train()
        order = torch.randperm(len(self.inputs), generator=self.generator)
        batches = order.split(self.plan.batch)
        total, done = 0.0, epoch * len(batches)
        everything = self.plan.epochs * len(batches)
        for number, rows in enumerate(batches):
            share = (done + number) / everything
            self._set_learning_rate(share)
            rows = rows.to(self.inputs.device)
            for loss in self.regime(self.module, self.inputs[rows], self.labels[rows], share):
                self.optimiser.zero_grad(set_to_none=True)
                loss.backward()
                self.optimiser.step()
                clamp_parameters(self.module)
                total += float(loss.detach())
            if progress is not None:
                progress(done + number + 1, everything)
        self.module.eval()
        self.history.losses.append(total / len(batches))
        self.history.scores.append(self.score(self.module))
        if self.history.best_epoch == epoch:
            self.best = {name: value.detach().clone() for name, value in self.module.state_dict().items()}

    def _set_learning_rate(self, share: float) -> None:
        factor = 0.5 * (1.0 + torch.cos(torch.tensor(share * torch.pi)).item())
        rate = self.plan.learning_rate * (factor if self.plan.schedule == "cosine" else 1.0)
        for group in self.optimiser.param_groups:
            group["lr"] = rate

    def save(self, path: Path) -> None:
        """Write all that `resume` needs, in one step."""
        from safetensors.torch import save

        tensors = {f"model.{name}": value for name, value in self.module.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        for number, values in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{number}.{name}": torch.as_tensor(value) for name, value in values.items()}
        # torch's global generator too: regimes may draw from it.
        tensors |= {"generator": self.generator.get_state(), "global_generator": torch.get_rng_state()}
        meta = {"plan": self._identity(), "losses": self.history.losses, "scores": self.history.scores}
        contiguous = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
        write_atomically(path, save(contiguous, {"checkpoint": json.dumps(meta)}))

    def resume(self, path: Path) -> None:
        """Continue from a checkpoint. Raises ValueError if it belongs to another plan, data or network."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                meta = json.loads((file.metadata() or {}).get("checkpoint", "null"))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, ValueError) as error:
            raise ValueError(f"{path}: not a checkpoint: {error}") from None
        if not isinstance(meta, dict) or meta.get("plan") != self._identity():
            raise ValueError(f"{path} is the checkpoint of another training; remove it or write elsewhere")
        self.module.load_state_dict(_under(tensors, "model."))
        self.best = _under(tensors, "best.")
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in _under(tensors, "optimiser.").items():
            number, key = name.split(".", 1)
            state.setdefault(int(number), {})[key] = value
        self.optimiser.load_state_dict({"state": state, "param_groups": self.optimiser.state_dict()["param_groups"]})
        self.generator.set_state(tensors["generator"])
        torch.set_rng_state(tensors["global_generator"])
        self.history = History(meta["losses"], meta["scores"])

    def _identity(self) -> dict[str, Any]:
        """Return what must agree between a checkpoint and this training."""
        shapes = {name: list(value.shape) for name, value in self.module.state_dict().items()}
        return {
            "plan": vars(self.plan), "regime": repr(self.regime), "shapes": shapes, "inputs": list(self.inputs.shape),
            "check": float(self.inputs.double().sum()) + float(self.labels.double().sum()),
        }  # fmt: skip


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
