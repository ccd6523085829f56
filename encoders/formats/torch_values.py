"""The values of the calls of an exported torch program, as torch computes them: asked for where something differs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Interpreter
from torch.fx import Node as FxNode

from encoders.formats.runtime import Array


class _Watching(Interpreter):
    """Runs a graph and keeps a copy of every tensor that a call returns, under the name of the call."""

    def __init__(self, module: torch.fx.GraphModule) -> None:
        super().__init__(module)
        self.seen: dict[str, Array] = {}

    def run_node(self, n: FxNode) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.seen[n.name] = result.numpy(force=True).copy()
        return result


def inner_values(program: ExportedProgram, x: Tensor) -> dict[str, Array]:
    """Return the values of all calls at x, shaped as the program wants it, by their names in the program."""
    module = program.module()
    assert isinstance(module, torch.fx.GraphModule)
    watching = _Watching(module)
    with torch.no_grad():
        watching.run(x)
    return watching.seen
