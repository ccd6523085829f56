"""A pretended GPU: tensors that say that they lie on "cuda" and hold CPU data, so that device faults fail without one.

`Pretended` follows its tag through every operation below autograd. What a real device refuses is refused: operations on
tensors of both sides (but for scalars of no axis, and CPU indices of a tensor on the device), `.numpy()`, and so
constants that were made on the wrong side. `pretended()` is a context in which `device="cuda"` means it, `memory()` one
in which it holds no tensor beyond a size, as an allocator says that has no more. Not covered: what one operation
refuses on a GPU alone, streams, memory in use, kernels of our own, threads beside the one that entered the context
(torch's modes are of a thread), and `torch.cuda`, which sees no device.
"""

import contextlib
import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

CUDA = torch.device("cuda", 0)
# Operations whose indices, the second argument, may lie on the CPU.
INDEXING = {"aten.index.Tensor", "aten._unsafe_index.Tensor", "aten.index_put.default", "aten.index_put_.default",
            "aten._index_put_impl_.default", "aten._unsafe_index_put.default"}  # fmt: skip
# Operations on a list of tensors, in which scalars are no exception.
JOINING = {"aten.cat.default", "aten.stack.default"}


# Bytes of the largest tensor that the device holds, by the contexts that are entered.
_LARGEST = [math.inf]


class DeviceFault(RuntimeError):
    """What a GPU would refuse."""


class Pretended(Tensor):
    """A tensor on the pretended device; `held` is its data on the CPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor):
        made = Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            device="meta", requires_grad=held.requires_grad,
        )  # fmt: skip
        made.held = held.detach()
        return made

    # For C++ it lies on "meta", which needs no driver.
    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_meta = property(lambda self: False)
    is_cpu = property(lambda self: False)

    def __repr__(self, *, tensor_contents=None) -> str:
        return f"Pretended({self.held!r})"

    @classmethod
    def __torch_dispatch__(cls, function, types, arguments=(), keywords=None):
        return run(function, arguments, keywords or {})


def is_cuda(device) -> bool:
    return device is not None and not isinstance(device, Tensor) and torch.device(device).type in ("cuda", "meta")


def _data(value):
    return value.held if isinstance(value, Pretended) else value


def _tensors(*values) -> list[Tensor]:
    return [value for value in tree_flatten(values)[0] if isinstance(value, Tensor)]


def _check_sides(function, arguments, keywords) -> None:
    """Raise DeviceFault where operands lie on both sides; `copy_` is what crosses."""
    name = str(function)
    if name == "aten.copy_.default":
        return
    operands = _tensors(arguments, keywords)
    if name in INDEXING:
        first, indices, *others = arguments
        operands = _tensors(first, others, keywords, [i for i in _tensors(indices) if isinstance(i, Pretended)])
    ours = [value for value in operands if isinstance(value, Pretended)]
    strangers = [value for value in operands if not isinstance(value, Pretended)]
    changed = function._schema.is_mutable and strangers and strangers[0] is operands[0]
    if ours and any(value.dim() or changed or name in JOINING for value in strangers):
        raise DeviceFault(f"{name}: expected all tensors on one device, found cuda:0 and cpu {strangers[0].shape}")


def run(function, arguments, keywords):
    """Run an operation on the data, and put its results on the side where they belong."""
    ours = [value for value in _tensors(arguments, keywords) if isinstance(value, Pretended)]
    _check_sides(function, arguments, keywords)
    device = keywords.get("device")
    there = bool(ours) if device is None else is_cuda(device)
    if str(function) == "aten.copy_.default":
        there = isinstance(arguments[0], Pretended)
    if "device" in keywords:
        keywords = {**keywords, "device": torch.device("cpu")}
    result = function(*tree_map(_data, arguments), **tree_map(_data, keywords))
    # What was changed in place is the same object.
    known = {id(value.held): value for value in ours}

    def placed(value):
        if not there or not isinstance(value, Tensor):
            return value
        if value.numel() * value.itemsize > _LARGEST[-1]:
            raise torch.OutOfMemoryError(f"{function}: tried to allocate {value.numel() * value.itemsize} bytes")
        return known[id(value)] if id(value) in known else Pretended(value)

    return tree_map(placed, result)


class _Operations(TorchDispatchMode):
    """What torch itself makes below Python, as constants and in gradients, has no tensor of ours beside it."""

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        return run(function, arguments, keywords or {})


class _Functions(TorchFunctionMode):
    """What does not come to the dispatcher, or not before torch looks for a driver: making tensors, and leaving."""

    def __torch_function__(self, function, types, arguments=(), keywords=None):
        keywords = dict(keywords or {})
        name = getattr(function, "__name__", "")
        first = arguments[0] if arguments else None
        if isinstance(first, Pretended):
            if name in ("numpy", "__array__"):
                raise DeviceFault("can't convert a tensor on cuda:0 to numpy; call .cpu() first")
            if name == "tolist":
                return first.held.tolist()
            if name == "new_tensor":
                there = is_cuda(keywords.pop("device", CUDA))
                made = torch.tensor(*arguments[1:], **{"dtype": first.dtype, **keywords})
                return _there(made) if there else made
            if name == "data_ptr":
                return first.held.data_ptr()
            if name in ("as_tensor", "asarray"):
                name = "to"
            elif is_cuda(keywords.get("device")):
                del keywords["device"]
        if name == "to" and isinstance(first, Tensor):
            return _moved(first, arguments[1:], keywords, function)
        if name == "cuda":
            return _there(first)
        if name == "cpu":
            return _here(first)
        if is_cuda(keywords.get("device")) and not isinstance(first, Pretended):
            wants = keywords.pop("requires_grad", False)
            keywords["device"] = torch.device("cpu")
            made = _there(function(*arguments, **keywords))
            return made.requires_grad_() if wants else made
        return function(*arguments, **keywords)


class _Cross(torch.autograd.Function):
    """Copies a tensor to the other side, and its gradient back."""

    @staticmethod
    def forward(context, value: Tensor, there: bool) -> Tensor:
        context.there = isinstance(value, Pretended)
        held = value.held if isinstance(value, Pretended) else value
        return Pretended(held.detach().clone()) if there else held.detach().clone()

    @staticmethod
    def backward(context, gradient: Tensor):
        held = gradient.held if isinstance(gradient, Pretended) else gradient
        return (Pretended(held.clone()) if context.there else held.clone()), None


def _there(value):
    return value if not isinstance(value, Tensor) or isinstance(value, Pretended) else _Cross.apply(value, True)


def _here(value):
    return _Cross.apply(value, False) if isinstance(value, Pretended) else value


def _moved(value: Tensor, arguments, keywords, function):
    """Return what `.to` makes: first the side, then the rest."""
    device, rest = keywords.pop("device", None), []
    for argument in arguments:
        if isinstance(argument, str | torch.device):
            device = argument
        elif isinstance(argument, Tensor):
            device, rest = argument.device, [*rest, argument.dtype]
        else:
            rest.append(argument)
    if device is not None:
        value = _there(value) if is_cuda(device) else _here(value)
    return function(value, *rest, **keywords) if rest or keywords else value


@contextlib.contextmanager
def pretended() -> Iterator[torch.device]:
    """Yield the pretended device; inside, `device="cuda"` makes tensors on it."""
    with _Operations(), _Functions():
        yield CUDA


@contextlib.contextmanager
def memory(largest: float) -> Iterator[None]:
    """Have the pretended device hold no tensor of more bytes."""
    _LARGEST.append(largest)
    try:
        yield
    finally:
        _LARGEST.pop()
