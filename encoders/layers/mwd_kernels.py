"""The one place that chooses a kernel of max-of-weighted-distance units: Triton, numba or plain torch.

CUDA tensors go to Triton and CPU tensors to numba where that is installed, the tensors are float32 or float64 of one
dtype and the problem is large enough to pay; all else goes to the reference. The environment variable
ENCODERS_MWD_KERNELS forces `triton`, `numba` or `reference`, for tests and benchmarks. Values do not depend on
the choice; gradients do within the tolerances that the kernels state.
"""

import functools
import importlib
import importlib.util
import os
from types import ModuleType

from torch import Tensor, float32, float64

from encoders.layers.mwd_reference import Gradients, Needs

VARIABLE = "ENCODERS_MWD_KERNELS"
# Products batch x units x inputs below this take less time in plain torch: a compiled call costs 0.02 to 0.1 ms.
LEAST_ELEMENTS = 1 << 15
# The same of gradients; at this size plain torch takes half a millisecond, and compiling them takes two seconds.
LEAST_GRADIENT_ELEMENTS = 1 << 16
# What a process gives plain torch before numba compiles: half a second of values or ranges, as long as compiling takes.
ELEMENTS_BEFORE_COMPILING = 1 << 27

_MODULES = {
    "triton": "encoders.layers.mwd_triton",
    "numba": "encoders.layers.mwd_numba",
    "reference": "encoders.layers.mwd_reference",
}


@functools.cache
def _kernels(name: str) -> ModuleType:
    """Return the module of kernels, imported (and later compiled) only when it is needed."""
    if name not in _MODULES:
        raise ValueError(f"{VARIABLE}={name!r} is unknown; supported: {', '.join(_MODULES)}")
    return importlib.import_module(_MODULES[name])


@functools.cache
def is_installed(name: str) -> bool:
    """Return whether the package that a kind of kernels needs is installed."""
    return name == "reference" or importlib.util.find_spec(name) is not None


class Uncompiled:
    """What a process has left to plain torch of one function; time depends on it, values do not."""

    def __init__(self) -> None:
        self.elements = 0

    def takes(self, elements: int) -> bool:
        """Return whether plain torch takes a problem of this size, and count it."""
        self.elements += elements
        return self.elements <= ELEMENTS_BEFORE_COMPILING


_DISTANCES, _RANGES = Uncompiled(), Uncompiled()


def choose(x: Tensor, u: Tensor, w: Tensor, least: int = LEAST_ELEMENTS) -> str:
    """Return the name of the kernels for operands x `(batch, inputs)`, u and w `(units, inputs)`."""
    elements, forced = x.numel() * u.shape[0], os.environ.get(VARIABLE)
    if forced and elements:
        return forced
    if elements < least or x.dtype not in (float32, float64):
        return "reference"
    if not x.dtype == u.dtype == w.dtype or not x.device == u.device == w.device:
        return "reference"
    name = {"cuda": "triton", "cpu": "numba"}.get(x.device.type, "reference")
    return name if is_installed(name) else "reference"


def _of_values(x: Tensor, u: Tensor, w: Tensor, uncompiled: Uncompiled) -> ModuleType:
    """Return the kernels for values, which are equal bit for bit: those of numba once it pays to compile them."""
    name = choose(x, u, w)
    if name == "numba" and VARIABLE not in os.environ and uncompiled.takes(x.numel() * u.shape[0]):
        name = "reference"
    return _kernels(name)


def weighted_distance(x: Tensor, u: Tensor, w: Tensor) -> Tensor:
    """Return z = max_i |u_i (x_i - w_i)|, `(batch, units)`, each term rounded twice. Not differentiable.

    x: `(batch, inputs)`; u, w: `(units, inputs)`.
    """
    z: Tensor = _of_values(x, u, w, _DISTANCES).weighted_distance(x, u, w)
    return z


def distance_range(lower: Tensor, upper: Tensor, u: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """Return (near, far) of z over the boxes [lower, upper], each `(batch, units)`, for u >= 0.

    Rounded to nearest with a relative error of at most 2 roundings: the caller rounds outward. Both are NaN where
    a term is.
    """
    ends: tuple[Tensor, Tensor] = _of_values(lower, u, w, _RANGES).distance_range(lower, upper, u, w)
    return ends


def max_square_backward(
    x: Tensor, u: Tensor, w: Tensor, z: Tensor, grad: Tensor, pseudo: bool, needs: Needs
) -> Gradients:
    """Return the gradients of s = max_i t_i^2 by those of x, u, w that `needs` names, None for the others.

    z: from `weighted_distance`; grad: the feedback of s, both `(batch, units)`; pseudo: SharedFeedbackMax in place of
    the true gradient. Not differentiable again.
    """
    kernels = _kernels(choose(x, u, w, LEAST_GRADIENT_ELEMENTS))
    gradients: Gradients = kernels.max_square_backward(x, u, w, z, grad, pseudo, needs)
    return gradients
