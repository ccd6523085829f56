"""Constants of an exported program: calls on them are evaluated, after their size is known, and copies are kept once.

A call is first evaluated on torch's `meta` device, which knows shapes and allocates nothing. What all calls and copies
allocate together is limited: twice the stored weights (a transposed copy of each, say) and `constant_bytes` besides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node as FxNode

from encoders.limits import Limits

# Calls that are evaluated where all inputs are constant. A list, because a file must not choose what runs.
FOLDABLE = (
    "aten.abs.default",
    "aten.add.Tensor",
    "aten.arange.default",
    "aten.arange.start_step",
    "aten.alias.default",
    "aten.cat.default",
    "aten.clamp.default",
    "aten.clone.default",
    "aten.contiguous.default",
    "aten.detach.default",
    "aten.div.Tensor",
    "aten.eq.Scalar",
    "aten.expand.default",
    "aten.fmod.Scalar",
    "aten.full.default",
    "aten.ge.Scalar",
    "aten.gt.Scalar",
    "aten.le.Scalar",
    "aten.lift_fresh_copy.default",
    "aten.lt.Scalar",
    "aten.mul.Tensor",
    "aten.neg.default",
    "aten.ones.default",
    "aten.permute.default",
    "aten.reshape.default",
    "aten.scalar_tensor.default",
    "aten.slice.Tensor",
    "aten.sub.Tensor",
    "aten.t.default",
    "aten.transpose.int",
    "aten.unsqueeze.default",
    "aten.view.default",
    "aten.zeros.default",
)

# Those that allocate nothing and show as many values as they are given.
_VIEWS = (
    "aten.alias.default",
    "aten.detach.default",
    "aten.permute.default",
    "aten.t.default",
    "aten.transpose.int",
    "aten.unsqueeze.default",
    "aten.view.default",
)


class Constants:
    """What has been computed from constants, and how many bytes it takes.

    Methods raise LimitError beyond the limits.
    """

    def __init__(self, stored_bytes: int, limits: Limits) -> None:
        self._free = 2 * stored_bytes
        self._used = 0
        self._limits = limits
        # With the tensor it was made from, whose address is in the key and must stay taken.
        self._made: dict[tuple[Any, ...], tuple[Tensor, Tensor]] = {}

    def evaluate(self, node: FxNode, args: list[Any], kwargs: dict[str, Any]) -> Tensor | list[Tensor]:
        """Return the value of a call whose arguments are constant, as torch computes it on the processor.

        A call that writes in place works on a copy. Raises whatever torch does for arguments that do not fit.
        """
        target = node.target
        assert isinstance(target, torch._ops.OpOverload)
        creates = any(argument.name == "device" for argument in target._schema.arguments)
        with torch.no_grad():
            if str(target) not in _VIEWS:
                meta = mapped(args, _on_meta), mapped(kwargs, _on_meta) | ({"device": "meta"} if creates else {})
                shapes = target(*meta[0], **meta[1])
                for part in [shapes] if isinstance(shapes, Tensor) else shapes:
                    self._charge(part, f"node {node.name!r}")
            if target._schema.is_mutable:
                args = [args[0].clone(), *args[1:]]
            result = target(*args, **kwargs | ({"device": "cpu"} if creates else {}))
        if not isinstance(result, Tensor):
            return list(result)
        if result.layout != torch.strided:
            raise ValueError(f"layout {result.layout} is not supported")
        return result

    def contiguous(self, constant: Tensor) -> Tensor:
        """Return the constant in C order, the same copy each time."""
        if constant.is_contiguous():
            return constant
        return self._kept("contiguous", constant, lambda given: given.clone(memory_format=torch.contiguous_format))

    def transposed(self, matrix: Tensor) -> Tensor:
        """Return the transposed matrix in C order, the same copy each time."""
        return self._kept("transposed", matrix, lambda given: given.t().contiguous())

    def negated(self, constant: Tensor) -> Tensor:
        """Return minus the constant, the same copy each time."""
        return self._kept("negated", constant, torch.neg)

    def filled_like(self, constant: Tensor, value: float) -> Tensor:
        """Return a constant of this shape with one value everywhere, the same copy each time."""
        return self._kept(f"filled {value}", constant, lambda given: torch.full_like(given, value))

    def _kept(self, what: str, constant: Tensor, make: Callable[[Tensor], Tensor]) -> Tensor:
        key = (what, constant.data_ptr(), constant.dtype, tuple(constant.shape), constant.stride())
        if key not in self._made:
            self._charge(constant, f"a {what} constant")
            self._made[key] = (constant, make(constant))
        return self._made[key][1]

    def _charge(self, result: Tensor, what: str) -> None:
        self.claim(result.numel() * result.element_size(), what)

    def claim(self, size: int, what: str) -> None:
        """Claim bytes before they are allocated; raise LimitError beyond the limit."""
        self._used += size
        self._limits.check("constant_bytes", self._used - self._free, f"{what}, with the constants before it,")


def _on_meta(value: Tensor) -> Tensor:
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")


def mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return the structure with each tensor changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, list):
        return [mapped(entry, change) for entry in value]
    if isinstance(value, dict):
        return {name: mapped(entry, change) for name, entry in value.items()}
    return value
