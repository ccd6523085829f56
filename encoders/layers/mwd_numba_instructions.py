"""Operations on the bits of floats inside compiled loops: one instruction each, where numba has none."""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

# Typed as it behaves: called inside compiled loops without the context that its definition takes.
_instruction: Callable[[Any], Any] = intrinsic


def _integer_of(kind: Any) -> tuple[Any, Any]:
    """Return (numba's integer type as wide as this float type, the same type of LLVM)."""
    return (types.int32, ir.IntType(32)) if kind == types.float32 else (types.int64, ir.IntType(64))


@_instruction
def magnitude(typing_context: Any, value: Any) -> Any:
    """Return the bits of |value| as an integer: ordered like the magnitudes, with NaN above infinity."""
    integer, word = _integer_of(value)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.and_(builder.bitcast(arguments[0], word), ir.Constant(word, (1 << (word.width - 1)) - 1))

    return integer(value), generate


@_instruction
def bits(typing_context: Any, value: Any) -> Any:
    """Return the bits of the value as an integer."""
    integer, word = _integer_of(value)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], word)

    return integer(value), generate


@_instruction
def unsigned_max(typing_context: Any, first: Any, second: Any) -> Any:
    """Return the greater one of two integers read as unsigned; numba's own unsigned types would widen."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.select(builder.icmp_unsigned(">", *arguments), *arguments)

    return first(first, second), generate


@_instruction
def without_sign(typing_context: Any, value: Any) -> Any:
    """Return bits of a float with the sign cleared."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = arguments[0].type
        return builder.and_(arguments[0], ir.Constant(word, (1 << (word.width - 1)) - 1))

    return value(value), generate


@_instruction
def truncated(typing_context: Any, value: Any) -> Any:
    """Return a float without its fraction as an integer of the same width."""
    integer, word = _integer_of(value)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fptosi(arguments[0], word)

    return integer(value), generate


def _mantissa(word: Any) -> int:
    """Return the mask of the mantissa in a float as wide as the integer."""
    return (1 << (23 if word.width == 32 else 52)) - 1


@_instruction
def fraction(typing_context: Any, fixed: Any, one: Any) -> Any:
    """Return 1 + f for the fixed-point number k + f whose fraction has as many bits as a mantissa; one: 1.0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = arguments[0].type
        low = builder.and_(arguments[0], ir.Constant(word, _mantissa(word)))
        return builder.bitcast(builder.or_(low, builder.bitcast(arguments[1], word)), arguments[1].type)

    return one(fixed, one), generate


@_instruction
def scaled_by_power(typing_context: Any, value: Any, fixed: Any) -> Any:
    """Return value * 2^k for the fixed-point number k + f: an addition to the exponent."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = arguments[1].type
        power = builder.and_(arguments[1], ir.Constant(word, ~_mantissa(word)))
        return builder.bitcast(builder.add(builder.bitcast(arguments[0], word), power), arguments[0].type)

    return value(value, fixed), generate


@_instruction
def flipped(typing_context: Any, value: Any, sign: Any) -> Any:
    """Return the value, negated if the integer `sign` is a sign bit and not 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value_bits = builder.bitcast(arguments[0], arguments[1].type)
        return builder.bitcast(builder.xor(value_bits, arguments[1]), arguments[0].type)

    return value(value, sign), generate
