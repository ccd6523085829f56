"""The training loop: seeded, checkpointed after each epoch, resumed exactly, best epoch kept by validation.

The loop knows nothing of losses: a `Regime` turns a batch into losses. Checkpoints are safetensors files (no
pickle) and are replaced atomically.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from encoders.files import write_atomically
from encoders.layers import Mwd, MwdConv2d
from verifier.training.architectures import clamp_parameters
from verifier.training.augmentation import AUGMENTATIONS
from verifier.training.history import History
from verifier.training.plan import Plan


class Regime(Protocol):
    """How a batch becomes losses, each followed by a step of the optimiser before the next is asked for.

    `progress` runs from 0 at the start to 1 at the end of training.
    """

    def __call__(self, module: nn.Module, x: Tensor, y: Tensor, progress: float) -> Iterator[Tensor]: ...


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

    def run(
        self,
        checkpoint: Path | None = None,
        progress: Callable[[int, int], None] | None = None,
        measured: Callable[[History], None] | None = None,
    ) -> History:
        """Train the epochs that are left; write a checkpoint after each; load the best epoch at the end.

        Where a loss or a weight is not finite it ends with the best epoch before, which the history says; ValueError
        if there is none. progress: called with (batches done, batches in all); measured: after each epoch.
        """
        while not self._over():
            epoch = len(self.history.losses)
            if not self._epoch(epoch, progress):
                self.history.diverged = epoch + 1
                break
            if checkpoint is not None:
                self.save(checkpoint)
            if measured is not None:
                measured(self.history)
        if not self.best:
            raise ValueError(
                "training diverged in the first epoch: a loss or a weight is not finite; lower the learning rate"
            )
        self.module.load_state_dict(self.best)
        self.module.eval()
        return self.history

    def _over(self) -> bool:
        scores = self.history.scores
        return bool(scores) and self.plan.is_over(scores, self.history.best_epoch)

    def _epoch(self, epoch: int, progress: Callable[[int, int], None] | None) -> bool:
        """Train one epoch and measure; return whether losses and weights stayed finite, and measure nothing else."""
        self.module.train()
        self._set_pseudo_share(self.plan.pseudo_share_in(epoch))
        order = torch.randperm(len(self.inputs), generator=self.generator)
        batches = order.split(self.plan.batch)
        total, done = 0.0, epoch * len(batches)
        everything = self.plan.epochs * len(batches)
        for number, rows in enumerate(batches):
            share = (done + number) / everything
            self._set_learning_rate(share)
            total += self._batch(rows.to(self.inputs.device), share)
            if not math.isfinite(total):
                return False
            if progress is not None:
                progress(done + number + 1, everything)
        if not all(bool(value.isfinite().all()) for value in self.module.state_dict().values()):
            return False
        self.module.eval()
        self.history.losses.append(total / len(batches))
        self.history.rates.append(self.plan.rate_at(share))
        self.history.scores.append(self.score(self.module))
        if self.history.best_epoch == epoch:
            self.best = {name: value.detach().clone() for name, value in self.module.state_dict().items()}
        return True

    def _batch(self, rows: Tensor, share: float) -> float:
        """Take the steps of a batch; return the sum of its losses. A loss that is not finite takes no step."""
        x, y, total = self.inputs[rows], self.labels[rows], 0.0
        for name in self.plan.augment:
            x = AUGMENTATIONS[name](x)
        for loss in self._losses(x, y, share):
            total += float(loss.detach())
            if not math.isfinite(total):
                break
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            self.optimiser.step()
            clamp_parameters(self.module)
        return total

    def _losses(self, x: Tensor, y: Tensor, share: float) -> Iterator[Tensor]:
        """Yield the regime's losses, each found in the plan's precision.

        Weights are rounded anew each time they are used: rounded copies would outlive the step that moves the weights,
        and those made by an attack have no gradient.
        """
        losses, reduced = iter(self.regime(self.module, x, y, share)), self.plan.precision == "bfloat16"
        while True:
            with torch.autocast(x.device.type, torch.bfloat16, enabled=reduced, cache_enabled=False):
                loss = next(losses, None)
            if loss is None:
                return
            yield loss.float() if reduced else loss

    def _set_learning_rate(self, share: float) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = self.plan.rate_at(share)

    def _set_pseudo_share(self, share: float) -> None:
        for layer in self.module.modules():
            if isinstance(layer, Mwd | MwdConv2d):
                layer.pseudo_share = share

    def save(self, path: Path) -> None:
        """Write all that `resume` needs, in one step."""
        from safetensors.torch import save

        tensors = {f"model.{name}": value for name, value in self.module.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        for number, values in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{number}.{name}": torch.as_tensor(value) for name, value in values.items()}
        # torch's global generator too: regimes may draw from it.
        tensors |= {"generator": self.generator.get_state(), "global_generator": torch.get_rng_state()}
        history = {"losses": self.history.losses, "scores": self.history.scores, "rates": self.history.rates}
        meta = {"plan": self._identity(), **history}
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
        self._lay_out()
        self.generator.set_state(tensors["generator"])
        torch.set_rng_state(tensors["global_generator"])
        self.history = History(meta["losses"], meta["scores"], meta["rates"])

    def _lay_out(self) -> None:
        """Bring what the optimiser keeps into the memory format of its weights, which one kernel takes for granted."""
        for parameter, values in self.optimiser.state.items():
            for name, value in values.items():
                if torch.is_tensor(value) and value.shape == parameter.shape:
                    values[name] = torch.empty_like(parameter).copy_(value)

    def _identity(self) -> dict[str, Any]:
        """Return what must agree between a checkpoint and this training."""
        shapes = {name: list(value.shape) for name, value in self.module.state_dict().items()}
        return {
            "plan": vars(self.plan) | {"augment": list(self.plan.augment)}, "regime": repr(self.regime),
            "optimiser": type(self.optimiser).__name__, "shapes": shapes, "inputs": list(self.inputs.shape),
            "check": float(self.inputs.double().sum()) + float(self.labels.double().sum()),
        }  # fmt: skip


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
