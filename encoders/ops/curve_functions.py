"""The table of functions of one number: a new one is a row.

A row says how the value and the derivative are computed, where the function is convex and concave, and how it ends; see
`encoders.views.curve.Span`. `tests/conformance/test_curve_laws.py` checks all of it.
"""

from collections.abc import Callable
from functools import lru_cache

from encoders.ops import curve_activations as activations
from encoders.ops import curve_elementary as elementary
from encoders.views.curve import Function

FUNCTIONS: dict[str, Callable[..., Function]] = {
    "arctangent": elementary.arctangent,
    "celu": activations.celu,
    "cos": elementary.cosine,
    "elu": activations.elu,
    "erf": elementary.erf,
    "erf-gate": activations.erf_gate,
    "exp": elementary.exponential,
    "gelu": activations.gelu,
    "gelu-tanh": activations.gelu_tanh,
    "hard-swish": activations.hard_swish,
    "log": elementary.logarithm,
    "log-sigmoid": activations.log_sigmoid,
    "mish": activations.mish,
    "power": elementary.power,
    "selu": activations.selu,
    "sign": elementary.sign,
    "silu": activations.silu,
    "sin": elementary.sine,
    "softplus": activations.softplus,
    "softsign": activations.softsign,
    "tanh-gate": activations.tanh_gate,
    "tanhshrink": activations.tanhshrink,
}


@lru_cache(maxsize=256)
def curve_of(function: str, arguments: tuple[float, ...] = ()) -> Function:
    """Return the curve of a row with its numbers; raise ValueError for one that does not exist."""
    if function not in FUNCTIONS:
        raise ValueError(f"function {function!r} is unknown; supported: {', '.join(FUNCTIONS)}")
    try:
        return FUNCTIONS[function](*arguments)
    except TypeError:
        raise ValueError(f"function {function!r} does not take {len(arguments)} numbers") from None
