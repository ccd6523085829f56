"""Read torch modules and .pt2 files through torch.export, and run them in torch.

A module is traced as it runs: a copy, in evaluation mode, on the CPU, without gradients.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from encoders.formats.errors import ModelFileError
from encoders.formats.graph import FileInput
from encoders.formats.runtime import Array, Runtime, open_batched
from encoders.formats.torch_archive import open_archive
from encoders.formats.torch_program import convert, program_input
from encoders.formats.torch_values import inner_values
from encoders.limits import LimitError, Limits
from encoders.network import Network


def read_network(path: Path, limits: Limits = Limits()) -> Network:
    """Return the network in a .pt2 file. Raises ModelFileError, or LimitError for what is too large."""
    return convert(open_archive(path, limits), str(path), limits)


def open_runtime(path: Path, limits: Limits = Limits()) -> Runtime:
    """Return the program in a .pt2 file as torch executes it; only programs that can be read are executed."""
    program = open_archive(path, limits)
    convert(program, str(path), limits)
    return _runtime(program.module(), program_input(program, str(path)), str(path), lambda: program)


def from_module(module: nn.Module, input_shape: Sequence[int], limits: Limits = Limits()) -> Network:
    """Return the network of a module in evaluation mode, for inputs `(batch, *input_shape)`.

    The module itself is left as it is. Raises ModelFileError if torch.export cannot trace it, or naming every
    operator that is not supported.
    """
    source = type(module).__name__
    try:
        limits.check("input_values", math.prod(input_shape), f"the input of shape {tuple(input_shape)}")
        program = _traced(_evaluation_copy(module), input_shape, source)
        return convert(program, source, limits)
    except LimitError as error:
        raise ModelFileError(f"{source}: {error}") from None


def _traced(model: nn.Module, input_shape: Sequence[int], source: str) -> ExportedProgram:
    """Return the program of a module, traced with one input, or with two where it does not take one.

    Raises ModelFileError if torch.export cannot trace it.
    """
    try:
        return _exported(model, torch.zeros(1, *input_shape, dtype=_dtype_of(model)))
    except Exception as error:
        with contextlib.suppress(Exception):
            batch = ({0: torch.export.Dim("batch", min=2)},)
            return _exported(model, torch.zeros(2, *input_shape, dtype=_dtype_of(model)), batch)
        # Whatever the module's own code raises comes out of the tracer.
        raise ModelFileError(
            f"{source}: torch.export cannot trace it with an input of shape {(1, *input_shape)}: {error}"
        ) from error


def _exported(model: nn.Module, example: Tensor, shapes: object = None) -> ExportedProgram:
    # The runtime has no gradients either: a module may ask.
    with torch.no_grad():
        return torch.export.export(model, (example,), dynamic_shapes=shapes, strict=False)  # type: ignore[arg-type]


def open_module(module: nn.Module, input_shape: Sequence[int]) -> Runtime:
    """Return a copy of the module, in evaluation mode and on the CPU, as torch executes it."""
    model = _evaluation_copy(module)
    shape = tuple(input_shape)
    source = type(module).__name__
    given = FileInput((1, *shape), "any", _dtype_of(model))
    return _runtime(model, given, source, lambda: _traced(_evaluation_copy(module), shape, source))


def _runtime(module: nn.Module, given: FileInput, source: str, program: Callable[[], ExportedProgram]) -> Runtime:
    """Return the module as a user runs it; program: its exported form, asked for where inner values are."""

    def run(x: Array, gradients: bool = False) -> Array:
        try:
            with torch.set_grad_enabled(gradients):
                result = _outputs(module, torch.from_numpy(x.copy()), given)
        except Exception as error:
            # The model's own code runs here, or calls of torch on shapes that only now are known.
            raise ModelFileError(f"{source}: torch cannot run it on an input of shape {x.shape}: {error}") from error
        if not isinstance(result, Tensor) or result.layout != torch.strided:
            raise ModelFileError(f"{source}: returns {type(result).__name__}; supported: one dense tensor")
        # A copy: a module may return its own buffer, and write to it in the next call.
        return np.array(result.numpy(force=True))

    dtype = torch.empty(0, dtype=given.dtype).numpy().dtype
    runtime = Runtime(
        f"torch {torch.__version__}",
        given.sample_shape,
        dtype,
        given.batch,
        run,
        variants={"with gradients": lambda x: run(x, gradients=True)},
        values=lambda x: inner_values(program(), torch.from_numpy(x if given.batch != "none" else x[0])),
        state=lambda: _state(module),
    )
    return open_batched(runtime)


def _outputs(module: nn.Module, x: Tensor, given: FileInput) -> Tensor:
    """Return the module's outputs; one input is given twice to a module that does not take it alone."""
    outputs: Tensor
    try:
        outputs = module(x)
    except Exception:
        # A module may raise anything where it asks for a batch; whatever else is wrong with it raises again.
        if given.batch != "any" or len(x) != 1:
            raise
        outputs = module(torch.cat([x, x]))
        return outputs[:1] if len(outputs) == 2 else outputs
    return outputs


def _state(module: nn.Module) -> str:
    """Return what the module keeps, as text: its plain attributes, and which tensors it holds in which version.

    Tensors that are only attributes are left out: modules keep their last activations for people to look at.
    """
    kept = []
    for name, part in module.named_modules():
        plain = {key: value for key, value in vars(part).items() if isinstance(value, bool | int | float | str)}
        tensors = {**dict(part.named_parameters(recurse=False)), **dict(part.named_buffers(recurse=False))}
        kept.append((name, plain, {key: (id(value), value._version) for key, value in tensors.items()}))
    return repr(kept)


def _evaluation_copy(module: nn.Module) -> nn.Module:
    """Return a copy of the module; what hooks, parametrizations and `eval` do goes with it."""
    try:
        return copy.deepcopy(module).eval().cpu()
    except Exception as error:
        # Modules may refuse to be copied, hold tensors with a history, or have no values (the meta device).
        raise ModelFileError(
            f"{type(module).__name__}: cannot be copied to the CPU in evaluation mode: {error}; give a module whose "
            "weights are parameters or buffers with values"
        ) from error


def _dtype_of(module: nn.Module) -> torch.dtype:
    """Return the dtype of the module's first floating-point weight; torch's default if it has none."""
    weights = [*module.parameters(), *module.buffers()]
    lazy = torch.nn.parameter.is_lazy
    known = (weight.dtype for weight in weights if not lazy(weight) and weight.is_floating_point())
    return next(known, torch.get_default_dtype())
