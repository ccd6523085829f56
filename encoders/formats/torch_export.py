"""Read torch modules and .pt2 files through torch.export, and run them in torch.

A module is traced as it runs: a copy, in evaluation mode, on the CPU, without gradients.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from encoders.formats.errors import ModelFileError
from encoders.formats.graph import FileInput
from encoders.formats.runtime import Array, Runtime, open_batched
from encoders.formats.torch_archive import open_archive
from encoders.formats.torch_program import convert, program_input
from encoders.limits import LimitError, Limits
from encoders.network import Network


def read_network(path: Path, limits: Limits = Limits()) -> Network:
    """Return the network in a .pt2 file. Raises ModelFileError, or LimitError for what is too large."""
    return convert(open_archive(path, limits), str(path), limits)


def open_runtime(path: Path, limits: Limits = Limits()) -> Runtime:
    """Return the program in a .pt2 file as torch executes it; only programs that can be read are executed."""
    program = open_archive(path, limits)
    convert(program, str(path), limits)
    return _runtime(program.module(), program_input(program, str(path)), str(path))


def from_module(module: nn.Module, input_shape: Sequence[int], limits: Limits = Limits()) -> Network:
    """Return the network of a module in evaluation mode, for inputs `(batch, *input_shape)`.

    The module itself is left as it is. Raises ModelFileError if torch.export cannot trace it, or naming every
    operator that is not supported.
    """
    source = type(module).__name__
    try:
        limits.check("input_values", math.prod(input_shape), f"the input of shape {tuple(input_shape)}")
        model = _evaluation_copy(module)
        try:
            example = torch.zeros(1, *input_shape, dtype=_dtype_of(model))
            # The runtime has no gradients either: a module may ask.
            with torch.no_grad():
                program = torch.export.export(model, (example,), strict=False)
        except Exception as error:
            # Whatever the module's own code raises comes out of the tracer.
            raise ModelFileError(
                f"{source}: torch.export cannot trace it with an input of shape {(1, *input_shape)}: {error}"
            ) from error
        return convert(program, source, limits)
    except LimitError as error:
        raise ModelFileError(f"{source}: {error}") from None


def open_module(module: nn.Module, input_shape: Sequence[int]) -> Runtime:
    """Return a copy of the module, in evaluation mode and on the CPU, as torch executes it."""
    model = _evaluation_copy(module)
    shape = tuple(input_shape)
    return _runtime(model, FileInput((1, *shape), "any", _dtype_of(model)), type(module).__name__)


def _runtime(module: nn.Module, given: FileInput, source: str) -> Runtime:
    def run(x: Array) -> Array:
        try:
            with torch.no_grad():
                result = module(torch.from_numpy(x.copy()))
        except Exception as error:
            # The model's own code runs here, or calls of torch on shapes that only now are known.
            raise ModelFileError(f"{source}: torch cannot run it on an input of shape {x.shape}: {error}") from error
        if not isinstance(result, Tensor) or result.layout != torch.strided:
            raise ModelFileError(f"{source}: returns {type(result).__name__}; supported: one dense tensor")
        # A copy: a module may return its own buffer, and write to it in the next call.
        return np.array(result.numpy(force=True))

    dtype = torch.empty(0, dtype=given.dtype).numpy().dtype
    runtime = open_batched(f"torch {torch.__version__}", given.sample_shape, dtype, given.batch, run)
    if runtime.batch != given.batch:
        _check_rows(runtime, source)
    return runtime


def _check_rows(rows: Runtime, source: str) -> None:
    """Refuse a model that takes several inputs at once, but gives them other outputs than it gives each alone.

    One that does not take them, or does not give a row for each, is run row by row.
    """
    probe = np.random.default_rng(0).standard_normal((3, *rows.input_shape)).astype(rows.dtype)
    alone = rows(probe)
    try:
        together = rows.run(probe)
    except ModelFileError:
        return
    if together.shape == alone.shape:
        raise ModelFileError(
            f"{source}: its outputs for several inputs together are not those for each alone (they differ by "
            f"{np.abs(together - alone).max():.3g} at random inputs), so there is no one function to verify"
        )


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
